"""Vector-Jacobian products: one row vector at a time, or many in one batched backward pass."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from lightlike.errors import ModelError
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator, Outputs
from lightlike.problem.problem import Problem

# Relative error of a directional derivative by differences, below which it is one; and a step at
# which ReLU networks have few kinks left where they had too many.
HONEST, SHORT = 0.01, 1e-8

Targets = Sequence[GradientEdge | Tensor]


def vjp(evaluator: Evaluator, outputs: Outputs, cotangent: Tensor) -> Tensor:
    """Jᵀ c for the flattened outputs' Jacobian J and c (observations, m): (D,), as float64."""
    leaves = evaluator.leaves
    gradients = differentiate(outputs.h, list(leaves.values()), cotangent, retain=False)
    return evaluator.selection.flatten(
        {
            name: torch.zeros_like(leaf) if g is None else g
            for (name, leaf), g in zip(leaves.items(), gradients, strict=True)
        }
    ).double()


def whitening(problem: Problem, outputs: Outputs) -> Tensor:
    """L_i / √N of every observation, (observations, m, r); zero for those that do not count."""
    root = problem.score_roots(outputs) / math.sqrt(problem.survey.observations)
    return root if outputs.observed is None else root * outputs.observed[:, None, None]


def whitened_vjp(problem: Problem, outputs: Outputs, u: Tensor) -> Tensor:
    """Aᵀ u for the rows of one batch, u one number a row: (D,)."""
    return vjp(problem.evaluator, outputs, whitened_cotangents(problem, outputs, u[:, None])[0])


def whitened_cotangents(problem: Problem, outputs: Outputs, u: Tensor) -> Tensor:
    """L_i u_i / √N of one batch's observations for u (rows, c): (c, observations, m)."""
    root = whitening(problem, outputs)
    full = given = u.view(outputs.count, root.shape[-1], u.shape[-1])
    if outputs.observed is not None:
        full = root.new_zeros(len(root), *given.shape[1:])
        full[outputs.observed] = given
    return (root @ full).permute(2, 0, 1)


def gradient(problem: Problem) -> Tensor:
    """∇ NLL_total(θ) = Σ_i ∇ −log p(y_i | x_i, θ), (D,); needs labels.

    Raises:
        ModelError: if a derivative is not finite.
    """
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
    check_derivatives(problem, total)
    return total


def check_derivatives(problem: Problem, image: Tensor) -> None:
    """Raise a ModelError, with the parameters' names, unless back-propagated (D,) are finite."""
    parts = problem.selection.split(image).items()
    wrong = [name for name, part in parts if not bool(torch.isfinite(part).all())]
    if wrong:
        more = f" and {len(wrong) - 5:,} others" if len(wrong) > 5 else ""
        raise ModelError(
            f"The gradient of the model's outputs is not finite for {', '.join(wrong[:5])}{more}.",
            "The metric is made of these derivatives, and would be infinite or undefined.",
            "Look for √x or |x|^p at 0, for norms of zeros and for what overflows; a small "
            "constant inside, or another point, keeps derivatives finite.",
        )


def gradient_error(evaluator: Evaluator, batch: Batch, step: float = 1e-6) -> float:
    """Relative difference between PyTorch's gradient and the change of the outputs themselves.

    In one random direction: ⟨c, h(θ + εv) − h(θ − εv)⟩ / 2ε against ⟨Jᵀc, v⟩, in units
    of |Jᵀc| |v| / √D. Zero up to about 1e-6, unless an operation's gradient is not its derivative
    (straight-through estimators, scaled or detached parts).
    """
    generator = torch.Generator().manual_seed(0)

    def draw(like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return drawn.to(like.device)

    output = evaluator.raw(batch)
    c = draw(output)
    leaves = evaluator.leaves
    gradients = differentiate(output, list(leaves.values()), c, retain=False)
    size = max(float(leaf.detach().square().mean().sqrt()) for leaf in leaves.values()) or 1.0
    total = squares = count = 0.0
    shifted = {+1: dict(evaluator.values), -1: dict(evaluator.values)}
    for (name, leaf), g in zip(leaves.items(), gradients, strict=True):
        v = draw(leaf)
        for sign, values in shifted.items():
            values[name] = leaf.detach() + sign * step * size * v
        if g is not None:
            total += float((g * v).sum())
            squares += float(g.square().sum())
        count += leaf.numel()
    with torch.no_grad():
        rise = evaluator.raw(batch, shifted[+1]) - evaluator.raw(batch, shifted[-1])
    change = float((rise * c).sum()) / (2 * step * size)
    return abs(change - total) / squares**0.5 if squares else 0.0


def differentiate(
    h: Tensor, targets: Targets, cotangent: Tensor, *, retain: bool
) -> Sequence[Tensor | None]:
    """Gradients of ⟨h, cotangent⟩ at the targets; None where h does not depend on one.

    Raises:
        ModelError: if PyTorch cannot differentiate the model.
    """
    if not h.requires_grad:
        return [None] * len(targets)
    try:
        found = torch.autograd.grad(
            h, cast(Any, targets), cotangent, retain_graph=retain, allow_unused=True
        )
        # Embeddings made with sparse=True give sparse gradients.
        return [g.to_dense() if g is not None and g.is_sparse else g for g in found]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(
            f"PyTorch cannot differentiate the model: {type(error).__name__}: {error}.",
            "The metric is made of derivatives; training would fail in the same place.",
            "Use out-of-place operations, and switch gradient checkpointing off.",
        ) from error


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
        if self.batched and len(cotangents) > 1 and h.requires_grad:
            try:
                return self._together(h, targets, cotangents)
            except RuntimeError:
                # Some operation has no batching rule. The loop gives the same numbers; if it
                # fails too, its error is the one to see.
                self.batched = False
        single = [differentiate(h, targets, c, retain=True) for c in cotangents]
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
