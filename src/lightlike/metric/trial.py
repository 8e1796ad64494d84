"""A small part of the work that rows of A take, done and timed: what a plan is calibrated by.

Rows of the first batch are back-propagated as all will be, but only so many of each observation;
the inner products of one tile of rows are made as all will be, from one sample repeated.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from lightlike.errors import LightlikeError
from lightlike.metric.blocks import Block, merge
from lightlike.metric.contractions.factor import by_sample
from lightlike.metric.gram import NARROW, STRIP, TILE_ROWS, add_tile
from lightlike.metric.prefixes import step_of
from lightlike.metric.sweep import Sweep
from lightlike.metric.units import Unit
from lightlike.metric.witness import Witness
from lightlike.problem.evaluation import Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

# Numbers by the names of a unit's parameters.
Sizes = dict[tuple[str, ...], float]
# Seconds that a trial is lengthened to where it can be.
LONG = 0.1
# Rows an observation that the time of each is taken from at least: their difference is small.
FEW = 3
# Rows of a sample that are enough for products of its tiles to run as those of more rows do.
ENOUGH = 256


@dataclass(frozen=True)
class RowTrial:
    """Seconds of all rows of the first batch, estimated.

    Attributes:
        fixed: Of what does not depend on their number: reading, forward passes, checks.
        rows: Of back-propagating and checking all of them.
        bytes: That each row takes while a batch is back-propagated, by the names of each unit's
            parameters; what no row touches of a causal model's sequences left out.
    """

    fixed: float
    rows: float
    bytes: Sizes = field(default_factory=dict)


@dataclass(frozen=True)
class TileTrial:
    """What tiles of rows of A took, by the names of each unit's parameters.

    Attributes:
        rows: Of a tile.
        pairs: Seconds of the inner products of two tiles, of units that are not written out.
        strips: Seconds of writing out a tile's entries of the others, their products left out.
        bytes: That each row takes while all are held.
    """

    rows: int
    pairs: Sizes
    strips: Sizes
    bytes: Sizes


def try_rows(sweep: Sweep, units: Sequence[Unit]) -> RowTrial:
    """Back-propagate one row an observation of the first batch, and some more.

    A model's first pass loads libraries and fills caches, so that the quicker of two is taken.
    """
    rank = sweep.problem.survey.rank
    one, held = min((_pass(sweep, units, 1) for _ in range(2)), key=lambda found: found[0])
    if rank == 1:
        return RowTrial(0.0, one, held)
    count = min(rank, max(FEW, int(LONG / one)))
    some, more = _pass(sweep, units, count)
    each = max(some - one, 0.0) / (count - 1)
    # Of several rows what they share counts once.
    sizes = {name: (count * more[name] - size) / (count - 1) for name, size in held.items()}
    return RowTrial(max(0.0, one - each), each * rank, sizes)


def first_row(sweep: Sweep, units: Sequence[Unit]) -> float:
    """Seconds of one row an observation of the first batch."""
    return _pass(sweep, units, 1)[0]


def _pass(sweep: Sweep, units: Sequence[Unit], count: int) -> tuple[float, Sizes]:
    """Seconds, and bytes a row before rows take the form that they are held in."""
    thin = _thin(sweep, count)
    survey = sweep.problem.survey
    with isolated(sweep.problem.dtype):
        start = time.perf_counter()
        blocks = next(thin.blocks(units, "Timing"))
        seconds = time.perf_counter() - start
        sizes: Sizes = {}
        for block in blocks:
            for unit, factor in block.factors.items():
                sizes[unit.names] = sizes.get(unit.names, 0.0) + factor.nbytes
        start = time.perf_counter()
        for block in blocks:
            block.settled()
        seconds += time.perf_counter() - start
    rows = count * survey.counts[0]
    share = 1.0
    if thin.ways == ["causal"]:
        step = step_of(survey.positions)
        cuts = -(-survey.positions // step)
        share = (cuts + 1) / (2 * cuts)
    return seconds, {names: share * size / rows for names, size in sizes.items()}


def _thin(sweep: Sweep, count: int) -> Sweep:
    """The same sweep over some rows of each observation."""
    clone = copy.copy(sweep)
    clone.problem = thinned(sweep.problem, count)
    return clone


def thinned(problem: Problem, count: int) -> Problem:
    """The same problem with the first columns of every score root alone, for timing."""
    clone = copy.copy(problem)
    vars(clone).pop("reference", None)

    def roots(outputs: Outputs) -> Tensor:
        return problem.score_roots(outputs)[..., :count]

    vars(clone)["score_roots"] = roots
    vars(clone)["survey"] = replace(problem.survey, rank=count)
    return clone


def try_tile(sweep: Sweep, units: Sequence[Unit]) -> TileTrial | None:
    """Make the inner products of two tiles; None if the model refuses a single sample."""
    survey = sweep.problem.survey
    count = min(survey.rank, -(-ENOUGH // survey.positions))
    thin = _thin(sweep, count)
    with isolated(sweep.problem.dtype):
        batch = next(sweep.problem.batches()).sample(0, survey.samples[0])
        try:
            outputs = thin.evaluator.outputs(batch)
        except LightlikeError:
            return None
        if outputs.samples != 1 or not outputs.count:
            return None
        witness = Witness(thin.problem, thin.precision)
        (block,) = thin._blocks(batch, outputs, units, witness)
        block = block.settled()
        if not block.factors:
            return None
        size = TILE_ROWS if survey.positions == 1 else ENOUGH
        copies = min(max(1, size // block.rows), sum(survey.samples))
        tile = _repeated(block, units, copies)
        # Another object: of one with itself half the products are left out.
        other = tile.narrow(0, tile.samples)
        height = tile.samples * tile.per_sample
        like = next(iter(tile.factors.values()))
        out = like.columns(0, 1).new_zeros(height, height)
        pairs: Sizes = {}
        strips: Sizes = {}
        for unit, factor in tile.factors.items():
            if factor.written:
                strips[unit.names] = _clocked(partial(_write, tile, unit))
            else:
                work = partial(add_tile, tile, other, [unit], out, None, fresh=False)
                pairs[unit.names] = _clocked(work)
    held = {u.names: f.nbytes / tile.rows for u, f in tile.factors.items()}
    return TileTrial(tile.rows, pairs, strips, held)


def _repeated(block: Block, units: Sequence[Unit], copies: int) -> Block:
    """The rows of one sample as those of several."""
    # Joining takes factors out of what it joins.
    return merge([replace(block, factors=dict(block.factors)) for _ in range(copies)], units)[0]


def _write(tile: Block, unit: Unit) -> None:
    """A tile's entries on a unit's columns, as strips are put together."""
    step = max(NARROW, STRIP // (8 * max(1, tile.rows)))
    for start in range(0, unit.width, step):
        part = tile.factors[unit].columns(start, min(start + step, unit.width))
        torch.linalg.vector_norm(tile.kept(by_sample(part)).contiguous())


def _clocked(work: Callable[[], object]) -> float:
    """Seconds of some work.

    Of short work those of the second time, when what is read is in the caches as it mostly is.
    """
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        if seconds > LONG / 2:
            break
    return seconds
