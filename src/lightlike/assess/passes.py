"""How long passes over the data take, from parts of them that are timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch

from lightlike.assess.rates import Rates, rates
from lightlike.metric.fisher import Fisher
from lightlike.metric.footprint import flight_memory
from lightlike.metric.operator import FisherOperator
from lightlike.metric.root import Root
from lightlike.metric.trial import RowTrial, TileTrial, first_row, try_rows, try_tile
from lightlike.metric.units import Unit
from lightlike.problem.isolation import isolated
from lightlike.spectrum.operator import Cost

# Layers whose own passes are timed; those between are taken to lie between.
TIMED = 6
# Products to come, of which enough is kept.
MANY = 1000


@dataclass(frozen=True)
class Plain:
    """Seconds of one pass of ordinary evaluation and differentiation over all data."""

    forward: float
    backward: float


@dataclass(frozen=True)
class Product:
    """A product of Î with a vector.

    Attributes:
        seconds: Of each.
        setup: More seconds of the first, for what is kept for the others.
        kept: Bytes of that.
    """

    seconds: float
    setup: float
    kept: int


class Passes:
    """Seconds of passes for a root A, each timed on a part when it is first asked for.

    Batches take time as their samples: what the first one takes is multiplied accordingly.

    Args:
        root: A, of a whole model.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        samples = root.problem.survey.samples
        # All samples in units of the first batch.
        self.batches = sum(samples) / samples[0]

    @cached_property
    def rates(self) -> Rates:
        """Of the device."""
        return rates(self.root.device)

    @cached_property
    def plain(self) -> Plain:
        """A forward pass, and the backward pass of one vector."""
        problem = self.root.problem
        evaluator = problem.evaluator
        best = [float("inf")] * 2
        with isolated(problem.dtype):
            batch = next(problem.batches())
            for _ in range(2):
                times = [time.perf_counter()]
                outputs = evaluator.outputs(batch)
                times.append(time.perf_counter())
                leaves = list(evaluator.leaves.values())
                found = torch.autograd.grad(outputs.h.sum(), leaves, allow_unused=True)
                # Reading a number waits for a device that works on its own.
                float(sum(g.flatten()[0] for g in found if g is not None))
                times.append(time.perf_counter())
                steps = zip(times[1:], times[:-1], best, strict=False)
                best = [min(b, after - before) for after, before, b in steps]
        return Plain(best[0] * self.batches, best[1] * self.batches)

    @cached_property
    def rows(self) -> float:
        """Back-propagating all rows of A into factors, once."""
        return (self._trial.fixed + self._trial.rows) * self.batches

    @cached_property
    def _trial(self) -> RowTrial:
        return try_rows(self.root.sweep, self.root.units)

    def fewer(self, rows: int) -> float:
        """The same for so many rows in all, as a sketch has, in place of K."""
        trial = self._trial
        return (trial.fixed + trial.rows * rows / self.root.shape[0]) * self.batches

    @cached_property
    def layers(self) -> dict[str, float]:
        """The same for the rows of each layer alone: backwards only down to it.

        One row an observation is timed, of some layers.
        """
        names = list(self.root.problem.selection.layers())
        step = max(1, -(-len(names) // TIMED))
        chosen = sorted({*range(0, len(names), step), len(names) - 1})
        whole = first_row(self.root.sweep, self.root.units)
        parts = {i: self.root.of_layer(names[i]) for i in chosen}
        known = {i: first_row(part.sweep, part.units) / whole for i, part in parts.items()}
        found = {}
        for i, name in enumerate(names):
            below = max(k for k in chosen if k <= i)
            above = min(k for k in chosen if k >= i)
            share = (i - below) / max(1, above - below)
            found[name] = self.rows * (known[below] + share * (known[above] - known[below]))
        return found

    @cached_property
    def tile(self) -> TileTrial | None:
        """Inner products of two tiles of rows."""
        return try_tile(self.root.sweep, self.root.units)

    def products(self, units: Sequence[Unit], cost: Cost, rows: int) -> float:
        """Inner products of K rows on some units, and the matrix of them.

        Pairs of tiles on and below the diagonal, and for units that are written out half a product
        of the strips with themselves. The matrix is written once and copied to its other half.
        """
        matrix = 8.0 * rows**2
        found = self.rates.fresh(matrix) + matrix / self.rates.memory
        tile = self.tile
        if tile is None:
            return found + self.rates.operations(cost.gram_operations)
        tiles = rows / tile.rows
        for unit in units:
            found += tiles * max(tiles + 1, 2) / 2 * tile.pairs.get(unit.names, 0.0)
            if unit.names in tile.strips:
                found += tiles * tile.strips[unit.names]
                found += self.rates.operations(float(rows) ** 2 * unit.width)
        return found

    def flight(self, units: Sequence[Unit]) -> float:
        """Bytes of one batch's rows on some units while they are back-propagated and used.

        All of its rows as they come, one unit's again in another form, and buffers.
        """
        survey = self.root.problem.survey
        rows = survey.rank * max(survey.counts)
        sizes = [rows * self._trial.bytes.get(unit.names, 0.0) for unit in units]
        return sum(sizes) + max(sizes) + flight_memory(units, rows)

    def held(self, units: Sequence[Unit], rows: int) -> float:
        """Bytes of all K rows on some units in the form that they are held in."""
        sizes = self._trial.bytes if self.tile is None else self.tile.bytes
        return rows * sum(sizes.get(unit.names, 0.0) for unit in units)

    @cached_property
    def product(self) -> Product:
        """A product of Î with a vector, of many: the second of two that are made."""
        v = torch.ones(self.root.shape[1], dtype=torch.float64, device=self.root.device)
        operator = FisherOperator(Fisher(self.root), MANY)
        times = [time.perf_counter()]
        for _ in range(2):
            operator @ v
            times.append(time.perf_counter())
        kept = operator.kept_bytes
        operator.close()
        first, second = (after - before for before, after in pairwise(times))
        return Product(second, max(0.0, first - second), kept)

    @property
    def foreseen(self) -> Product:
        """The same from plain passes, without making one: a tangent takes two forward passes."""
        return Product(2 * self.plain.forward + self.plain.backward, 0.0, 0)
