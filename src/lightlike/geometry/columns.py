"""The columns of some layers of A as a factor of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightlike.metric.root import Root
from lightlike.spectrum.operator import Cost
from lightlike.spectrum.rounding import Rounding


class Columns:
    """[A_1 | A_2 | …], layers side by side.

    Args:
        parts: The columns of each layer.
        gram: Makes Σ A_l A_lᵀ, if that is at hand.
        metric: Makes Aᵀ A, if that is at hand.
    """

    def __init__(
        self,
        parts: Sequence[Root],
        gram: Callable[[], Tensor] | None = None,
        metric: Callable[[], Tensor] | None = None,
    ) -> None:
        self.parts, self._gram, self._metric = tuple(parts), gram, metric

    @cached_property
    def widths(self) -> list[int]:
        """Columns of each layer."""
        return [part.shape[1] for part in self.parts]

    @property
    def shape(self) -> tuple[int, int]:
        """(K, columns of all layers)."""
        return self.parts[0].shape[0], sum(self.widths)

    def mv(self, v: Tensor) -> Tensor:
        """Σ A_l v_l."""
        pieces = torch.split(v, self.widths)
        products = [part.mv(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        return torch.stack(products).sum(0)

    def rmv(self, u: Tensor) -> Tensor:
        """A_lᵀ u, one below the other."""
        return torch.cat([part.rmv(u) for part in self.parts])

    def gram(self, budget: float | None = None) -> Tensor:
        """Σ A_l A_lᵀ."""
        if self._gram is not None:
            return self._gram()
        return torch.stack([part.gram(budget) for part in self.parts]).sum(0)

    def metric(self) -> Tensor:
        """Aᵀ A of these columns."""
        if self._metric is not None:
            return self._metric()
        columns = self.dense()
        return columns.T @ columns

    def dense(self) -> Tensor:
        """These columns."""
        return torch.cat([part.dense() for part in self.parts], 1)

    def cost(self, budget: float | None = None) -> Cost:
        """The sum over layers, one after the other in memory."""
        costs = [part.cost(budget) for part in self.parts]
        return Cost(
            sum(cost.gram_operations for cost in costs),
            sum(cost.row_operations for cost in costs),
            max(cost.fixed_memory for cost in costs),
            max(cost.gram_memory for cost in costs),
        )

    @property
    def precision(self) -> float:
        """Rounding unit of the forward pass."""
        return self.parts[0].precision

    @property
    def rounding(self) -> Rounding | None:
        """That of the root."""
        return self.parts[0].rounding
