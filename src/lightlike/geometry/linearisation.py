"""Steps that leave the predictions alone to first order: the radical at one point, factorised.

With A(θ) the root of the metric and W = diag(w) a metric of steps, all of this is one problem,

    min_p  ½ (d + p)ᵀ W⁻¹ (d + p) + (1/2ε) |r + A p|²,
    p = −d + W Aᵀ (A W Aᵀ + ε)⁻¹ (A d − r),

with d what is to be taken away and r the whitened residual of the outputs. For ε → 0 it is −d
projected on the radical, W-orthogonally, and the step of least W-norm in the screen that takes the
residual away (Gauss–Newton). For ε > 0 a direction of eigenvalue λ is left free by the share
ε/(λ + ε): the directions well below ε are a radical to all significance.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightlike.errors import CapacityError
from lightlike.metric.root import Root
from lightlike.spectrum.memory import format_bytes

# Up to here the eigenvalues of A W Aᵀ are taken, beyond it a Cholesky factor.
EIGEN = 1200
REFINEMENTS = 2
# Matrices of that size that are held at once.
MATRICES = 4


class Linearisation(ABC):
    """The steps p for one A, W and ε. Opaque `left` is what of r a step is expected to leave.

    Attributes:
        radical: Number of directions left free: D less eigenvalues above ε and rounding, less
            weights with w = 0.
        counted: Whether that number is counted; otherwise it is D − K, a lower bound.
    """

    radical: int
    counted: bool = True

    @abstractmethod
    def step(self, d: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """The step p (D,), and what it leaves of the residual, for d (D,) and r (K,)."""

    @abstractmethod
    def correct(self, r: Tensor, left: Tensor) -> Tensor:
        """The least step (D,) that takes r (K,) to what was expected to be left."""

    @abstractmethod
    def remaining(self, r: Tensor) -> Tensor:
        """What a step of nothing leaves of the residual r (K,)."""

    def project(self, v: Tensor) -> Tensor:
        """The part of v (D,) in the radical."""
        rows = torch.zeros(self.rows, dtype=v.dtype, device=v.device)
        return -self.step(v, rows)[0]

    rows: int


class Dual(Linearisation):
    """From A W Aᵀ (K, K): an eigendecomposition or, where K is large, a Cholesky factor.

    With the factor C Cᵀ = A W Aᵀ + ρ, ρ never below rounding, (A W Aᵀ)⁻¹ is approached by
    y ← y + ρ (A W Aᵀ + ρ)⁻¹ y: each pass takes the share ρ/(λ + ρ) of what was left, and what is
    fainter than ρ stays, for the most part, in the screen.
    """

    def __init__(self, root: Root, weights: Tensor | None, epsilon: float, memory: float) -> None:
        self.root, self.weights = root, weights
        self.rows, columns = root.shape
        matrix = _gram_of(root, weights, memory)
        rounding = self.rows * torch.finfo(matrix.dtype).eps * float(matrix.norm())
        free = columns if weights is None else int((weights > 0).sum())
        self._values = self._vectors = self._factor = None
        if self.rows <= EIGEN:
            values, self._vectors = torch.linalg.eigh(matrix)
            self._values, kept = shrink(values, rounding, epsilon)
            self.radical = max(0, free - kept)
        else:
            self.ridge = max(epsilon, rounding, torch.finfo(matrix.dtype).tiny)
            self.refinements = REFINEMENTS if epsilon < rounding else 0
            matrix.diagonal().add_(self.ridge)
            self._factor = torch.linalg.cholesky(matrix)
            self.radical, self.counted = max(0, free - self.rows), False

    def step(self, d: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """As `Linearisation.step`; `left` is (K,)."""
        y, left = self._solve(self.root.mv(d) - r)
        return self._lift(y) - d, -left

    def correct(self, r: Tensor, left: Tensor) -> Tensor:
        """As `Linearisation.correct`."""
        return -self._lift(self._solve(r - left)[0])

    def remaining(self, r: Tensor) -> Tensor:
        """As `Linearisation.remaining`."""
        return r

    def _lift(self, y: Tensor) -> Tensor:
        lifted = self.root.rmv(y)
        return lifted if self.weights is None else lifted * self.weights

    def _solve(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The solution y of A W Aᵀ y = u, as far as ε allows, and u − A W Aᵀ y."""
        if self._factor is None:
            assert self._vectors is not None
            inner = self._vectors.T @ u
            share, inverse = self._values  # type: ignore[misc]
            return self._vectors @ (inverse * inner), self._vectors @ (share * inner)
        y = last = torch.cholesky_solve(u[:, None], self._factor)[:, 0]
        for _ in range(self.refinements):
            last = torch.cholesky_solve(self.ridge * last[:, None], self._factor)[:, 0]
            y = y + last
        return y, self.ridge * last


