"""What the algorithms here ask of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import DataError
from lightlike.spectrum.matrices import check_square
from lightlike.spectrum.rounding import Rounding
from lightlike.vectors import check_finite


@dataclass(frozen=True)
class Cost:
    """What it takes to make the matrices of a root A (K, D).

    Attributes:
        gram_operations: Floating-point operations of A Aᵀ.
        row_operations: Those of writing out A.
        fixed_memory: Bytes that anything asked of A takes.
        gram_memory: Bytes more while A Aᵀ is made, the result left out.
    """

    gram_operations: float
    row_operations: float
    fixed_memory: float = 0.0
    gram_memory: float = 0.0


class Keeper(Protocol):
    """Where stages of a long computation are kept; see `lightlike.checkpoint`."""

    def stage(
        self, name: str, compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was kept under a name, or what is computed now and kept from now on."""


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

    def gram(self, budget: float | None = None) -> Tensor:
        """A Aᵀ, within a budget of bytes."""

    def metric(self) -> Tensor:
        """Aᵀ A."""

    def dense(self) -> Tensor:
        """A."""

    def cost(self, budget: float | None = None) -> Cost:
        """What `gram` and `dense` take within a budget of bytes."""

    @property
    def precision(self) -> float:
        """Rounding unit of A's entries."""

    @property
    def rounding(self) -> Rounding | None:
        """How far A in lower precision was found from float64 when a matrix was last made of it."""


def explicit(matrix: Any) -> Tensor:
    """All entries of a symmetric matrix or operator, (n, n) float64.

    Raises:
        DataError: if it is not square, not finite and real, or not symmetric to 1e-6.
    """
    check_square(matrix)
    if isinstance(matrix, np.ndarray):
        matrix = torch.from_numpy(np.ascontiguousarray(matrix))
    if isinstance(matrix, Tensor):
        full = matrix.detach().double()
    else:
        full = torch.as_tensor(matrix @ torch.eye(matrix.shape[0], dtype=torch.float64)).double()
    check_finite(full, "The matrix", DataError)
    asymmetry = float((full - full.T).abs().max()) if full.numel() else 0.0
    if asymmetry > 1e-6 * float(full.abs().max() if full.numel() else 0.0):
        raise DataError(
            f"The matrix is not symmetric: entries differ by {asymmetry:.2g}.",
            "Its eigenvalues need not be real, and are no squares of singular values.",
            "Give AᵀA for a root A, or another symmetric matrix.",
        )
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

    def gram(self, budget: float | None = None) -> Tensor:  # noqa: ARG002 — it is made at once
        """A Aᵀ."""
        return self.matrix @ self.matrix.T

    def metric(self) -> Tensor:
        """Aᵀ A."""
        return self.matrix.T @ self.matrix

    def dense(self) -> Tensor:
        """A."""
        return self.matrix

    def cost(self, budget: float | None = None) -> Cost:  # noqa: ARG002 — A is there
        """One product."""
        return Cost(2.0 * self.shape[0] ** 2 * self.shape[1], 0.0, self.matrix.nbytes)

    @property
    def precision(self) -> float:
        """Rounding unit of float64."""
        return torch.finfo(torch.float64).eps

    @property
    def rounding(self) -> None:
        """None: it is what it is."""
