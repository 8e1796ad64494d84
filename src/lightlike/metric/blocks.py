"""A block of rows of A: a run of samples with equally many rows each, in factored form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.metric.contractions import Factor
from lightlike.metric.units import Unit


@dataclass(frozen=True)
class Block:
    """Rows of s samples, k each, laid out over (k, s) inside and sample by sample outside.

    Attributes:
        samples: s.
        per_sample: k, rows of each sample before rows of ignored observations are dropped.
        factors: The factor of each unit; a unit that the samples do not use is missing.
        keep: Mask (s, k) of rows that count; None if all do.
    """

    samples: int
    per_sample: int
    factors: dict[Unit, Factor]
    keep: Tensor | None

    @property
    def rows(self) -> int:
        """Number of rows of A."""
        return self.samples * self.per_sample if self.keep is None else int(self.keep.sum())

    def narrow(self, start: int, length: int) -> Block:
        """The block of some of the samples."""
        factors = {unit: f.narrow(start, length) for unit, f in self.factors.items()}
        keep = None if self.keep is None else self.keep[start : start + length]
        return Block(length, self.per_sample, factors, keep)

    def settled(self) -> Block:
        """The block with each factor in the form leanest for many inner products."""
        # One at a time: the former factors go as the new ones come.
        for unit in list(self.factors):
            self.factors[unit] = self.factors[unit].settled()
        return self

    def tiles(self, rows: int) -> list[Block]:
        """The block cut into runs of samples with at most about `rows` rows each."""
        step = max(1, rows // max(1, self.per_sample))
        starts = range(0, self.samples, step)
        return [self.narrow(s, min(step, self.samples - s)) for s in starts]

    def outward(self, inner: Tensor) -> Tensor:
        """Entries (k, s, c) in the order of A's rows: (rows, c)."""
        return self.kept(inner.transpose(0, 1).flatten(0, 1))

    def inward(self, outer: Tensor) -> Tensor:
        """Entries in the order of A's rows (rows, c), as (k, s, c); dropped rows are 0."""
        if self.keep is not None:
            full = outer.new_zeros(self.keep.numel(), outer.shape[-1])
            full[self.keep.reshape(-1)] = outer
            outer = full
        return outer.view(self.samples, self.per_sample, outer.shape[-1]).transpose(0, 1)

    def kept(self, inner: Tensor) -> Tensor:
        """The rows that count of entries (samples · per_sample, ...)."""
        return inner if self.keep is None else inner[self.keep.reshape(-1)]


def merge(blocks: Sequence[Block], units: Sequence[Unit]) -> list[Block]:
    """Join neighbouring blocks whose factors have the same forms: fewer, larger products."""
    runs: list[list[Block]] = []
    forms: dict[Unit, object] = {}
    for block in blocks:
        mine = {unit: factor.form for unit, factor in block.factors.items()}
        alike = all(forms.get(unit, form) == form for unit, form in mine.items())
        if runs and runs[-1][-1].per_sample == block.per_sample and alike:
            runs[-1].append(block)
            forms |= mine
        else:
            runs.append([block])
            forms = dict(mine)
    return [_join(run, units) for run in runs]


def _join(run: Sequence[Block], units: Sequence[Unit]) -> Block:
    if len(run) == 1:
        return run[0]
    factors: dict[Unit, Factor] = {}
    for unit in units:
        # Taken out, so that one unit at a time is held twice.
        parts = [block.factors.pop(unit, None) for block in run]
        like = next((part for part in parts if part is not None), None)
        if like is not None:
            factors[unit] = type(like).join(
                [part or like.blank(b.samples) for part, b in zip(parts, run, strict=True)]
            )
    keep = None
    if any(block.keep is not None for block in run):
        device = next(block.keep.device for block in run if block.keep is not None)
        keep = torch.cat(
            [
                block.keep
                if block.keep is not None
                else torch.ones(block.samples, block.per_sample, dtype=torch.bool, device=device)
                for block in run
            ]
        )
    return Block(sum(b.samples for b in run), run[0].per_sample, factors, keep)


def tile_rows(block: Block, size: int, device: torch.device) -> Tensor:
    """The rows of a block written out, (rows, D)."""
    shape = block.per_sample, block.samples, size
    out = torch.zeros(shape, dtype=torch.float64, device=device)
    for unit, factor in block.factors.items():
        unit.scatter(factor.dense(), out)
    return block.outward(out)
