"""Columns in groups with a factor each, such as the weights of a grouped convolution."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lightlike.metric.contractions.compound import Compound
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.lanes import Lanes


class Grouped(Compound):
    """Factors of the same rows side by side; their columns follow one another."""

    def _width(self) -> int:
        return sum(part.width for part in self.parts)

    @property
    def written(self) -> bool:
        """If all parts are."""
        return all(part.written for part in self.parts)

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        pieces, offset = [], 0
        for part in self.parts:
            first, last = max(start - offset, 0), min(stop - offset, part.width)
            if first < last:
                pieces.append(part.columns(first, last))
            offset += part.width
        return torch.cat(pieces, -1)

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        pieces = torch.split(v, [part.width for part in self.parts])
        result = self.parts[0].apply(pieces[0])
        for part, piece in zip(self.parts[1:], pieces[1:], strict=True):
            result = result + part.apply(piece)
        return result

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        return torch.cat([part.pull(u) for part in self.parts])

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        return sum(part.squared_norm() for part in self.parts)

    def scaled(self, weights: Tensor) -> Factor:
        """Columns multiplied by weights, group by group."""
        pieces = torch.split(weights, [part.width for part in self.parts])
        return Grouped([p.scaled(w) for p, w in zip(self.parts, pieces, strict=True)])

    def keep(self, lanes: Lanes) -> Factor:
        """The lanes of each part, if its columns are whole lanes; its columns among them if not."""
        matrix, columns = lanes.rows * lanes.cols, lanes.columns()
        kept: list[Factor] = []
        start = 0
        for part in self.parts:
            stop = start + part.width
            whole = lanes.axis == 0 and stop <= matrix and not (start % lanes.cols)
            if whole and not part.width % lanes.cols:
                first, last = start // lanes.cols, stop // lanes.cols
                index = _between(lanes.index, first, last)
                found = part.keep(Lanes(last - first, lanes.cols, 0, False, index))
            else:
                found = part.pick(_between(columns, start, stop))
            kept.extend([found] if found.width else [])
            start = stop
        return Grouped(kept) if kept else Dense(self.columns(0, 1)[..., :0])

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows, written or added to out group by group."""
        if not isinstance(other, Grouped) or self._widths() != other._widths():
            super().cross(other, out, fresh=fresh)
            return
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            if not isinstance(mine, Blank) and not isinstance(theirs, Blank):
                mine.cross(theirs, out, fresh=fresh)
                fresh = False
        if fresh:
            out.zero_()

    def _widths(self) -> list[int]:
        return [part.width for part in self.parts]


class Blank(Factor):
    """Columns on which rows are zero.

    Attributes:
        like: A tensor of the dtype and on the device of the rows.
    """

    def __init__(self, like: Tensor, per_sample: int, samples: int, width: int) -> None:
        self.like = like.new_zeros(())
        self.per_sample, self.samples, self.width = per_sample, samples, width

    @property
    def nbytes(self) -> int:
        """Memory held: none."""
        return 0

    @property
    def form(self) -> Hashable:
        """The number of columns."""
        return type(self).__name__, self.width

    @property
    def written(self) -> bool:
        """There is nothing to multiply."""
        return True

    def columns(self, start: int, stop: int) -> Tensor:
        """Zeros, (k, s, stop − start)."""
        return self.like.expand(self.per_sample, self.samples, stop - start)

    def apply(self, v: Tensor) -> Tensor:
        """Zeros, (k, s, c)."""
        return self.like.expand(self.per_sample, self.samples, v.shape[-1])

    def pull(self, u: Tensor) -> Tensor:
        """Zeros, (width, c)."""
        return self.like.expand(self.width, u.shape[-1])

    def squared_norm(self) -> float:
        """Zero."""
        return 0.0

    def scaled(self, weights: Tensor) -> Blank:
        """The same."""
        return self

    def keep(self, lanes: Lanes) -> Blank:
        """Fewer zeros."""
        return self.pick(lanes.columns())

    def pick(self, index: Tensor) -> Blank:
        """Fewer zeros."""
        return Blank(self.like, self.per_sample, self.samples, len(index))

    def narrow(self, start: int, length: int) -> Blank:
        """The same for some of the samples."""
        return Blank(self.like, self.per_sample, length, self.width)

    def blank(self, samples: int) -> Blank:
        """The same for other samples."""
        return Blank(self.like, self.per_sample, samples, self.width)

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Blank:
        """The same for the samples of several."""
        first = next(part for part in parts if isinstance(part, Blank))
        samples = sum(part.samples for part in parts)
        return cls(first.like, first.per_sample, samples, first.width)


def pieces(factor: Grouped) -> dict[tuple[int, int], Factor]:
    """The parts that are not blank, by their first and last columns."""
    found, start = {}, 0
    for part in factor.parts:
        if not isinstance(part, Blank):
            found[start, start + part.width] = part
        start += part.width
    return found


def assemble(found: dict[tuple[int, int], Factor], width: int) -> Grouped | None:
    """Factors on some columns side by side, blank between them; None if they overlap."""
    like = next(iter(found.values()))
    zero, shape = like.columns(0, 1), (like.per_sample, like.samples)
    parts: list[Factor] = []
    end = 0
    for (start, stop), factor in sorted(found.items(), key=lambda item: item[0]):
        if start < end:
            return None
        if start > end:
            parts.append(Blank(zero, *shape, start - end))
        parts.append(factor)
        end = stop
    if end < width:
        parts.append(Blank(zero, *shape, width - end))
    return Grouped(parts)


def _between(index: Tensor, start: int, stop: int) -> Tensor:
    """Those of ascending numbers from start to stop − 1, counted from start."""
    first, last = (int(torch.searchsorted(index, end)) for end in (start, stop))
    return index[first:last] - start
