"""The Fisher matrix, and the same in prior units, as what algorithms on any operator ask for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightlike.metric.fisher import Fisher
from lightlike.metric.product import differentiable_twice, fisher_product
from lightlike.metric.root import Root


class FisherOperator:
    """Î as an operator for many products, in float64 whatever the problem's dtype.

    No row of A is written out where the model can be differentiated twice, so that outputs may be
    of any width.

    Args:
        F: Î.

    Attributes:
        shape: (D, D).
        device: Where the model is.
        way: How products are taken.
    """

    def __init__(self, F: Fisher) -> None:
        self.shape = F.shape
        self.device = F.device
        self.problem = F.problem.reference
        self._rows: Fisher | None = None
        self.way = "three backward passes"
        if not differentiable_twice(self.problem):
            self._rows = F if self.problem is F.problem else Fisher(Root(self.problem))
            self.way = "rows of the root, as the model cannot be differentiated twice"

    def __matmul__(self, block: Tensor) -> Tensor:
        """Î v for one vector (D,) or a block (D, c)."""
        if self._rows is not None:
            return self._rows @ block
        if block.ndim == 1:
            return fisher_product(self.problem, block)
        return torch.stack([fisher_product(self.problem, v) for v in block.T], 1)


class ScaledOperator:
    """Σ^½ F Σ^½ for a diagonal Σ.

    Args:
        operator: F (n, n), anything with `shape` and `@`.
        scales: The diagonal of Σ^½, (n,).
    """

    def __init__(self, operator: Any, scales: Tensor) -> None:
        self.operator, self.scales = operator, scales
        self.shape = operator.shape
        self.device = scales.device

    def __matmul__(self, block: Tensor) -> Tensor:
        """Σ^½ F Σ^½ v for one vector (n,) or a block (n, c)."""
        scales = self.scales if block.ndim == 1 else self.scales[:, None]
        found: Tensor = scales * (self.operator @ (scales * block))
        return found
