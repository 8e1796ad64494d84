"""Symmetric positive semi-definite matrices by their eigenvectors, in whatever form these have.

Everything that is asked of a block is a function of it, f(M) v = U f(λ) Uᵀ v: a product, a
solution, a root, a determinant. Each form says how to turn by Uᵀ and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.metric.kronecker.arrangement import Arrangement

Function = Callable[[Tensor], Tensor]


class Form(ABC):
    """A symmetric positive semi-definite matrix M = U diag(λ) Uᵀ, (width, width).

    Attributes:
        width: Its size.
        values: Eigenvalues λ ≥ 0 in any order, (r,); those that are missing are 0.
    """

    width: int
    values: Tensor

    @abstractmethod
    def turn(self, v: Tensor) -> Tensor:
        """Uᵀ v: (width, c) -> (r, c)."""

    @abstractmethod
    def back(self, w: Tensor) -> Tensor:
        """U w: (r, c) -> (width, c)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal of M, (width,)."""

    def apply(self, function: Function, v: Tensor) -> Tensor:
        """The product f(M) v for a block (width, c)."""
        turned = self.turn(v)
        f = function(self.values)
        if len(f) == self.width:
            return self.back(f[:, None] * turned)
        # Outside the span of the eigenvectors M is zero.
        rest = function(f.new_zeros(1))
        return rest * v + self.back((f - rest)[:, None] * turned)


class Diagonal(Form):
    """A diagonal matrix.

    Args:
        values: Its diagonal, (width,).
    """

    def __init__(self, values: Tensor) -> None:
        self.values, self.width = values, len(values)

    def turn(self, v: Tensor) -> Tensor:
        """The same."""
        return v

    def back(self, w: Tensor) -> Tensor:
        """The same."""
        return w

    def diagonal(self) -> Tensor:
        """Itself."""
        return self.values


class Spectral(Form):
    """A matrix with eigenvectors in columns, all or those of positive eigenvalues.

    Args:
        values: (r,).
        vectors: (width, r), orthonormal.
    """

    def __init__(self, values: Tensor, vectors: Tensor) -> None:
        self.values, self.vectors = values, vectors
        self.width = len(vectors)

    @classmethod
    def of(cls, matrix: Tensor) -> Spectral:
        """From all entries."""
        return cls(*decomposed(matrix))

    @classmethod
    def of_rows(cls, rows: Tensor) -> Spectral:
        """RᵀR from fewer rows than columns, (k, width)."""
        _, s, V = torch.linalg.svd(rows, full_matrices=False)
        return cls(s.square(), V.T)

    def turn(self, v: Tensor) -> Tensor:
        """Uᵀ v."""
        return self.vectors.T @ v

    def back(self, w: Tensor) -> Tensor:
        """U w."""
        return self.vectors @ w

    def diagonal(self) -> Tensor:
        """Of U λ Uᵀ."""
        return self.vectors.square() @ self.values


@dataclass(frozen=True, eq=False)
class Side:
    """One factor of a Kronecker product.

    Attributes:
        values: Its eigenvalues, (n,).
        vectors: Its eigenvectors in columns, (n, n); None if it is diagonal.
    """

    values: Tensor
    vectors: Tensor | None

    @classmethod
    def of(cls, matrix: Tensor) -> Side:
        """From all entries (n, n), or from a diagonal (n,)."""
        if matrix.ndim == 1:
            return cls(matrix, None)
        return cls(*decomposed(matrix))

    def turn(self, t: Tensor) -> Tensor:
        """Uᵀ on the last dimension."""
        return t if self.vectors is None else t @ self.vectors

    def back(self, t: Tensor) -> Tensor:
        """U on the last dimension."""
        return t if self.vectors is None else t @ self.vectors.T

    def spread(self, t: Tensor) -> Tensor:
        """(U ∘ U) on the last dimension: eigenvalues to diagonals."""
        return t if self.vectors is None else t @ self.vectors.square().T


class Kronecker(Form):
    """M = (U_L ⊗ U_R) diag(λ) (U_L ⊗ U_R)ᵀ on matrices (left, right), rows one after another.

    Args:
        arrangement: How the columns of the block are laid out as a matrix.
        left: L.
        right: R.
        values: λ (left, right); those of L ⊗ R unless given.
    """

    def __init__(
        self, arrangement: Arrangement, left: Side, right: Side, values: Tensor | None = None
    ) -> None:
        self.arrangement, self.left, self.right = arrangement, left, right
        self.width = arrangement.width
        values = torch.outer(left.values, right.values) if values is None else values
        self.values = values.reshape(-1)

    def corrected(self, values: Tensor) -> Kronecker:
        """The same eigenvectors with other eigenvalues (left, right)."""
        return Kronecker(self.arrangement, self.left, self.right, values)

    def turn(self, v: Tensor) -> Tensor:
        """Uᵀ v."""
        m = self.arrangement.matrix(v).permute(2, 0, 1)
        m = self.left.turn(self.right.turn(m).mT).mT
        return m.flatten(1).T

    def back(self, w: Tensor) -> Tensor:
        """U w."""
        m = w.T.reshape(-1, self.arrangement.left, self.arrangement.right)
        m = self.left.back(self.right.back(m).mT).mT
        return self.arrangement.flat(m.permute(1, 2, 0))

    def diagonal(self) -> Tensor:
        """Σ_ij U_L²_ai λ_ij U_R²_bj."""
        m = self.values.view(self.arrangement.left, self.arrangement.right)
        m = self.left.spread(self.right.spread(m).T).T
        return self.arrangement.flat(m[..., None])[:, 0]


def decomposed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, those below 0 by rounding set to 0, and eigenvectors."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values.clamp_min(0.0), vectors
