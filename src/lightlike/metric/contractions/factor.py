"""Rows of A restricted to some columns, kept in a form that is cheaper than the numbers themselves.

A run of s samples with k rows each is held as (k, s, ...): entry (c, i) is row c of sample i.
Inner products come out sample by sample, (s k, s' k'), as the rows of A are ordered. Every factor
can be multiplied, transposed and written out, whole or some columns at a time; pairs of factors can
be contracted to a tile of the Gram matrix.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from lightlike.metric.contractions.lanes import Lanes

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

    @property
    def form(self) -> Hashable:
        """What two factors of a unit must share to be joined."""
        return type(self).__name__

    @property
    def written(self) -> bool:
        """Whether inner products are cheapest on the entries, written out some columns a time."""
        return False

    @abstractmethod
    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Write some columns' entries to out (k, s, stop − start)."""
        out.copy_(self.columns(start, stop))

    def dense(self) -> Tensor:
        """All entries, (k, s, width)."""
        return self.columns(0, self.width)

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""

    @abstractmethod
    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""

    @abstractmethod
    def narrow(self, start: int, length: int) -> Self:
        """The factor of some of the samples."""

    @abstractmethod
    def blank(self, samples: int) -> Self:
        """Zero rows for some other samples, in the same form."""

    @classmethod
    @abstractmethod
    def join(cls, parts: Sequence[Factor]) -> Self:
        """One factor for the samples of several with equal k and of equal form."""

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        return sum(float(strip.square().sum()) for strip in strips(self))

    def settled(self) -> Factor:
        """The leanest form for many inner products, with what is zero left out."""
        return self

    def scaled(self, weights: Tensor) -> Factor:
        """The factor with its columns multiplied by weights (width,)."""
        return Weighted(self, weights)

    def keep(self, lanes: Lanes) -> Factor:
        """The factor on the columns of some lanes only, in a form as cheap as there is."""
        return self.pick(lanes.columns())

    def pick(self, index: Tensor) -> Factor:
        """The entries on some columns, ascending."""
        parts, start = [], 0
        step = max(1, CHUNK // max(1, self.per_sample * self.samples))
        while start < len(index):
            first = int(index[start])
            stop = int(torch.searchsorted(index, first + step))
            strip = self.columns(first, int(index[stop - 1]) + 1)
            parts.append(strip[..., index[start:stop] - first])
            start = stop
        if not parts:
            return Dense(self.columns(0, 1)[..., :0])
        return Dense(laid_by_sample(torch.cat(parts, -1)))

    def to(self, dtype: torch.dtype) -> Self:
        """The factor with all its numbers in another type."""
        clone = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Factor) or (
                isinstance(value, Tensor) and value.is_floating_point()
            ):
                setattr(clone, name, value.to(dtype))
            elif isinstance(value, list):
                setattr(clone, name, [p.to(dtype) if isinstance(p, Factor) else p for p in value])
        return clone

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another's rows, written (fresh) or added to out, (s k, s' k').

        Of a factor with itself, only those on and below the diagonal need be right.
        """
        cross_entries(self, other, out, fresh=fresh)


class Dense(Factor):
    """The entries themselves: the form that any differentiable model allows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.per_sample, self.samples, self.width = rows.shape

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.rows.nbytes

    @property
    def written(self) -> bool:
        """They are."""
        return True

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        return self.rows[..., start:stop]

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        return self.rows @ v

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        return self.rows.reshape(-1, self.width).T @ u.reshape(-1, u.shape[-1])

    def scaled(self, weights: Tensor) -> Dense:
        """Columns multiplied by weights."""
        return Dense(self.rows * weights)

    def pick(self, index: Tensor) -> Dense:
        """The entries on some columns."""
        return Dense(self.rows.transpose(0, 1)[..., index].transpose(0, 1))

    def narrow(self, start: int, length: int) -> Dense:
        """The factor of some of the samples."""
        return Dense(laid_by_sample(self.rows.narrow(1, start, length)))

    def blank(self, samples: int) -> Dense:
        """Zero rows for some other samples."""
        return Dense(self.rows.new_zeros(self.per_sample, samples, self.width))

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Dense:
        """One factor for the samples of several with equal k."""
        return cls(torch.cat([part.dense() for part in parts], 1))


class Weighted(Factor):
    """Another factor with its columns multiplied by weights (width,)."""

    def __init__(self, inner: Factor, weights: Tensor) -> None:
        self.inner, self.weights = inner, weights
        self.samples, self.per_sample, self.width = inner.samples, inner.per_sample, inner.width

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.inner.nbytes + self.weights.nbytes

    @property
    def form(self) -> Hashable:
        """That of the factor inside."""
        return type(self).__name__, self.inner.form

    @property
    def written(self) -> bool:
        """Weights of each column leave no structure to use."""
        return True

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        return self.inner.columns(start, stop) * self.weights[start:stop]

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        return self.inner.apply(v * self.weights[:, None])

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        return self.inner.pull(u) * self.weights[:, None]

    def keep(self, lanes: Lanes) -> Factor:
        """Some lanes of the factor inside, and their weights."""
        return self.inner.keep(lanes).scaled(self.weights[lanes.columns()])

    def settled(self) -> Factor:
        """Weights on the settled factor."""
        return Weighted(self.inner.settled(), self.weights)

    def narrow(self, start: int, length: int) -> Weighted:
        """The factor of some of the samples."""
        return Weighted(self.inner.narrow(start, length), self.weights)

    def blank(self, samples: int) -> Weighted:
        """Zero rows for some other samples."""
        return Weighted(self.inner.blank(samples), self.weights)

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Weighted:
        """One factor for the samples of several; all have the same weights."""
        mine = [part for part in parts if isinstance(part, Weighted)]
        inner = [part.inner for part in mine]
        return cls(inner[0].join(inner), mine[0].weights)


def strips(factor: Factor) -> Iterator[Tensor]:
    """All entries, some columns at a time."""
    step = max(1, CHUNK // max(1, factor.per_sample * factor.samples))
    for start in range(0, factor.width, step):
        yield factor.columns(start, min(start + step, factor.width))


def cross_entries(mine: Factor, theirs: Factor, out: Tensor, *, fresh: bool) -> None:
    """Inner products of any two factors on the same columns, from their entries."""
    if fresh:
        out.zero_()
    rows = max(mine.per_sample * mine.samples, theirs.per_sample * theirs.samples)
    step = max(1, CHUNK // max(1, rows))
    for start in range(0, mine.width, step):
        stop = min(start + step, mine.width)
        left, right = mine.columns(start, stop), theirs.columns(start, stop)
        out.addmm_(by_sample(left), by_sample(right).T)


def by_sample(rows: Tensor) -> Tensor:
    """Rows (k, s, ...) as (s k, all the rest): a view if they were laid out so."""
    return rows.transpose(0, 1).reshape(rows.shape[0] * rows.shape[1], -1)


def laid_by_sample(rows: Tensor) -> Tensor:
    """Rows (k, s, ...) laid out sample by sample once, not at every product that follows."""
    return rows.transpose(0, 1).contiguous().transpose(0, 1)
