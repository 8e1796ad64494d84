"""Sums of unlike factors on the same columns: a weight that is used in more than one way."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lightlike.metric.contractions.compound import Compound
from lightlike.metric.contractions.factor import Factor
from lightlike.metric.contractions.grouped import Grouped, assemble, pieces
from lightlike.metric.contractions.lanes import Lanes
from lightlike.metric.contractions.lookup import Lookup
from lightlike.metric.contractions.outer import Outer, combine
from lightlike.metric.contractions.split import inner


class Total(Compound):
    """The sum of factors of the same rows, as for a table that is embedding and output layer."""

    def _width(self) -> int:
        return self.parts[0].width

    @property
    def written(self) -> bool:
        """Unless all pairs of parts have products of their own."""
        return not all(isinstance(inner(part), Lookup | Outer) for part in self.parts) or any(
            part.written for part in self.parts
        )

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        return torch.stack([part.columns(start, stop) for part in self.parts]).sum(0)

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        return torch.stack([part.apply(v) for part in self.parts]).sum(0)

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        return torch.stack([part.pull(u) for part in self.parts]).sum(0)

    def scaled(self, weights: Tensor) -> Factor:
        """Columns multiplied by weights; the parts survive if these are all the same."""
        if bool((weights != weights[0]).any()):
            return super().scaled(weights)
        return Total([part.scaled(weights) for part in self.parts])

    def keep(self, lanes: Lanes) -> Total:
        """The same lanes of every part."""
        return Total([part.keep(lanes) for part in self.parts])

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products of each of my parts with each of theirs."""
        theirs = other.parts if isinstance(other, Total) else [other]
        for mine in self.parts:
            for part in theirs:
                if isinstance(inner(part), Lookup) and isinstance(inner(mine), Outer):
                    turned = out.new_empty(out.shape[::-1])
                    part.cross(mine, turned, fresh=True)
                    out.copy_(turned.T) if fresh else out.add_(turned.T)
                else:
                    mine.cross(part, out, fresh=fresh)
                fresh = False


def add_up(factors: Sequence[Factor]) -> Factor:
    """The sum of several calls' factors on one unit."""
    if len(factors) == 1:
        return factors[0]
    outers: dict[Hashable, list[Outer]] = {}
    grouped: list[Grouped] = []
    rest: list[Factor] = []
    for factor in factors:
        if isinstance(factor, Outer):
            outers.setdefault(factor.form, []).append(factor)
        elif isinstance(factor, Grouped):
            grouped.append(factor)
        else:
            rest.append(factor)
    parts = [*(combine(same) for same in outers.values()), *_side_by_side(grouped), *rest]
    return parts[0] if len(parts) == 1 else Total(parts)


def _side_by_side(factors: Sequence[Grouped]) -> Sequence[Grouped]:
    """Groups of columns added up one by one, so that slices of one weight stand side by side."""
    if len(factors) < 2:
        return factors
    found: dict[tuple[int, int], list[Factor]] = {}
    for factor in factors:
        for place, piece in pieces(factor).items():
            found.setdefault(place, []).append(piece)
    whole = assemble({place: add_up(same) for place, same in found.items()}, factors[0].width)
    return factors if whole is None else [whole]
