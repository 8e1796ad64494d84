"""A passage for every batch: kept, made to be kept, or for one use; each one verified."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from lightlike.errors import ConsistencyError
from lightlike.metric.products.cache import Cache
from lightlike.metric.products.passage import (
    Doubled,
    Fresh,
    Passage,
    disagreement,
    mismatch,
    noise,
)
from lightlike.metric.products.recorded import Recorded
from lightlike.metric.products.schedule import TYPICAL, Schedule
from lightlike.metric.products.ways import ROWS, WAYS, RefusedError, Way
from lightlike.problem.batch import Batch
from lightlike.problem.problem import Problem

# Largest entries from here to its inverse have squares that any float holds.
SMALL = 1e-15
# How far ⟨c, J v⟩ may be from ⟨Jᵀc, v⟩, relative to |c| |J v|: rounding stays well below.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


class Supply:
    """Passages for the batches of a problem, in the first way that the model takes.

    Args:
        problem: Model, data and likelihood.
        schedule: When to keep something.
        budget: Bytes that may be kept.

    Attributes:
        cache: What is kept.
        seconds: Spent on recording, and on checks and trials made once.
    """

    def __init__(self, problem: Problem, schedule: Schedule, budget: int) -> None:
        self.problem, self.schedule = problem, schedule
        self.cache = Cache(budget)
        self.seconds = 0.0
        self._ways = list(WAYS)
        self._refusals: list[str] = []
        self._verified = self._kept = self._wanted = False
        self._tolerance = TOLERANCE[problem.dtype]

    @property
    def way(self) -> Way | None:
        """The way that is taken now; None if there is no other than by rows of A."""
        return self._ways[0] if self._ways else None

    @property
    def name(self) -> str:
        """What the last product was taken by."""
        if self.way is None:
            return ROWS
        return self.way.kept if self._kept else self.way.once

    @property
    def reason(self) -> str:
        """Why so."""
        said = [*self._refusals, self.schedule.reason]
        batches = len(self.problem.survey.samples)
        if self.way is not None and self._wanted and len(self.cache) < batches:
            said.append(f"memory keeps {len(self.cache)} of {batches} batches")
        return "; ".join(said)

    def refuse(self, why: str) -> None:
        """Go on to the next way."""
        self._ways.pop(0)
        self._verified = False
        self.cache.clear()
        if why not in self._refusals:
            self._refusals.append(why)

    def __call__(self, vectors: Tensor) -> Iterator[Passage]:
        """A passage for each batch in turn, for vectors (c, D) or whatever else (c, ·).

        Raises:
            RefusedError: if the model does not take the present way.
            DeterminismError: if data or outputs changed.
        """
        samples, way = self.problem.survey.samples, self.way
        assert way is not None
        keeps = self.schedule.keeps(len(vectors), len(samples))
        self._kept, self._wanted = False, bool(keeps)
        if keeps and len(self.cache) == len(samples):
            self._kept = True
            yield from self.cache
            return
        for index, batch in self.problem.checked("Fisher products"):
            passage = self.cache.get(index) if keeps else None
            if passage is None and keeps is None:
                passage = self._measured(way, batch, index, len(vectors))
                keeps = self._wanted = bool(self.schedule.verdict)
            elif passage is None and keeps and self._worth(samples[index], len(vectors)):
                passage = self._made(way, batch, index)
                self.cache.put(index, passage, samples[index])
            if passage is None:
                passage = self._once(way, batch, index)
            else:
                self._kept = True
            yield passage

    def push(self, passage: Passage, v: Tensor) -> Tensor:
        """J v, verified if this is the first time in this way.

        Raises:
            RefusedError: if it disagrees with ordinary differentiation.
        """
        image = passage.push(v)
        if isinstance(passage, Fresh) and not self._verified:
            start = time.perf_counter()
            c = noise(image, 4)
            self._accept(mismatch(c, image, passage.pull(c), v))
            # A vector with zeros has not seen all parameters.
            self._verified = bool((v != 0).all())
            self.seconds += time.perf_counter() - start
        return image

    def confirm(self, image: Tensor, weighed: Tensor, found: Tensor, v: Tensor) -> None:
        """Hold vᵀ(JᵀΛJ v) against (J v)ᵀΛ(J v).

        Raises:
            ConsistencyError: if they differ by more than rounding.
        """
        problem = self.problem
        gap = abs(float((image * weighed).sum()) - float(found @ v))
        allowed = self._tolerance * norm(image) * norm(weighed)
        if gap <= allowed:
            return
        # Rounding is relative to the largest terms that met in the sums.
        unit = torch.finfo(problem.dtype)
        allowed += 1e4 * unit.eps * norm(found) * norm(v)
        # Saturated outputs leave numbers that float32 cannot hold.
        allowed += problem.survey.rows**2 * problem.parameters * unit.tiny
        if not gap <= allowed:
            raise ConsistencyError(
                "A product with the Fisher matrix disagrees with plain differentiation.",
                f"Its quadratic form differs by {gap:.2g}, rounding explains {allowed:.2g}.",
                "Report the model's layers as a fault of lightlike; custom autograd functions are "
                "the first to suspect.",
            )

    def _made(self, way: Way, batch: Batch, index: int) -> Passage:
        """A passage that can be kept, verified."""
        start = time.perf_counter()
        kind = Recorded if way.forward else Doubled
        passage = kind(self.problem, batch, index)
        self._accept(disagreement(passage))
        self._verified = True
        self.seconds += time.perf_counter() - start
        return passage

    def _once(self, way: Way, batch: Batch, index: int) -> Passage:
        """A passage for vectors one by one."""
        if way.forward:
            return Fresh(self.problem, batch, index)
        passage = Doubled(self.problem, batch, index)
        if not self._verified:
            start = time.perf_counter()
            self._accept(disagreement(passage))
            self._verified = True
            self.seconds += time.perf_counter() - start
        return passage

    def _measured(self, way: Way, batch: Batch, index: int, count: int) -> Passage | None:
        """Time both on the first batch; what was made, if it is to be kept."""
        v = noise(self.problem.theta, 5)
        times = [time.perf_counter()]
        once = self._once(way, batch, index)
        once.pull(once.push(v), again=False)
        times.append(time.perf_counter())
        passage = self._made(way, batch, index)
        times.append(time.perf_counter())
        passage.pull(passage.push(v))
        times.append(time.perf_counter())
        plain, setup, kept = (after - before for before, after in pairwise(times))
        self.seconds += plain + kept
        samples = self.problem.survey.samples[index]
        if self.schedule.weigh(count, plain, setup, kept):
            self.cache.put(index, passage, samples)
            return passage
        return None

    def _worth(self, samples: int, count: int) -> bool:
        """Whether to make a passage of its own for a batch, be it for one block only."""
        return self.cache.admits(samples) or count > TYPICAL

    def _accept(self, mistake: float) -> None:
        if not mistake <= self._tolerance:
            way = self.way
            assert way is not None
            raise RefusedError(
                f"{way.once} disagrees with ordinary differentiation (by {mistake:.2g})"
            )


def norm(t: Tensor) -> float:
    """‖t‖; in units of the largest entry where squares may be too small or large for a float."""
    unit = float(torch.linalg.vector_norm(t, math.inf)) if t.numel() else 0.0
    if SMALL < unit < 1.0 / SMALL:
        return float(torch.linalg.vector_norm(t))
    return unit * float((t / unit).norm()) if unit else 0.0
