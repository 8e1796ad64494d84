"""J and Jᵀ of a batch as lists of calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor

from lightlike.errors import ModelError
from lightlike.metric.jacobian import differentiate
from lightlike.metric.products.passage import (
    Passage,
    gathered,
    gathered_block,
    graph_pull,
    graph_pull_block,
    noise,
    shadow,
    tangents,
    unpacked,
)
from lightlike.metric.products.recording import Recorder, UnrecordableError, held_bytes
from lightlike.metric.products.tape import Tape
from lightlike.metric.products.ways import refusing
from lightlike.problem.batch import Batch
from lightlike.problem.problem import Problem

# Roundings by which two ways to the same gradient may be apart, relative to its norm.
SLACK = 1e5


class Recorded(Passage):
    """J and Jᵀ by the calls that depend on the vector while PyTorch makes them, and no others.

    What PyTorch does with tangents in one pass in forward mode is J; what it does with a cotangent
    in one pass backward is Jᵀ. If that cannot be repeated, the graph is kept and gone back through.
    """

    def __init__(self, problem: Problem, batch: Batch, index: int) -> None:
        super().__init__(problem, batch, index)
        evaluator = problem.evaluator
        own = [*evaluator.values.values(), *batch.tensors()]
        # Each in memory of its own, as the parameters are: PyTorch would copy views.
        inputs = [part.clone() for part in tangents(problem, noise(problem.theta, 2))]
        recorder = Recorder(inputs, own)
        with refusing("forward mode"), forward_mode.dual_level(), recorder:
            outputs = shadow(evaluator, inputs).outputs(batch)
            h, found = unpacked(outputs.h)
            self.tape = recorder.tape([found])
        self._outputs = replace(outputs, h=h)
        del outputs, found
        problem.confirm(index, self._outputs)
        self.back = self._recorded_back()
        if self.back is None:
            self.size = recorder.held_bytes()
            return
        self._outputs = replace(self._outputs, h=h.detach())
        kept = [self._outputs.h, *self.tape.constants(), *self.back.constants()]
        self.size = held_bytes(kept, own)

    @property
    def outputs(self) -> Outputs:
        """As `Passage.outputs`."""
        return self._outputs

    def push(self, v: Tensor) -> Tensor:
        """As `Passage.push`."""
        return self._run(tangents(self.problem, v), reuse=True)

    def push_block(self, block: Tensor) -> Tensor:
        """As `Passage.push_block`."""
        parts = tangents(self.problem, block)
        found: Tensor = torch.vmap(lambda *one: self._run(one, reuse=False))(*parts)
        return found

    def pull(self, c: Tensor, *, again: bool = True) -> Tensor:  # noqa: ARG002 — it is kept
        """As `Passage.pull`."""
        if self.back is None:
            return graph_pull(self.problem, self.outputs, c, retain=True)
        with torch.no_grad():
            return gathered(self.problem, self.back([c], reuse=True), c)

    def pull_block(self, block: Tensor) -> Tensor:
        """As `Passage.pull_block`."""
        back = self.back
        if back is None:
            return graph_pull_block(self.problem, self.outputs, block)
        places = [place for place, index in enumerate(back.outputs) if index is not None]
        found: list[Tensor | None] = [None] * len(back.outputs)
        if places:
            with torch.no_grad():
                made = torch.vmap(lambda c: [back([c])[place] for place in places])(block)
            for place, g in zip(places, made, strict=True):
                found[place] = g
        return gathered_block(self.problem, found, block)

    def _run(self, parts: Sequence[Tensor], *, reuse: bool) -> Tensor:
        with torch.no_grad():
            (found,) = self.tape(parts, reuse=reuse)
            return torch.zeros_like(self.outputs.h) if found is None else found

    def _recorded_back(self) -> Tape | None:
        """Jᵀ as a tape; None if it cannot be repeated from one, or disagrees with the graph."""
        problem, h = self.problem, self._outputs.h
        leaves = list(problem.evaluator.leaves.values())
        c = noise(h, 6)
        recorder = Recorder([c])
        try:
            with recorder:
                tape = recorder.tape(differentiate(h, leaves, c, retain=True))
        except torch.OutOfMemoryError:
            raise
        except (UnrecordableError, ModelError):
            return None
        # Another cotangent, and the model's own graph.
        c = noise(h, 7)
        expected = graph_pull(problem, self._outputs, c, retain=True)
        with torch.no_grad():
            gap = gathered(problem, tape([c], reuse=True), c) - expected
        slack = SLACK * torch.finfo(problem.dtype).eps
        return tape if float(gap.norm()) <= slack * float(expected.norm()) else None
