"""Which parameters' rows are handled together: a layer's weight and bias, or one tensor alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightlike.metric.capture import Captured, Key
from lightlike.metric.contractions import Dense, Factor, Layout, add_up
from lightlike.metric.contractions.layout import Place
from lightlike.problem.parameters import Entry


@dataclass(frozen=True)
class Unit:
    """Parameters whose columns of A are kept in one factor.

    Attributes:
        entries: One parameter, or a layer's weight and bias.
        contracted: Whether all uses seen are captured calls.
        aligned: Whether these keep the samples of a batch apart, so that one backward pass serves
            the same row of all of them.
        held: float64 numbers that a factor holds for one row, on average.
        pair_operations: Multiplications for the inner product of two rows.
        order: How inner products are made, in a few words.
        lane_axis: Dimension of the weight whose slices keep the structure of the factor.
        shared: Numbers that the factor holds for all rows of a sample together, on average.
    """

    entries: tuple[Entry, ...]
    contracted: bool
    aligned: bool
    held: int
    pair_operations: float
    order: str
    lane_axis: int = 0
    shared: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical parameter names."""
        return tuple(e.name for e in self.entries)

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(e.size for e in self.entries)

    @property
    def layer(self) -> str:
        """The module that owns the parameters."""
        return self.entries[0].layer

    def rebased(self, start: int) -> Unit:
        """The same unit in a vector that begins `start` columns later."""
        entries = tuple(replace(e, start=e.start - start) for e in self.entries)
        return replace(self, entries=entries)

    def gather(self, v: Tensor) -> Tensor:
        """The unit's rows of v (D, c): (width, c)."""
        return torch.cat([v[e.start : e.stop] for e in self.entries])

    def scatter(self, part: Tensor, out: Tensor) -> None:
        """Add part (..., width) to the unit's columns of out (..., D)."""
        start = 0
        for e in self.entries:
            out[..., e.start : e.stop] += part[..., start : start + e.size]
            start += e.size


def find_units(
    entries: Sequence[Entry],
    calls: Sequence[Captured],
    reached: set[str],
    samples: int,
    places: Mapping[Key, Place | None],
) -> tuple[Unit, ...]:
    """Units of the selected parameters, from the calls and other uses seen on one batch.

    Args:
        entries: The parameters.
        calls: Captured calls.
        reached: Parameters that are also used otherwise.
        samples: Items of the batch.
        places: For each call, the dimension of its output along which samples lie, if there is one.
    """
    by_name = {e.name: e for e in entries}
    partner: dict[str, str] = {}
    for entry in entries:
        uses = {c.call.uses for c in calls if entry.name in c.call.uses}
        other = next(iter(uses)) if len(uses) == 1 else ()
        if len(other) == 2 and not reached & set(other):
            partner[entry.name] = other[0] if other[1] == entry.name else other[1]
    units, done = [], set()
    for entry in entries:
        if entry.name in done:
            continue
        mate = partner.get(entry.name)
        joint = (
            mate is not None
            and partner.get(mate) == entry.name
            and by_name[mate].layer == entry.layer
        )
        names = [entry.name, mate] if joint and mate is not None else [entry.name]
        # A captured call names its weight first.
        order = next((c.call.uses for c in calls if set(names) == set(c.call.uses)), tuple(names))
        members = tuple(by_name[n] for n in order if n in names)
        mine = [c for c in calls if set(c.call.uses) & set(names)]
        contracted = not reached & set(names)
        aligned = contracted and all(places[c.key] is not None for c in mine)
        width = sum(e.size for e in members)
        held, pair, how, axis, shared = width, float(width), "entries", 0, 0.0
        if contracted and mine:
            held = sum(int(c.call.held(c.shape, samples)) for c in mine)
            pair = sum(c.call.pair_operations(c.shape, samples) for c in mine)
            how = " + ".join(dict.fromkeys(c.call.order(c.shape, samples) for c in mine))
            axis = max(c.call.lane_axis for c in mine)
            shared = sum(c.call.x.numel() for c in mine) / samples
        units.append(Unit(members, contracted, aligned, held, pair, how, axis, shared))
        done.update(names)
    return tuple(units)


def unit_factor(
    unit: Unit,
    calls: Sequence[tuple[Captured, Layout, Tensor]],
    leaf_rows: dict[str, Tensor],
) -> Factor | None:
    """The factor of a unit from gradients (k, *shape) at its calls' outputs and rows at its leaves.

    None if the batch does not use the unit.
    """
    names = set(unit.names)
    mine = [(c.call, layout, g) for c, layout, g in calls if names & set(c.call.uses)]
    together = len(unit.entries) == 2 and all(set(call.uses) == names for call, *_ in mine)
    if together and not names & leaf_rows.keys():
        found = [call.factor(unit.names, g, layout) for call, layout, g in mine]
        return add_up(found) if found else None
    parts: list[Factor | None] = []
    for name in unit.names:
        factors = [call.factor((name,), g, layout) for call, layout, g in mine if name in call.uses]
        if name in leaf_rows:
            factors.append(Dense(leaf_rows[name]))
        parts.append(add_up(factors) if factors else None)
    if len(parts) == 1:
        return parts[0]
    like = next((p for p in parts if p is not None), None)
    if like is None:
        return None
    blank = like.columns(0, 1).new_zeros(like.per_sample, like.samples, 1)
    rows = [
        blank.expand(-1, -1, e.size) if p is None else p.dense()
        for p, e in zip(parts, unit.entries, strict=True)
    ]
    return Dense(torch.cat(rows, -1))
