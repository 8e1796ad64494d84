"""One batch's Jacobian J as two linear maps: v ↦ J v in some way, c ↦ Jᵀc by reverse mode.

With L_i L_iᵀ = Λ_i the covariance of the score, a batch's part of the metric is Jᵀ Λ J / N.
"""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor

from lightlike.metric.buffers import empty
from lightlike.metric.jacobian import differentiate
from lightlike.metric.products.recording import Recorder
from lightlike.metric.products.ways import refusing
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator, Outputs
from lightlike.problem.problem import Problem


class Passage(ABC):
    """J and Jᵀ of one batch.

    Args:
        problem: Model, data and likelihood.
        batch: The batch.
        index: Which batch it is.

    Attributes:
        size: Bytes that are kept for it.

    Raises:
        RefusedError: if the model does not take this way.
        DeterminismError: if the outputs are not those of the survey.
    """

    size: int = 0

    def __init__(self, problem: Problem, batch: Batch, index: int) -> None:
        self.problem, self.batch, self.index = problem, batch, index

    @property
    @abstractmethod
    def outputs(self) -> Outputs:
        """Of the batch."""

    @abstractmethod
    def push(self, v: Tensor) -> Tensor:
        """J v of every observation: (D,) -> (n, m).

        Raises:
            RefusedError: if the model does not take this way.
        """

    @abstractmethod
    def pull(self, c: Tensor, *, again: bool = True) -> Tensor:
        """Jᵀ c for c (n, m): (D,) in float64.

        Args:
            c: The cotangent.
            again: Whether something may be pulled through the same pass again.
        """

    def push_block(self, block: Tensor) -> Tensor:
        """J v for rows v of a block (c, D), together: (c, n, m)."""
        raise NotImplementedError

    def pull_block(self, block: Tensor) -> Tensor:
        """Jᵀ c for each of a block (c, n, m), together: (c, D)."""
        raise NotImplementedError


class Fresh(Passage):
    """A pass in forward mode for every vector; nothing is kept."""

    def __init__(self, problem: Problem, batch: Batch, index: int) -> None:
        super().__init__(problem, batch, index)
        self._outputs: Outputs | None = None

    @property
    def outputs(self) -> Outputs:
        """As `Passage.outputs`."""
        if self._outputs is None:
            self._outputs = self.problem.evaluator.outputs(self.batch)
            self.problem.confirm(self.index, self._outputs)
        return self._outputs

    def push(self, v: Tensor) -> Tensor:
        """As `Passage.push`."""
        self._outputs = None
        parts = tangents(self.problem, v)
        with refusing("forward mode"), forward_mode.dual_level():
            outputs = shadow(self.problem.evaluator, parts).outputs(self.batch)
            h, found = unpacked(outputs.h)
            found = torch.zeros_like(h.detach()) if found is None else found.detach()
        self._outputs = replace(outputs, h=h)
        self.problem.confirm(self.index, self._outputs)
        return found

    def pull(self, c: Tensor, *, again: bool = True) -> Tensor:
        """As `Passage.pull`."""
        found = graph_pull(self.problem, self.outputs, c, retain=again)
        if not again:
            self._outputs = None
        return found


class Doubled(Passage):
    """J v by differentiating u ↦ Jᵀu, which is linear and whose graph is kept.

    Attributes:
        at: A random u (n, m) at which this graph was made.
    """

    def __init__(self, problem: Problem, batch: Batch, index: int) -> None:
        super().__init__(problem, batch, index)
        leaves = list(problem.evaluator.leaves.values())
        recorder = Recorder((), [*problem.evaluator.values.values(), *batch.tensors()])
        with refusing("differentiation of the gradient"), recorder:
            self._outputs = problem.evaluator.outputs(batch)
            h = self._outputs.h
            self.at = noise(h, 1).requires_grad_(True)
            found: Sequence[Tensor | None] = (None,) * len(leaves)
            if h.requires_grad:
                found = torch.autograd.grad(
                    h, leaves, self.at, create_graph=True, allow_unused=True
                )
        self._pulled = [
            (place, g.to_dense() if g.is_sparse else g)
            for place, g in enumerate(found)
            if g is not None
        ]
        problem.confirm(index, self._outputs)
        self._bent = [(place, g) for place, g in self._pulled if g.requires_grad]
        self.size = recorder.held_bytes()

    @property
    def outputs(self) -> Outputs:
        """As `Passage.outputs`."""
        return self._outputs

    @property
    def image(self) -> Tensor:
        """Jᵀu at the random u, (D,)."""
        out = torch.zeros_like(self.problem.theta)
        parts = list(self.problem.selection.split(out).values())
        for place, g in self._pulled:
            parts[place].copy_(g.detach())
        return out

    def push(self, v: Tensor) -> Tensor:
        """As `Passage.push`."""
        return self._push(tangents(self.problem, v), batched=False)

    def push_block(self, block: Tensor) -> Tensor:
        """As `Passage.push_block`."""
        return self._push(tangents(self.problem, block), batched=True)

    def pull(self, c: Tensor, *, again: bool = True) -> Tensor:  # noqa: ARG002 — it is kept
        """As `Passage.pull`."""
        return graph_pull(self.problem, self.outputs, c, retain=True)

    def pull_block(self, block: Tensor) -> Tensor:
        """As `Passage.pull_block`."""
        return graph_pull_block(self.problem, self.outputs, block)

    def _push(self, parts: list[Tensor], *, batched: bool) -> Tensor:
        shape = (len(parts[0]), *self.at.shape) if batched else self.at.shape
        if not self._bent:
            return self.at.new_zeros(shape)
        weights = [parts[place].to(g.dtype) for place, g in self._bent]
        with refusing("differentiation of the gradient"):
            (found,) = torch.autograd.grad(
                [g for _, g in self._bent], self.at, weights, retain_graph=True,
                allow_unused=True, is_grads_batched=batched,
            )  # fmt: skip
        return self.at.new_zeros(shape) if found is None else found.detach()


