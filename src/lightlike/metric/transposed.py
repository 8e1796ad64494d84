"""The transpose of an operator."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


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
