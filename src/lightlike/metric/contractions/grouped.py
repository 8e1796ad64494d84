"""Columns in groups with a factor each, such as the weights of a grouped convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.metric.contractions.compound import Compound
from lightlike.metric.contractions.factor import Factor


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

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows, written or added to out group by group."""
        if not isinstance(other, Grouped):
            super().cross(other, out, fresh=fresh)
            return
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine.cross(theirs, out, fresh=fresh)
            fresh = False
