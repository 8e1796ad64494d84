"""How the columns of a weight, with its bias or without, are laid out as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.metric.contractions import Factor, Lookup, Outer


@dataclass(frozen=True)
class Arrangement:
    """Columns as a matrix (left, right), its rows one after another.

    A bias is one more column of the weight (out, in), or one more row of it (in, out).

    Attributes:
        left: Rows of the matrix.
        right: Columns.
        split: Whether the last column of the matrix comes after all others, as a bias does.
    """

    left: int
    right: int
    split: bool = False

    @property
    def width(self) -> int:
        """Number of columns of the block."""
        return self.left * self.right

    def matrix(self, v: Tensor) -> Tensor:
        """(width, c) as (left, right, c)."""
        if not self.split:
            return v.reshape(self.left, self.right, -1)
        inner = self.left * (self.right - 1)
        weight = v[:inner].reshape(self.left, self.right - 1, v.shape[-1])
        return torch.cat([weight, v[inner:, None]], 1)

    def flat(self, m: Tensor) -> Tensor:
        """(left, right, c) as (width, c)."""
        if not self.split:
            return m.reshape(self.width, -1)
        return torch.cat([m[:, :-1].flatten(0, 1), m[:, -1]])


def arranged(factor: Factor) -> Arrangement | None:
    """How the columns of an outer product or of a table's rows are laid out; None for others."""
    if isinstance(factor, Lookup):
        return Arrangement(factor.size, factor.depth)
    if not isinstance(factor, Outer):
        return None
    if factor.transposed:
        return Arrangement(factor.ins, factor.outs)
    return Arrangement(factor.outs, factor.ins, factor.bias)
