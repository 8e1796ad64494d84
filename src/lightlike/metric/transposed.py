"""The transpose of an operator, and its products with NumPy vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

FloatArray = NDArray[np.float64]


class Products(Protocol):
    """What a transpose asks of the operator."""

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D)."""

    def mv(self, v: Tensor) -> Tensor:
        """A v."""

    def rmv(self, u: Tensor) -> Tensor:
        """Aᵀ u."""


class Transposed:
    """Aᵀ, D × K.

    Attributes:
        T: A itself.
    """

    def __init__(self, root: Products) -> None:
        self.T = root
        self.shape = root.shape[::-1]

    def __matmul__(self, u: Tensor) -> Tensor:
        return self.T.rmv(u)

    def mv(self, u: Tensor) -> Tensor:
        """Aᵀ u."""
        return self.T.rmv(u)

    def rmv(self, v: Tensor) -> Tensor:
        """A v."""
        return self.T.mv(v)


def linear_operator(root: Products, device: torch.device) -> LinearOperator:
    """A as a SciPy linear operator on float64 NumPy vectors."""
    product, transposed = on_numpy(root.mv, device), on_numpy(root.rmv, device)
    return LinearOperator(
        root.shape, matvec=product, rmatvec=transposed, matmat=product, rmatmat=transposed,
        dtype="float64",
    )  # fmt: skip


def on_numpy(
    function: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[FloatArray], FloatArray]:
    """A product of tensors as one of float64 arrays."""

    def call(x: FloatArray) -> FloatArray:
        return function(torch.as_tensor(x, dtype=torch.float64, device=device)).cpu().numpy()

    return call
