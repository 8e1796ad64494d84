"""One exact decomposition of A, kept as long as something still asks for it.

The eigenvalues of an explicit A Aᵀ or Aᵀ A are accurate to eps λ_1, so singular values of A below
√eps s_1 are lost in them. Where some are, the decision which are zero is taken to A itself:

- by scaling: with D the norms of A's rows (or columns), A Aᵀ = D C D, and the singular values of A
  are those of D times the Cholesky factor of C, each to relative accuracy n eps cond(C) and eps s_1
  (Demmel & Veselić 1992, doi:10.1137/0613074). It serves where C is well conditioned, as for data
  that saturated outputs make faint but not dependent;
- by a singular value decomposition of A, or
- in the subspace of the small ones: with eigenvectors V_? of Aᵀ A, the singular values of A V_?
  have errors of the order eps s_1. Rounding has mixed a little of the large eigenvectors V into
  V_?; since Vᵀ Aᵀ A V_? should vanish, what it is instead measures the mixture and removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from scipy.linalg.lapack import dpocon
from torch import Tensor

from lightlike.spectrum.dense import from_singular_values, from_symmetric, singular_values
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.operator import Factor, Keeper
from lightlike.spectrum.reduction import SHARE, Reduction
from lightlike.spectrum.rounding import SMALL, Rounding
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT, SVD_WEIGHT, Route, choose, routes
from lightlike.spectrum.spectrum import Spectrum
from lightlike.spectrum.symmetric import SymmetricMatrix

Product = Callable[[Tensor], Tensor]

# Largest relative error n eps cond(C) of a singular value that scaling may leave.
WELL_CONDITIONED = 1e-4
# Eigenvalues below this many floors are close to call. Where only they are refined, second-order
# mixture with the others remains, below 1e-12 s_1 for sizes up to 10⁵.
CLOSE = 4.0


class Decomposition:
    """The spectrum of Aᵀ A by one route, and what else its matrix can be asked for.

    Args:
        factor: A.
        route: How: "gram", "metric" or "svd".
        budget: Bytes that a refinement may use.
        keeper: Where the eigenvalues are kept for a run that goes on after an end.
    """

    def __init__(
        self, factor: Factor, route: Route, budget: float, keeper: Keeper | None = None
    ) -> None:
        self.factor, self.route, self.budget, self.keeper = factor, route, budget, keeper
        self.precision = factor.precision
        self._rounding: Rounding | None = None

    @property
    def left(self) -> bool:
        """Whether `matrix` is A Aᵀ; it is Aᵀ A otherwise."""
        if self.route.method == "svd":
            return self.factor.shape[0] <= self.factor.shape[1]
        return self.route.method == "gram"

    @cached_property
    def matrix(self) -> Tensor:
        """A Aᵀ or Aᵀ A."""
        matrix = self.factor.gram(self.budget) if self.left else self.factor.metric()
        self._rounding = self.factor.rounding
        return matrix

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D), the shape of A."""
        return self.factor.shape

    @property
    def method(self) -> str:
        """The route."""
        return self.route.method

    @cached_property
    def explicit(self) -> SymmetricMatrix:
        """`matrix`, and what it tells without eigenvalues."""
        return SymmetricMatrix(self.matrix, self.precision, self.rounding)

    @property
    def rounding(self) -> Rounding | None:
        """How far `matrix` in lower precision was found from float64."""
        _ = self.matrix
        return self._rounding

    @property
    def symmetric(self) -> SymmetricMatrix | None:
        """`explicit`, unless the route does without it."""
        return None if self.method == "svd" else self.explicit

    @property
    def trace(self) -> float | None:
        """The trace tr Aᵀ A if `matrix` or the eigenvalues are at hand, None otherwise."""
        if "matrix" in vars(self):
            return self.explicit.trace
        return self.spectrum.trace if self.spectrum.known else None

    @cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of `matrix`, ascending, and its eigenvectors in columns."""
        values, vectors = torch.linalg.eigh(self.matrix)
        return values, vectors

    @cached_property
    def reduction(self) -> Reduction:
        """The tridiagonal form of `matrix`; it takes as much memory."""
        return Reduction(self.matrix)

    def leading(self, count: int) -> tuple[Tensor, Tensor]:
        """The largest eigenvalues of `matrix`, descending, (count,), and their eigenvectors.

        Only these are computed where they are few, and all that are within rounding of one another
        are cut wherever `count` says; see `lightlike.spectrum.reduction`.
        """
        if not count:
            return self.matrix.new_zeros(0), self.matrix[:, :0]
        few = count <= SHARE * len(self.matrix) and self.matrix.device.type == "cpu"
        if few and "vectors" not in vars(self):
            return self.reduction.largest(count)
        values, vectors = self.vectors
        first = len(values) - count
        return values[first:].flip(0), vectors[:, first:].flip(1)

    @cached_property
    def first(self) -> Eigenvalues:
        """The eigenvalues as the route gives them, before any refinement."""
        if self.route.method == "svd":
            return self.by_svd(self.route.reason)
        if self.keeper is None:
            return self._by_matrix()

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            found = self._by_matrix()
            return {"eigenvalues": found.eigenvalues}, found.facts()

        tensors, facts = self.keeper.stage("eigenvalues", compute)
        return Eigenvalues.of(tensors["eigenvalues"].to(self.matrix.device), facts)

    def _by_matrix(self) -> Eigenvalues:
        return from_symmetric(
            self.matrix,
            self.factor.shape,
            self.route.method,
            self.precision,
            self.route.reason,
            self.rounding,
        )

    @cached_property
    def spectrum(self) -> Spectrum:
        """The spectrum, whose eigenvalues are computed when something needs them."""
        return Spectrum(self)

    def restore(self, values: Eigenvalues) -> None:
        """Take eigenvalues that an earlier run has found by this route."""
        self.spectrum = Spectrum(values)

    def solve(self) -> Eigenvalues:
        """The eigenvalues, their small end refined where rounding hid something.

        If refinement does not fit in the budget, the unrefined ones, whose `rank_bounds` say what
        is open; so too where A was computed in lower precision for speed.
        """
        first = self.first
        settled = first.resolved or first.method == "svd" or first.rounding is not None
        if settled or not len(first):
            return first
        if (scaled := self.by_scaling()) is not None:
            return scaled
        rows, columns = self.factor.shape
        small, large = min(rows, columns), max(rows, columns)
        # What is close to call alone takes less memory than all that rounding touches.
        for share in (SMALL, CLOSE * first.floor / first.largest):
            hidden = small - int((first.eigenvalues > share * first.largest).sum())
            svd = 4.0 * large * small**2 + SVD_WEIGHT * 8 / 3 * small**3
            subspace = EIGENVALUE_WEIGHT * 5.0 * len(self.matrix) ** 3
            subspace += 6.0 * rows * columns * hidden + SVD_WEIGHT * 4.0 * large * hidden**2
            long = columns if self.left else rows
            memory = 8.0 * (3 * len(self.matrix) ** 2 + 4 * long * hidden)
            if svd <= subspace and 24.0 * (rows * columns + small**2) <= self.budget:
                return self.by_svd(f"{first.reason}; small ones by singular values of A itself")
            if memory <= self.budget:
                return self.by_subspace(share)
        return first

    def by_scaling(self) -> Eigenvalues | None:
        """Small ones from the Cholesky factor of the scaled matrix, or None if that is singular."""
        matrix = self.matrix
        size = len(matrix)
        norms = matrix.diagonal().clamp_min(0.0).sqrt()
        if 6 * matrix.nbytes > self.budget or not bool((norms > 0).all()):
            return None
        scaled = matrix / norms[:, None] / norms
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if int(failed):
            return None
        norm = float(scaled.abs().sum(0).max())
        # LAPACK reads columns first: our lower factor is its upper one.
        reciprocal, _ = dpocon(factor.cpu().numpy().T, norm, uplo="U")
        if size * self.precision > WELL_CONDITIONED * reciprocal:
            return None
        small = torch.linalg.svdvals(norms[:, None] * factor)
        return self._merged(small, SMALL, "the small ones by scaling")

    def by_svd(self, reason: str) -> Eigenvalues:
        """From the singular values of A written out."""
        values = singular_values(self.factor.dense())
        return from_singular_values(
            values,
            self.factor.shape,
            self.precision,
            self.route.method,
            reason,
            self.factor.rounding,
        )

    def by_subspace(self, share: float = SMALL) -> Eigenvalues:
        """Large eigenvalues as they are, those below a share of λ_1 from A on their vectors."""
        values, vectors = self.vectors
        products: tuple[Product, Product] = self.factor.mv, self.factor.rmv
        forward, backward = reversed(products) if self.left else products
        few = int((values <= share * values[-1]).sum())
        small, large = vectors[:, :few], vectors[:, few:]
        mixture = (large.T @ backward(forward(small))) / values[few:, None]
        cleaned = torch.linalg.qr(small - large @ mixture).Q
        refined = singular_values(forward(cleaned))
        roots = values[few:].sqrt().flip(0)
        merged = torch.cat([roots, refined]).sort(descending=True).values
        return self._merged(merged, share, f"the {few:,} small ones refined in their subspace")

    def _merged(self, singular: Tensor, share: float, how: str) -> Eigenvalues:
        """The first ones above a share of the largest, the others from refined singular values."""
        first = self.first
        large = first.eigenvalues[first.eigenvalues > share * first.largest].sqrt()
        merged = torch.cat([large, singular[len(large) : min(first.shape)]])
        merged = merged.sort(descending=True).values
        reason = f"{first.reason}; {how}"
        return from_singular_values(merged, first.shape, self.precision, first.method, reason)


def decompose(
    factor: Factor,
    method: str = "auto",
    memory: int | float | str | None = None,
    estimates: Callable[[], Sequence[Route]] = tuple,
    keeper: Keeper | None = None,
) -> Decomposition:
    """Choose the cheapest exact route that fits, or the one asked for; nothing is computed yet.

    Args:
        factor: A.
        method: "auto", "gram", "metric" or "svd".
        memory: What may be used.
        estimates: Gives what to name if nothing exact fits.
        keeper: Where the eigenvalues are kept for a run that goes on after an end.

    Raises:
        ChoiceError: for an unknown method.
        CapacityError: if no route that is allowed fits in memory.
    """
    budget = resolve_memory(memory)
    rows, columns = factor.shape
    found = routes(rows, columns, factor.cost(budget))
    return Decomposition(factor, choose(found, method, budget, estimates), budget, keeper)
