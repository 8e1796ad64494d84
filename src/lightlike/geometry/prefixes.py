"""The ranks of the first observations of a data set in some order, all from one computation.

Rows of a subset are rows of A, so the Gram matrix of the subset is a principal submatrix of A Aᵀ.
Where eigenvalues of that cannot decide, one orthogonal factorisation A = L Q of all rows in order,
L lower triangular, has in its leading block the singular values of every leading set of rows, to
the accuracy of singular values of A itself. If A does not fit in memory, the small eigenvalues of
each subset are refined on products with its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from lightlike.errors import CapacityError
from lightlike.geometry.counting import bounded, cut_of, dimension_above
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.dense import from_singular_values, singular_values
from lightlike.spectrum.memory import format_bytes, resolve_memory
from lightlike.spectrum.operator import Cost
from lightlike.spectrum.rounding import Rounding

Keep = Callable[[Mapping[int, Dimension]], None]


class Rows:
    """Some rows of a root A as a factor of their own, for refinements of its Gram matrix.

    Args:
        root: A.
        index: The rows, in order, (k,).
        gram: Makes A Aᵀ of these rows.
    """

    def __init__(self, root: Root, index: Tensor, gram: Callable[[], Tensor]) -> None:
        self.root, self.index, self._gram = root, index, gram

    @property
    def shape(self) -> tuple[int, int]:
        """(k, D)."""
        return len(self.index), self.root.shape[1]

    def mv(self, v: Tensor) -> Tensor:
        """A v on these rows."""
        return self.root.mv(v)[self.index]

    def rmv(self, u: Tensor) -> Tensor:
        """Aᵀ u for a u that is zero elsewhere."""
        padded = u.new_zeros(self.root.shape[0], *u.shape[1:])
        padded[self.index] = u
        return self.root.rmv(padded)

    def gram(self, budget: float | None = None) -> Tensor:  # noqa: ARG002 — it is there
        """A Aᵀ on these rows."""
        return self._gram()

    def metric(self) -> Tensor:
        """Aᵀ A of these rows."""
        rows = self.dense()
        return rows.T @ rows

    def dense(self) -> Tensor:
        """These rows."""
        return self.root.dense()[self.index]

    def cost(self, budget: float | None = None) -> Cost:
        """As that of all rows."""
        return self.root.cost(budget)

    @property
    def precision(self) -> float:
        """Rounding unit of the forward pass."""
        return self.root.precision

    @property
    def rounding(self) -> Rounding | None:
        """That of the root."""
        return self.root.rounding


class Prefixes:
    """Dimensions on the first n observations of an order, each rank counted above one bound.

    Args:
        F: On all observations, in float64.
        order: A permutation of the observations, (N,).
        memory: What may be used.
        known: Dimensions that were found before, by numbers of observations.
        keep: Called with all that are known when one was found.

    Attributes:
        whole: The dimension on all observations.
        refined: How many subsets took more than eigenvalues of a Gram matrix.
    """

    def __init__(
        self,
        F: Fisher,
        order: Tensor,
        memory: int | float | str | None = None,
        known: Mapping[int, Dimension] | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.root, self.budget = F.root, float(resolve_memory(memory))
        self.rank = F.problem.survey.rank
        steps = torch.arange(self.rank)
        self.index = (order[:, None] * self.rank + steps).reshape(-1).to(F.device)
        self._whole = F.decomposition("auto", memory)
        self.whole = dimension_of(self._whole.spectrum)
        self.cut = cut_of(self._whole.spectrum)
        self.refined = 0
        self._known: dict[int, Dimension] = {0: self._empty(), len(order): self.whole}
        self._known |= known or {}
        self._keep = keep
        if not self._whole.left and not self._fits:
            rows, columns = self.root.shape
            raise CapacityError(
                f"Neither the {rows:,} × {rows:,} Gram matrix nor the {rows:,} × {columns:,} root "
                f"fits in {format_bytes(self.budget)}.",
                "Ranks of subsets of the observations are taken from one of them.",
                "Measure fewer observations, or raise memory=... if more is there.",
            )

    @property
    def observations(self) -> int:
        """N."""
        return len(self.index) // self.rank

    def dimension(self, count: int) -> Dimension:
        """Of the first `count` observations."""
        if count not in self._known:
            found = self._from_gram(count) if self._gram is not None else self._from_rows(count)
            below = max(d.lower for n, d in self._known.items() if n <= count)
            above = min(d.upper for n, d in self._known.items() if n >= count)
            self._known[count] = bounded(found, below, above)
            if self._keep is not None:
                self._keep(self._known)
        return self._known[count]

    @cached_property
    def _gram(self) -> Tensor | None:
        """A Aᵀ with rows in order; None where the route is another."""
        if not self._whole.left or self._whole.method == "svd":
            return None
        return self._whole.matrix[self.index][:, self.index]

    @property
    def _fits(self) -> bool:
        """Whether A may be written out and factorised."""
        rows, columns = self.root.shape
        return 8.0 * (3 * rows * columns + 3 * min(rows, columns) ** 2) <= self.budget

    @property
    def _triangular(self) -> bool:
        """Whether a factorisation makes A smaller: a tall one serves as it is."""
        return self.root.shape[0] <= self.root.shape[1]

    @cached_property
    def _rows(self) -> Tensor:
        """Columns of which the first rows have the singular values of A's first rows."""
        ordered = self.root.dense()[self.index]
        return torch.linalg.qr(ordered.T, mode="r").R.T if self._triangular else ordered

    def _from_gram(self, count: int) -> Dimension:
        size = count * self.rank
        gram = self._gram
        assert gram is not None
        part = Rows(self.root, self.index[:size], lambda: gram[:size, :size].contiguous())
        values = Decomposition(part, self._whole.route, self.budget)
        first = dimension_above(values.first, self.cut)
        # What the whole's rank bounds, a part's eigenvalues may reach without being refined.
        if first.lower >= min(first.upper, self.whole.upper):
            return first
        self.refined += 1
        if self._fits:
            return self._from_rows(count)
        return dimension_above(values.solve(), self.cut)

    def _from_rows(self, count: int) -> Dimension:
        size, columns = count * self.rank, self.root.shape[1]
        # Of a triangle, what is right of a leading block is zero.
        part = self._rows[:size, :size] if self._triangular else self._rows[:size]
        precision = self.root.precision
        values = from_singular_values(singular_values(part), (size, columns), precision)
        return dimension_above(values, self.cut)

    def _empty(self) -> Dimension:
        return replace(
            self.whole, value=0, lower=0, upper=0, kind="exact", gap=float("inf"),
            data_limited=True, bound="data",
        )  # fmt: skip
