"""J and Jᵀ of a batch as lists of calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
    mismatch,
    noise,
    shadow,
    tangents,
    unpacked,
)
from lightlike.metric.products.recording import Recorder, UnrecordableError, held_bytes
from lightlike.metric.products.rules import Rules
from lightlike.metric.products.tape import Tape
from lightlike.metric.products.ways import RefusedError, refusing
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

# Roundings by which two ways to the same gradient may be apart, relative to its norm.
SLACK = 1e5


class Recorded(Passage):
    """J and Jᵀ by the calls that depend on the vector while PyTorch makes them, and no others.

    What PyTorch does with tangents in one pass in forward mode is J; what it does with a cotangent
    in one pass backward is Jᵀ. If that cannot be repeated, the graph is kept and gone back through.
    Some layers go by rules of ours, unless what comes of it differs from the model's own gradient.
    """

    def __init__(self, problem: Problem, batch: Batch, index: int) -> None:
        super().__init__(problem, batch, index)
        # Rounding in the model itself would turn units on or off: what is kept is made in float64.
        self._at = exact = problem.reference
        with isolated(exact.dtype):
            self.batch = batch.to(exact.evaluator.device, exact.dtype)
            plain = exact.evaluator.outputs(self.batch)
            problem.confirm(index, plain)
            c, r = noise(plain.h, 6), noise(exact.theta, 8)
            expected = graph_pull(exact, plain, c, retain=False)
            # The model may rely on how PyTorch lays out what its layers return.
            for rules in (Rules(last=True), Rules(last=False), None):
                try:
                    self._record(rules or nullcontext())
                    agrees = self._agrees(c, r, expected)
                except RefusedError:
                    if rules is None:
                        raise
                    agrees = False
                if agrees:
                    break
            else:
                # Whether this is right is asked of every passage again.
                self._record(nullcontext(), back=False)
        self.batch = batch
        if problem.dtype != exact.dtype and self.back is not None:
            self._at = problem
            # Both are let go of at once, so that no number of memory is used twice.
            made: dict[int, Tensor] = {}
            exactly = [*self.tape.constants(), *self.back.constants()]
            self.tape.cast(problem.dtype, made)
            self.back.cast(problem.dtype, made)
            del exactly
        if self.back is not None:
            kept = [self._outputs.h, *self.tape.constants(), *self.back.constants()]
            self.size = held_bytes(kept, self._own())

    def _own(self) -> list[Tensor]:
        """Tensors that are kept anyway."""
        return [*self._at.evaluator.values.values(), *self.batch.tensors()]

    def _agrees(self, c: Tensor, r: Tensor, expected: Tensor) -> bool:
        """Whether Jᵀc is as expected, and ⟨c, J r⟩ = ⟨Jᵀc, r⟩."""
        slack = SLACK * torch.finfo(self._at.dtype).eps
        gap = float((self.pull(c) - expected).norm())
        close = mismatch(c, self.push(r), expected, r) <= slack
        return close and gap <= slack * float(expected.norm())

    def _record(self, rules: AbstractContextManager[object], *, back: bool = True) -> None:
        evaluator = self._at.evaluator
        # Each in memory of its own, as the parameters are: PyTorch would copy views.
        inputs = [part.clone() for part in tangents(self._at, noise(self._at.theta, 2))]
        recorder = Recorder(inputs, self._own())
        with refusing("forward mode"), forward_mode.dual_level(), recorder, rules:
            outputs = shadow(evaluator, inputs).outputs(self.batch)
            h, found = unpacked(outputs.h)
            self.tape = recorder.tape([found])
        self._outputs = replace(outputs, h=h)
        del outputs, found
        self.problem.confirm(self.index, self._outputs)
        self.back = self._recorded_back() if back else None
        self.size = recorder.held_bytes()
        if self.back is not None:
            self._outputs = replace(self._outputs, h=h.detach())

    @property
    def outputs(self) -> Outputs:
        """As `Passage.outputs`."""
        return self._outputs

    def push(self, v: Tensor) -> Tensor:
        """As `Passage.push`."""
        return self._run(tangents(self._at, v), reuse=True)

    def push_block(self, block: Tensor) -> Tensor:
        """As `Passage.push_block`."""
        parts = tangents(self._at, block)
        found: Tensor = torch.vmap(lambda *one: self._run(one, reuse=False))(*parts)
        return found

    def pull(self, c: Tensor, *, again: bool = True) -> Tensor:  # noqa: ARG002 — it is kept
        """As `Passage.pull`."""
        if self.back is None:
            return graph_pull(self._at, self.outputs, c, retain=True)
        with torch.no_grad():
            return gathered(self.problem, self.back([c.to(self._at.dtype)], reuse=True), c)

    def pull_block(self, block: Tensor) -> Tensor:
        """As `Passage.pull_block`."""
        back = self.back
        if back is None:
            return graph_pull_block(self._at, self.outputs, block)
        places = [place for place, index in enumerate(back.outputs) if index is not None]
        found: list[Tensor | None] = [None] * len(back.outputs)
        if places:
            with torch.no_grad():
                made = torch.vmap(
                    lambda c: [back([c.to(self._at.dtype)])[place] for place in places]
                )(block)
            for place, g in zip(places, made, strict=True):
                found[place] = g
        return gathered_block(self.problem, found, block)

    def _run(self, parts: Sequence[Tensor], *, reuse: bool) -> Tensor:
        with torch.no_grad():
            (found,) = self.tape(parts, reuse=reuse)
            return torch.zeros_like(self.outputs.h) if found is None else found.double()

    def _recorded_back(self) -> Tape | None:
        """Jᵀ as a tape; None if it cannot be repeated from one."""
        problem, h = self._at, self._outputs.h
        leaves = list(problem.evaluator.leaves.values())
        c = noise(h, 7)
        recorder = Recorder([c])
        try:
            with recorder:
                return recorder.tape(differentiate(h, leaves, c, retain=True))
        except torch.OutOfMemoryError:
            raise
        except (UnrecordableError, ModelError):
            return None
