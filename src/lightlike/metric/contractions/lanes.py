"""Lanes of a unit: the columns of A that belong to one output unit, or to one dimension of a table.

A weight is taken as a matrix (rows, cols). Its lanes are the rows (axis 0) or the columns (axis 1)
of that matrix, each with its entry of the bias if there is one. Kept lanes keep the structure of a
factor: an outer product with fewer output units is still one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lanes:
    """Some lanes of a unit.

    Attributes:
        rows: Of the weight as a matrix.
        cols: Of the weight as a matrix.
        axis: 0 if a lane is a row of it, 1 if it is a column.
        bias: Whether each lane has an entry of a bias, behind the weight.
        index: The lanes that are kept, ascending.
    """

    rows: int
    cols: int
    axis: int
    bias: bool
    index: Tensor

    @property
    def count(self) -> int:
        """Number of lanes that there are."""
        return self.rows if self.axis == 0 else self.cols

    @property
    def kept(self) -> int:
        """Number of lanes that are kept."""
        return len(self.index)

    @property
    def width(self) -> int:
        """Number of columns of all lanes together."""
        return self.rows * self.cols + (self.count if self.bias else 0)

    def columns(self) -> Tensor:
        """The columns of the lanes that are kept, ascending."""
        across = torch.arange(self.cols if self.axis == 0 else self.rows, device=self.index.device)
        if self.axis == 0:
            found = (self.index[:, None] * self.cols + across).flatten()
        else:
            found = (across[:, None] * self.cols + self.index).flatten()
        if self.bias:
            found = torch.cat([found, self.rows * self.cols + self.index])
        return found

    def only(self, index: Tensor) -> Lanes:
        """Other lanes of the same unit."""
        return replace(self, index=index)

    def among(self, index: Tensor) -> Lanes:
        """Some of the kept lanes, by their place among them, as lanes of what was kept."""
        if self.axis == 0:
            return replace(self, rows=self.kept, index=index)
        return replace(self, cols=self.kept, index=index)
