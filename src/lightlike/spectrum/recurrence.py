"""Lanczos steps from several vectors side by side, each with full reorthogonalisation.

F V_m = V_m T_m + β_m v_{m+1} e_mᵀ with V_m orthonormal (Lanczos 1950, doi:10.6028/jres.045.026),
in float64, and orthogonalised against every earlier vector twice: no eigenvalue is found again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.spectrum.probes import Operator
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.tridiagonal import NOISE, Measure

# Share of ‖F‖ by which ⟨v, F w⟩ and ⟨F v, w⟩ may differ.
ASYMMETRY = 1e-4
# What rounding leaves of the largest stretch along vectors that have no part in it is no less.
REMAINS = 1e-10


class Recurrence:
    """Lanczos recurrences from the columns of a block.

    Args:
        operator: F, (n, n).
        starts: (n, c), not zero; they are normalised.
        room: Steps that memory is taken for at first.
    """

    def __init__(self, operator: Operator, starts: Tensor, room: int = 32) -> None:
        n, count = starts.shape
        self.operator = operator
        self.basis = starts.new_zeros(count, min(room, n), n)
        self.alphas = starts.new_zeros(count, 0)
        self.betas = starts.new_zeros(count, 0)
        self.lengths = [0] * count
        self.live = torch.ones(count, dtype=torch.bool, device=starts.device)
        self.scale = starts.new_zeros(count)
        self._next = (starts / starts.norm(dim=0)).T

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return self.alphas.shape[1]

    @property
    def finished(self) -> bool:
        """Whether every recurrence knows all of its measure."""
        return not bool(self.live.any())

    def advance(self) -> None:
        """One step of every recurrence that is not finished.

        Raises:
            EstimateError: if the matrix is not symmetric.
        """
        m, (count, room, n) = self.steps, self.basis.shape
        if m == room:
            grown = self.basis.new_zeros(count, min(2 * room, n), n)
            grown[:, :m] = self.basis
            self.basis = grown
        self.basis[:, m] = self._next
        known = self.basis[:, : m + 1]
        image = (self.operator @ self._next.T.contiguous()).T
        first = torch.bmm(known, image[:, :, None])[:, :, 0]
        rest = image - torch.bmm(first[:, None], known)[:, 0]
        again = torch.bmm(known, rest[:, :, None])[:, :, 0]
        rest = rest - torch.bmm(again[:, None], known)[:, 0]
        # In units of the largest entries, whose squares may be too small for a float.
        unit = rest.abs().amax(1).clamp_min(torch.finfo(rest.dtype).tiny)
        rest = rest / unit[:, None]
        length = rest.norm(dim=1)
        alpha, beta = first[:, m] + again[:, m], unit * length
        before = self.betas[:, -1] if m else torch.zeros_like(beta)
        self.scale = torch.maximum(self.scale, alpha.abs() + beta + before)
        self._check_symmetry(first, before)
        noise = NOISE * self.operator.precision * (m + 1) * self.scale
        ended = (beta <= noise) | (m + 1 == n)
        beta = torch.where(ended, 0.0, beta)
        self.alphas = torch.cat([self.alphas, alpha[:, None]], 1)
        self.betas = torch.cat([self.betas, beta[:, None]], 1)
        self.lengths = [
            taken + int(alive)
            for taken, alive in zip(self.lengths, self.live.tolist(), strict=True)
        ]
        self.live &= ~ended
        # What is finished goes on as zeros, which change nothing.
        self._next = torch.where(self.live[:, None], rest / length.clamp_min(EPS)[:, None], 0.0)

    def measures(self) -> list[Measure]:
        """What is known of each vector's measure."""
        return [
            Measure(
                self.alphas[i, :length].cpu().clone(),
                self.betas[i, :length].cpu().clone(),
                self.operator.precision,
            )
            for i, length in enumerate(self.lengths)
        ]

    def _check_symmetry(self, coefficients: Tensor, before: Tensor) -> None:
        """F v_m has no part along v_1 … v_{m−2}, and β_{m−1} along v_{m−1}, if F is symmetric."""
        m = coefficients.shape[1] - 1
        if not m:
            return
        expected = torch.zeros_like(coefficients[:, :m])
        expected[:, -1] = torch.where(self.live, before, 0.0)
        off = (coefficients[:, :m] - expected).abs().amax(1)
        scale = self.scale.clamp_min(max(1e-300, REMAINS * self.operator.largest))
        worst = float((off / scale)[self.live].max()) if self.live.any() else 0.0
        asymmetric(worst, ASYMMETRY)


def asymmetric(off: float, allowed: float) -> None:
    """Raise an EstimateError if a matrix is off symmetry by more than is allowed of its size."""
    if off > allowed:
        raise EstimateError(
            f"The matrix is not symmetric: ⟨v, F w⟩ and ⟨F v, w⟩ differ by {off:.2g} of it.",
            "Lanczos steps are of symmetric matrices.",
            "Symmetrise it, or look for products that change from one call to the next.",
        )


@dataclass(frozen=True, eq=False)
class Leading:
    """Ritz pairs.

    Attributes:
        values: θ (k,), descending.
        residuals: ‖F q − θ q‖, (k,).
        vectors: q (n, k), orthonormal.
        positive: How many Ritz values of the whole Krylov space rounding leaves above 0.
    """

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    positive: int


def leading(operator: Operator, start: Tensor, count: int, most: int) -> Leading:
    """The largest Ritz pairs with residuals below `SURE` of themselves.

    Args:
        operator: F.
        start: (n,), random.
        count: How many are wanted.
        most: Products at most.

    Returns:
        As many as were found, `count` at most.
    """
    run = Recurrence(operator, start[:, None], room=min(most, 2 * count + 20))
    while run.steps < most and not run.finished:
        run.advance()
        if run.steps >= count and not (run.steps - count) % 4:
            found = _pairs(run, count)
            if len(found.values) == count:
                return found
    return _pairs(run, count)


# Residual over Ritz value up to which a pair is taken out; what is left open goes as its square.
SURE = 1e-4


def _pairs(run: Recurrence, count: int) -> Leading:
    """The largest pairs that are sure, up to the first that is not."""
    m = run.lengths[0]
    alphas, betas = run.alphas[0, :m], run.betas[0, :m]
    T = torch.diag(alphas) + torch.diag(betas[:-1], 1) + torch.diag(betas[:-1], -1)
    values, vectors = torch.linalg.eigh(T)
    values, vectors = values.flip(0), vectors.flip(1)
    residuals = (betas[-1] * vectors[-1]).abs()
    positive = values > NOISE * run.operator.precision * m * float(run.scale[0])
    sure = (residuals <= SURE * values) & positive
    # A gap among them would leave a larger one to the probes.
    kept = min(count, int(sure.long().cumprod(0).sum()))
    Q = run.basis[0, :m].T @ vectors[:, :kept]
    return Leading(values[:kept], residuals[:kept], Q, int(positive.sum()))