def tangents(problem: Problem, v: Tensor) -> list[Tensor]:
    """V (D,) or (c, D) as tensors like the selected parameters, or c of each."""
    placed = v.to(problem.dtype)
    return [
        placed[..., e.start : e.stop].reshape((*v.shape[:-1], *e.shape))
        for e in problem.selection.entries
    ]


def noise(like: Tensor, seed: int) -> Tensor:
    """Standard normal entries in the shape, type and place of a tensor."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.detach())


def disagreement(passage: Passage) -> float:
    """How far ⟨c, J r⟩ is from ⟨Jᵀc, r⟩ for random c and r, relative to |c| |J r|.

    Jᵀ is ordinary differentiation of the model, so that this is the witness of J.
    """
    r = noise(passage.problem.theta, 3)
    found = passage.push(r)
    if isinstance(passage, Doubled):
        return mismatch(passage.at.detach(), found, passage.image, r)
    c = noise(found, 4)
    return mismatch(c, found, passage.pull(c), r)


def mismatch(c: Tensor, image: Tensor, pulled: Tensor, v: Tensor) -> float:
    """|⟨c, J v⟩ − ⟨Jᵀc, v⟩| relative to |c| |J v|."""
    gap = abs(float((c * image).sum()) - float(pulled @ v))
    scale = float(c.norm() * image.norm())
    return gap / scale if scale else (math.inf if gap else 0.0)


def shadow(evaluator: Evaluator, parts: Sequence[Tensor]) -> Evaluator:
    """The evaluator with dual numbers for the selected parameters."""
    clone = copy.copy(evaluator)
    with warnings.catch_warnings():
        # The first dual number of a process has PyTorch load rules that it compiles so.
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        duals = {
            name: forward_mode.make_dual(leaf, part)  # type: ignore[no-untyped-call]
            for (name, leaf), part in zip(evaluator.leaves.items(), parts, strict=True)
        }
    clone.values = {**evaluator.values, **duals}
    return clone


def unpacked(dual: Tensor) -> tuple[Tensor, Tensor | None]:
    """A dual number's value and tangent."""
    h, found = forward_mode.unpack_dual(dual)  # type: ignore[no-untyped-call]
    return h, found


def graph_pull(problem: Problem, outputs: Outputs, c: Tensor, *, retain: bool) -> Tensor:
    """Jᵀ c through the graph of the outputs: (D,), float64."""
    leaves = problem.evaluator.leaves
    # A model that can be differentiated at all may still refuse it beside dual numbers.
    with refusing("reverse mode"):
        found = differentiate(outputs.h, list(leaves.values()), c, retain=retain)
    return gathered(problem, found, outputs.h)


def graph_pull_block(problem: Problem, outputs: Outputs, block: Tensor) -> Tensor:
    """The same for a block (c, n, m), together: (c, D)."""
    leaves: Any = problem.evaluator.leaves
    found = torch.autograd.grad(
        outputs.h, list(leaves.values()), block, retain_graph=True, allow_unused=True,
        is_grads_batched=True,
    )  # fmt: skip
    return gathered_block(problem, found, block)


def gathered(problem: Problem, found: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Gradients at the parameters as one vector (D,), float64; 0 for None."""
    out = empty(problem.parameters, device=like.device)
    for part, g in zip(problem.selection.split(out).values(), found, strict=True):
        part.zero_() if g is None else part.copy_(g)
    return out


def gathered_block(problem: Problem, found: Sequence[Tensor | None], block: Tensor) -> Tensor:
    """The same for c gradients at each: (c, D)."""
    out = empty(len(block), problem.parameters, device=block.device)
    for entry, g in zip(problem.selection.entries, found, strict=True):
        part = out[:, entry.start : entry.stop]
        part.zero_() if g is None else part.copy_(g.reshape(len(block), -1))
    return out
