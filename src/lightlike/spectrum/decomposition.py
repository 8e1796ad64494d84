"""One exact decomposition of A, kept as long as something still asks for it.

The eigenvalues of an explicit A Aᵀ or Aᵀ A are accurate to eps λ_1, so singular values of A below
√eps s_1 are lost in them. Where some are, the decision which are zero is taken to A itself:

- by a singular value decomposition of A, or
- in the subspace of the small ones: with eigenvectors V_? of Aᵀ A, the singular values of A V_?
  have errors of the order eps s_1. Rounding has mixed a little of the large eigenvectors V into
  V_?; since Vᵀ Aᵀ A V_? should vanish, what it is instead measures the mixture and removes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from lightlike.spectrum.dense import (
    from_singular_values,
    from_symmetric,
    singular_values,
)
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.operator import Factor
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT, SVD_WEIGHT, Route, choose, routes
from lightlike.spectrum.spectrum import Spectrum

Product = Callable[[Tensor], Tensor]

# Eigenvalues below this share of the largest are taken to the refinement. The mixture with larger
# ones is then of the order eps / √share, and what is left of it after removal of the order eps.
SMALL = 1e-8


class Decomposition:
    """The spectrum of Aᵀ A by one route, and what else its matrix can be asked for.

    Args:
        factor: A.
        route: How: "gram", "metric" or "svd".
        budget: Bytes that a refinement may use.
    """

    def __init__(self, factor: Factor, route: Route, budget: float) -> None:
        self.factor, self.route, self.budget = factor, route, budget
        self.precision = factor.precision

    @property
    def left(self) -> bool:
        """Whether `matrix` is A Aᵀ; it is Aᵀ A otherwise."""
        if self.route.method == "svd":
            return self.factor.shape[0] <= self.factor.shape[1]
        return self.route.method == "gram"

    @cached_property
    def matrix(self) -> Tensor:
        """A Aᵀ or Aᵀ A."""
        return self.factor.gram() if self.left else self.factor.metric()

    @cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of `matrix`, ascending, and its eigenvectors in columns."""
        values, vectors = torch.linalg.eigh(self.matrix)
        return values, vectors

    @cached_property
    def first(self) -> Spectrum:
        """The spectrum as the route gives it, before any refinement."""
        if self.route.method == "svd":
            return self.by_svd(self.route.reason)
        return from_symmetric(
            self.matrix, self.factor.shape, self.route.method, self.precision, self.route.reason
        )

    @cached_property
    def spectrum(self) -> Spectrum:
        """The spectrum with its small end refined where rounding hid something.

        If refinement does not fit in the budget, the unrefined one, whose `rank_bounds` say what
        is open.
        """
        first = self.first
        if first.resolved or first.method == "svd" or not len(first):
            return first
        rows, columns = self.factor.shape
        small, large = min(rows, columns), max(rows, columns)
        hidden = small - int((first.eigenvalues > SMALL * first.largest).sum())
        matrix = 8.0 * rows * columns
        svd = 4.0 * large * small**2 + SVD_WEIGHT * 8 / 3 * small**3
        subspace = EIGENVALUE_WEIGHT * 5.0 * len(self.matrix) ** 3 + 6.0 * rows * columns * hidden
        subspace += SVD_WEIGHT * 4.0 * large * hidden**2
        long = columns if self.left else rows
        memory = 8.0 * (3 * len(self.matrix) ** 2 + 4 * long * hidden)
        if svd <= subspace and 3 * matrix + 24 * small**2 <= self.budget:
            return self.by_svd(f"{first.reason}; small ones by singular values of A itself")
        if memory <= self.budget:
            return self.by_subspace()
        return first

    def by_svd(self, reason: str) -> Spectrum:
        """From the singular values of A written out."""
        values = singular_values(self.factor.dense())
        return from_singular_values(values, self.factor.shape, self.precision, "svd", reason)

    def by_subspace(self) -> Spectrum:
        """Large eigenvalues as they are, small ones from A on their eigenvectors."""
        values, vectors = self.vectors
        products: tuple[Product, Product] = self.factor.mv, self.factor.rmv
        forward, backward = reversed(products) if self.left else products
        few = int((values <= SMALL * values[-1]).sum())
        small, large = vectors[:, :few], vectors[:, few:]
        mixture = (large.T @ backward(forward(small))) / values[few:, None]
        cleaned = torch.linalg.qr(small - large @ mixture).Q
        refined = singular_values(forward(cleaned))
        roots = values[few:].sqrt().flip(0)
        merged = torch.cat([roots, refined]).sort(descending=True).values
        first = self.first
        reason = f"{first.reason}; the {few:,} small ones refined in their subspace"
        return from_singular_values(
            merged[: min(first.shape)], first.shape, self.precision, first.method, reason
        )


def decompose(
    factor: Factor, method: str = "auto", memory: int | float | str | None = None
) -> Decomposition:
    """Choose the cheapest exact route that fits, or the one asked for; nothing is computed yet.

    Raises:
        ChoiceError: for an unknown method.
        CapacityError: if no route that is allowed fits in memory.
    """
    budget = resolve_memory(memory)
    rows, columns = factor.shape
    found = routes(rows, columns, factor.gram_operations(), factor.row_operations())
    return Decomposition(factor, choose(found, method, budget), budget)
