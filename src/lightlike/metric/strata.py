"""Which columns of A are kept: of every unit as many lanes as its share, drawn without replacement.

A unit is a stratum, its lanes (see `lightlike.metric.contractions.lanes`) the clusters. Those kept
are dealt out to R replicates in equal numbers, each of which is a sample of the unit by itself. A
unit too small for its share is kept whole, in no replicate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.metric.contractions.lanes import Lanes
from lightlike.metric.units import Unit
from lightlike.spectrum.columns import Columns

# A unit is kept whole if more than this share of it would be kept, or more than was asked for.
MOST = 0.5


@dataclass(frozen=True, eq=False)
class Stratum:
    """The kept lanes of one unit.

    Attributes:
        unit: The unit.
        lanes: Those that are kept, of all replicates.
        places: For each replicate, which of the kept lanes are its own; empty if all are kept.
    """

    unit: Unit
    lanes: Lanes
    places: tuple[Tensor, ...]

    @property
    def whole(self) -> bool:
        """Whether all lanes are kept."""
        return not self.places

    @property
    def share(self) -> float:
        """N_h / n_h is what a kept lane stands for; this is n_h / N_h."""
        return self.lanes.kept / self.lanes.count

    @property
    def width(self) -> int:
        """Number of columns that are kept."""
        return self.unit.width // self.lanes.count * self.lanes.kept


def lanes_of(unit: Unit) -> Lanes:
    """All lanes of a unit: output units where it has them, else single columns."""
    weight = unit.entries[0].shape
    rows = weight[0] if len(weight) > 1 else math.prod(weight)
    cols = math.prod(weight[1:]) if len(weight) > 1 else 1
    axis = unit.lane_axis if len(weight) == 2 else 0
    count = cols if axis else rows
    bias = len(unit.entries) == 2
    if (bias and unit.entries[1].size != count) or count == 1:
        rows, cols, axis, bias, count = unit.width, 1, 0, False, unit.width
    return Lanes(rows, cols, axis, bias, torch.arange(count))


def stratum_size(count: int, options: Columns) -> int:
    """Lanes that are kept of `count`: a multiple of the replicates, or all.

    All of a unit that is so small that more than half would be kept for a smaller share.
    """
    each = max(1, math.ceil(options.share * count / options.replicates - 1e-9))
    kept = each * options.replicates
    most = count if options.share > MOST else MOST * count
    return kept if kept <= most else count


def draw_strata(
    units: Sequence[Unit], options: Columns, seed: int, device: torch.device
) -> tuple[Stratum, ...]:
    """Draw the lanes of every unit, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for unit in units:
        lanes = lanes_of(unit)
        kept = stratum_size(lanes.count, options)
        if kept == lanes.count:
            found.append(Stratum(unit, lanes.only(lanes.index.to(device)), ()))
            continue
        drawn = torch.randperm(lanes.count, generator=generator)[:kept]
        index, order = drawn.sort()
        # Lane `index[j]` was the order[j]-th drawn; runs of the draw are the replicates.
        owner = order // (kept // options.replicates)
        places = tuple(
            torch.nonzero(owner == r).flatten().to(device) for r in range(options.replicates)
        )
        found.append(Stratum(unit, lanes.only(index.to(device)), places))
    return tuple(found)
