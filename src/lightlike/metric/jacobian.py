"""Vector-Jacobian products: one row vector at a time, or many in one batched backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from lightlike.problem.evaluation import Evaluator, Outputs
from lightlike.problem.problem import Problem


def vjp(evaluator: Evaluator, outputs: Outputs, cotangent: Tensor) -> Tensor:
    """Jᵀ c for the flattened outputs' Jacobian J and c (observations, m): (D,)."""
    leaves = evaluator.leaves
    gradients = torch.autograd.grad(
        outputs.h, list(leaves.values()), cotangent, allow_unused=True, materialize_grads=True
    )
    return evaluator.selection.flatten(dict(zip(leaves, gradients, strict=True)))


def gradient(problem: Problem) -> Tensor:
    """∇ NLL_total(θ) = Σ_i ∇ −log p(y_i | x_i, θ), (D,); needs labels."""
    total = torch.zeros_like(problem.theta)
    for _, outputs in problem.sweep("Gradient"):
        if outputs.targets is None:
            continue
        h = outputs.h.detach().requires_grad_(True)
        nll = problem.likelihood.nll(h, outputs.targets)
        if outputs.observed is not None:
            nll = nll[outputs.observed]
        (score,) = torch.autograd.grad(nll.sum(), h)
        total += vjp(problem.evaluator, outputs, score)
    return total


Targets = Sequence[GradientEdge | Tensor]


class Backward:
    """Many vector-Jacobian products at once; one by one for models that vmap cannot follow.

    Attributes:
        batched: Whether products are still taken together.
    """

    def __init__(self) -> None:
        self.batched = True

    def __call__(self, h: Tensor, targets: Targets, cotangents: Tensor) -> list[Tensor | None]:
        """Gradients at the targets for each of k cotangents (k, *h.shape): (k, ...) each.

        None for a target that the output does not depend on.
        """
        if self.batched and len(cotangents) > 1:
            try:
                return self._together(h, targets, cotangents)
            except RuntimeError:
                # Some operation has no batching rule. The loop gives the same numbers; if it
                # fails too, its error is the one to see.
                self.batched = False
        single = [
            torch.autograd.grad(h, cast(Any, targets), c, retain_graph=True, allow_unused=True)
            for c in cotangents
        ]
        return [
            None if column[0] is None else torch.stack([c for c in column if c is not None])
            for column in zip(*single, strict=True)
        ]

    @staticmethod
    def _together(h: Tensor, targets: Targets, cotangents: Tensor) -> list[Tensor | None]:
        with warnings.catch_warnings():
            # An operation without a batching rule is looped over inside: slower, still exact.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = torch.autograd.grad(
                h,
                cast(Any, targets),
                cotangents,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
        return list(found)
