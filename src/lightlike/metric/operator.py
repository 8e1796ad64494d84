"""The Fisher matrix, and the same in prior units, as what algorithms on any operator ask for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightlike.metric.fisher import Fisher
from lightlike.spectrum.rounding import EPS


class FisherOperator:
    """Î as an operator for many products, whose bits depend on nothing but Î and the vector.

    In float64, whatever the problem's dtype. Vectors are taken one by one: whether a block goes
    together is decided by a clock.

    Args:
        F: Î.
        expected: Products to come at most; of more than a few what they share is kept from the
            first on, so that an interrupted run that goes on takes the same way.
        memory: Bytes that may be kept.

    Attributes:
        shape: (D, D).
        device: Where the model is.
        root: A of Î = AᵀA.
        problem: Model, data and likelihood.
        precision: Rounding unit of products: above 2.2e-16 where the model casts down inside.
    """

    def __init__(self, F: Fisher, expected: int | None = None, memory: int | None = None) -> None:
        self.shape = F.shape
        self.device = F.device
        self.root, self.problem = F.root, F.problem.reference
        self.precision = F.root.sweep.reference_precision
        self._products = F.products(expected, dtype="float64", memory=memory)

    @property
    def way(self) -> str:
        """How products are taken."""
        return self._products.way

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept for further products."""
        return self._products.kept_bytes

    def __matmul__(self, block: Tensor) -> Tensor:
        """Î v for one vector (D,) or a block (D, c)."""
        if block.ndim == 1:
            return self._products @ block
        return torch.stack([self._products @ v for v in block.T], 1)

    def close(self) -> None:
        """Let go of everything kept; products can still be asked for."""
        self._products.close()


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
        self.precision = getattr(operator, "precision", EPS)

    def __matmul__(self, block: Tensor) -> Tensor:
        """Σ^½ F Σ^½ v for one vector (n,) or a block (n, c)."""
        scales = self.scales if block.ndim == 1 else self.scales[:, None]
        found: Tensor = scales * (self.operator @ (scales * block))
        return found
