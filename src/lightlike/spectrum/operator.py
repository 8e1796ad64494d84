"""What the algorithms here ask of a matrix."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lightlike.spectrum.rounding import Rounding


@runtime_checkable
class Factor(Protocol):
    """A matrix A of which A Aᵀ and Aᵀ A can be had without A."""

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D)."""

    def mv(self, v: Tensor) -> Tensor:
        """A v, one vector or a block."""

    def rmv(self, u: Tensor) -> Tensor:
        """Aᵀ u, one vector or a block."""

    def gram(self) -> Tensor:
        """A Aᵀ."""

    def metric(self) -> Tensor:
        """Aᵀ A."""

    def dense(self) -> Tensor:
        """A."""

    def gram_operations(self) -> float:
        """Floating-point operations of `gram`."""

    def row_operations(self) -> float:
        """Floating-point operations of `dense`."""

    @property
    def precision(self) -> float:
        """Rounding unit of A's entries."""

    @property
    def rounding(self) -> Rounding | None:
        """How far A in lower precision was found from float64 when a matrix was last made of it."""


def explicit(matrix: Any) -> Tensor:
    """All entries of a symmetric matrix or operator, (n, n) float64.

    Raises:
        ValueError: if it is not square or not symmetric to 1e-6.
    """
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a square matrix is needed, not {tuple(matrix.shape)}")
    if isinstance(matrix, np.ndarray):
        matrix = torch.from_numpy(np.ascontiguousarray(matrix))
    if isinstance(matrix, Tensor):
        full = matrix.detach().double()
    else:
        full = torch.as_tensor(matrix @ torch.eye(matrix.shape[0], dtype=torch.float64)).double()
    asymmetry = float((full - full.T).abs().max()) if full.numel() else 0.0
    if asymmetry > 1e-6 * float(full.abs().max() if full.numel() else 0.0):
        raise ValueError(f"the matrix is not symmetric (entries differ by {asymmetry:.2g})")
    return (full + full.T) / 2


class ExplicitFactor:
    """A matrix that is at hand, as a `Factor`."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.detach().double()

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def mv(self, v: Tensor) -> Tensor:
        """A v."""
        return self.matrix @ v

    def rmv(self, u: Tensor) -> Tensor:
        """Aᵀ u."""
        return self.matrix.T @ u

    def gram(self) -> Tensor:
        """A Aᵀ."""
        return self.matrix @ self.matrix.T

    def metric(self) -> Tensor:
        """Aᵀ A."""
        return self.matrix.T @ self.matrix

    def dense(self) -> Tensor:
        """A."""
        return self.matrix

    def gram_operations(self) -> float:
        """Floating-point operations of `gram`."""
        return 2.0 * self.shape[0] ** 2 * self.shape[1]

    def row_operations(self) -> float:
        """None: A is there."""
        return 0.0

    @property
    def precision(self) -> float:
        """Rounding unit of float64."""
        return torch.finfo(torch.float64).eps

    @property
    def rounding(self) -> None:
        """None: it is what it is."""
