"""Samples cut into finer ones: rows of a sample that have nothing in common but the sample."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lightlike.metric.contractions.factor import Factor
from lightlike.metric.contractions.lanes import Lanes


class Split(Factor):
    """A factor whose samples are the `parts` consecutive runs of rows of each of mine.

    Rows keep their order: row r of part t of sample i is row (t, r) of i.
    """

    def __init__(self, finer: Factor, parts: int) -> None:
        self.finer, self.parts = finer, parts
        self.samples, self.per_sample = finer.samples // parts, finer.per_sample * parts
        self.width = finer.width

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.finer.nbytes

    @property
    def form(self) -> Hashable:
        """The number of parts, and the form of what is inside."""
        return type(self).__name__, self.parts, self.finer.form

    @property
    def written(self) -> bool:
        """As what is inside."""
        return self.finer.written

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        return self._coarse(self.finer.columns(start, stop))

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        return self._coarse(self.finer.apply(v))

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        fine = torch.unflatten(u, 0, (self.parts, -1)).permute(1, 2, 0, 3)  # (r, s, t, c)
        return self.finer.pull(fine.flatten(1, 2))

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        return self.finer.squared_norm()

    def keep(self, lanes: Lanes) -> Split:
        """Some lanes of what is inside."""
        return Split(self.finer.keep(lanes), self.parts)

    def narrow(self, start: int, length: int) -> Split:
        """The factor of some of the samples."""
        return Split(self.finer.narrow(start * self.parts, length * self.parts), self.parts)

    def blank(self, samples: int) -> Split:
        """Zero rows for some other samples."""
        return Split(self.finer.blank(samples * self.parts), self.parts)

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Split:
        """One factor for the samples of several."""
        mine = [part for part in parts if isinstance(part, Split)]
        finer = [part.finer for part in mine]
        return cls(finer[0].join(finer), mine[0].parts)

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows: the order of the rows is the same inside."""
        self.finer.cross(inner(other), out, fresh=fresh)

    def _coarse(self, fine: Tensor) -> Tensor:
        """(r, s · t, c) as (t · r, s, c)."""
        return (
            torch.unflatten(fine, 1, (self.samples, self.parts)).permute(2, 0, 1, 3).flatten(0, 1)
        )


def inner(factor: Factor) -> Factor:
    """What is inside a split; anything else as it is."""
    return factor.finer if isinstance(factor, Split) else factor


def divisor(places: Tensor) -> int:
    """The longest run of rows, a divisor of k, whose places (s, k) agree; −1 agrees with all."""
    k = places.shape[1]
    for run in range(k, 1, -1):
        if k % run:
            continue
        grouped = torch.unflatten(places, 1, (-1, run))
        top = grouped.amax(-1, keepdim=True)
        if bool(((grouped == top) | (grouped == -1)).all()):
            return run
    return 1
