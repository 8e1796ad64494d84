"""Vectors in the eigenbasis of Aᵀ A, without its radical."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightlike.metric.root import Root
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.rounding import eigenvalue_floor


@dataclass(frozen=True)
class Eigenbasis:
    """The directions v_k in which rounding leaves something of A Σ^½.

    Attributes:
        values: λ_k of Σ^½ Aᵀ A Σ^½, ascending, (d,).
        vectors: u_k of A Σ Aᵀ (K, d) if `left`, v_k (D, d) otherwise.
        left: Which.
        root: A Σ^½.
    """

    values: Tensor
    vectors: Tensor
    left: bool
    root: Root

    def parts(self, x: Tensor) -> Tensor:
        """v_kᵀx of a block (D, c): (d, c)."""
        if not self.left:
            return self.vectors.T @ x
        return (self.vectors.T @ self.root.mv(x)) / self.values.sqrt()[:, None]

    def sum(self, y: Tensor) -> Tensor:
        """Σ_k v_k y_k for (d, c): (D, c)."""
        if not self.left:
            return self.vectors @ y
        return self.root.rmv(self.vectors @ (y / self.values.sqrt()[:, None]))

    def top(self, count: int) -> Eigenbasis:
        """The `count` largest, or all if there are fewer."""
        first = max(0, len(self.values) - count)
        return Eigenbasis(self.values[first:], self.vectors[:, first:], self.left, self.root)


def eigenbasis(decomposition: Decomposition, root: Root, ratio: float = 1.0) -> Eigenbasis:
    """The eigenbasis of a root.

    Args:
        decomposition: Of the root, or of A if the root is A √ratio.
        root: A Σ^½.
        ratio: The factor by which the root's eigenvalues exceed the decomposed ones.
    """
    values, vectors = decomposition.vectors
    floor = eigenvalue_floor(len(values), float(values[-1]), decomposition.precision)
    if decomposition.rounding is not None:
        floor = decomposition.first.floor
    keep = values > floor
    return Eigenbasis(ratio * values[keep], vectors[:, keep], decomposition.left, root)
