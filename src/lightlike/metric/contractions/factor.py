"""Rows of A restricted to some columns, kept in a form that is cheaper than the numbers themselves.

A run of s samples with k rows each is held as (k, s, ...): entry (c, i) is row c of sample i.
Inner products come out sample by sample, (s k, s' k'), as the rows of A are ordered. Every factor
can be multiplied, transposed and written out; pairs of factors can be contracted to a tile of the
Gram matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

# Entries of a temporary that is written out.
CHUNK = 1 << 22


class Factor(ABC):
    """Rows (k, s) × columns of one unit of parameters.

    Attributes:
        samples: s, number of samples.
        per_sample: k, rows of each sample.
        width: Number of columns.
    """

    samples: int
    per_sample: int
    width: int

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory held."""

    @abstractmethod
    def dense(self) -> Tensor:
        """All entries, (k, s, width)."""

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""

    @abstractmethod
    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""

    @abstractmethod
    def narrow(self, start: int, length: int) -> Self:
        """The factor of some of the samples."""

    @classmethod
    @abstractmethod
    def join(cls, parts: Sequence[Factor]) -> Self:
        """One factor for the samples of several with equal k."""

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        step = max(1, CHUNK // max(1, self.per_sample * self.width))
        total = 0.0
        for start in range(0, self.samples, step):
            part = self.narrow(start, min(step, self.samples - start))
            total += float(part.dense().square().sum())
        return total

    def settled(self, budget: float) -> Factor:
        """The form in which many inner products are cheapest, within a budget of bytes."""
        return self

    def scaled(self, weights: Tensor) -> Factor:
        """The factor with its columns multiplied by weights (width,)."""
        return Dense(self.dense() * weights)

    @abstractmethod
    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another's rows, written (fresh) or added to out, (s k, s' k')."""


class Dense(Factor):
    """The entries themselves: the form that any differentiable model allows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.per_sample, self.samples, self.width = rows.shape

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.rows.nbytes

    def dense(self) -> Tensor:
        """All entries, (k, s, width)."""
        return self.rows

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        return self.rows @ v

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        return self.rows.reshape(-1, self.width).T @ u.reshape(-1, u.shape[-1])

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        return float(self.rows.square().sum())

    def narrow(self, start: int, length: int) -> Dense:
        """The factor of some of the samples."""
        return Dense(laid_by_sample(self.rows.narrow(1, start, length)))

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Dense:
        """One factor for the samples of several with equal k."""
        return cls(torch.cat([part.dense() for part in parts], 1))

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows, written (fresh) or added to out."""
        left, right = by_sample(self.rows), by_sample(other.dense()).T
        torch.addmm(out, left, right, beta=0 if fresh else 1, out=out)


def by_sample(rows: Tensor) -> Tensor:
    """Rows (k, s, ...) as (s k, all the rest): a view if they were laid out so."""
    return rows.transpose(0, 1).reshape(rows.shape[0] * rows.shape[1], -1)


def laid_by_sample(rows: Tensor) -> Tensor:
    """Rows (k, s, ...) laid out sample by sample once, not at every product that follows."""
    return rows.transpose(0, 1).contiguous().transpose(0, 1)