class Primal(Linearisation):
    """From W^½ AᵀA W^½ over the f weights that move (f, f), where that is less work.

    Here `left` is Aᵀ (r + A p) at these weights, (f,).
    """

    def __init__(self, root: Root, weights: Tensor | None, epsilon: float) -> None:
        self.root = root
        self.rows, self._columns = root.shape
        self._free: Tensor | None = None
        self._scale: Tensor | None = None
        if weights is None:
            self._metric = matrix = root.metric()
        else:
            self._free = torch.nonzero(weights)[:, 0]
            self._scale = weights[self._free].sqrt()
            self._metric = matrix = _metric_of(root, self._free)
            matrix = self._scale[:, None] * matrix * self._scale
        rounding = self.rows * torch.finfo(matrix.dtype).eps * float(matrix.norm())
        values, self._vectors = torch.linalg.eigh(matrix)
        (_, self._inverse), kept = shrink(values, rounding, epsilon)
        self.radical = len(values) - kept

    def step(self, d: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """As `Linearisation.step`."""
        moment, away = self._pick(self.root.rmv(r)), self._pick(d)
        p = self._lift(self._metric @ away - moment) - away
        return self._place(p), moment + self._metric @ p

    def correct(self, r: Tensor, left: Tensor) -> Tensor:
        """As `Linearisation.correct`."""
        return -self._place(self._lift(self._pick(self.root.rmv(r)) - left))

    def remaining(self, r: Tensor) -> Tensor:
        """As `Linearisation.remaining`."""
        return self._pick(self.root.rmv(r))

    def _pick(self, v: Tensor) -> Tensor:
        return v if self._free is None else v[self._free]

    def _place(self, v: Tensor) -> Tensor:
        if self._free is None:
            return v
        placed = v.new_zeros(self._columns)
        placed[self._free] = v
        return placed

    def _lift(self, moment: Tensor) -> Tensor:
        scaled = moment if self._scale is None else moment * self._scale
        lifted: Tensor = self._vectors @ (self._inverse * (self._vectors.T @ scaled))
        return lifted if self._scale is None else lifted * self._scale


def linearise(
    root: Root, weights: Tensor | None, epsilon: float, memory: float = math.inf
) -> Linearisation:
    """Factorise A W Aᵀ or W^½ AᵀA W^½, whichever is less work and fits.

    Args:
        root: A.
        weights: w ≥ 0 (D,), or None for ones; a weight of 0 stays where it is, and has to be
            where it is wanted (d = 0).
        epsilon: ε ≥ 0.
        memory: Bytes that may be used.

    Raises:
        CapacityError: if neither fits.
    """
    rows, columns = root.shape
    free = columns if weights is None else int((weights > 0).sum())
    # Operations: a symmetric eigendecomposition is some 9 n³, a Cholesky factor n³/3.
    dual = (9.0 if rows <= EIGEN else 1 / 3) * rows**3
    primal = 9.0 * free**3
    sides = sorted([(dual, rows), (primal, free)])
    fitting = [s for s in sides if 8.0 * MATRICES * s[1] ** 2 <= memory]
    if not fitting:
        raise CapacityError(
            f"Steps at K = {rows:,} rows and D = {columns:,} parameters take about "
            f"{format_bytes(8.0 * MATRICES * min(rows, free) ** 2)}, more than the "
            f"{format_bytes(memory)} there are.",
            "They are projected by a factor of A Aᵀ or AᵀA.",
            "Use fewer observations or fewer parameters, or give more memory.",
        )
    if fitting[0] == (dual, rows):
        return Dual(root, weights, epsilon, memory)
    return Primal(root, weights, epsilon)


def _gram_of(root: Root, weights: Tensor | None, memory: float) -> Tensor:
    """A W Aᵀ, (K, K)."""
    if weights is None:
        return root.gram(memory)
    free = torch.nonzero(weights)[:, 0]
    if len(free) > 2 * root.shape[0]:
        return root.scaled(weights.sqrt()).gram(memory)
    # The columns that move are no more than two matrices of that size, and few of all.
    scale = weights[free].sqrt()
    part = torch.cat([slab[:, free] * scale for slab in root.slabs("Gram matrix")])
    return part @ part.T


def _metric_of(root: Root, free: Tensor) -> Tensor:
    """AᵀA at some of the parameters, (f, f)."""
    out = torch.zeros(len(free), len(free), dtype=root.dtype, device=root.device)
    for slab in root.slabs("Fisher matrix"):
        part = slab[:, free]
        out.addmm_(part.T, part)
    return out


def shrink(values: Tensor, rounding: float, epsilon: float) -> tuple[tuple[Tensor, Tensor], int]:
    """Of eigenvalues: the shares left ε/(λ + ε), the inverses 1/(λ + ε), and how many count.

    An eigenvalue below rounding could be 0: nothing is divided by it, and its direction is free.
    """
    real = values > rounding
    kept = values.clamp_min(rounding) + epsilon
    inverse = torch.where(real, 1.0 / torch.where(real, kept, 1.0), 0.0)
    share = torch.where(real, epsilon * inverse, 1.0)
    return (share, inverse), int((values > max(rounding, epsilon)).sum())
