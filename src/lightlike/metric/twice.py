"""Products with the root for models that can be differentiated twice, and whether they can.

Then J v comes from differentiating u ↦ Jᵀu, which is linear, once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightlike.errors import ModelError
from lightlike.metric.jacobian import vjp, whitening
from lightlike.problem.evaluation import Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem


def root_product(problem: Problem, v: Tensor) -> Tensor:
    """A v for one vector (D,), (K,) float64, without a row of A; see `differentiable_twice`.

    Raises:
        ModelError: if an operation of the model cannot be differentiated twice.
    """
    problem = problem.reference
    with isolated(), twice():
        parts, found = problem.selection.split(v), []
        for _, outputs in problem.sweep("Products with the root"):
            image = _image(problem, outputs, parts)
            rows = (whitening(problem, outputs) * image.unsqueeze(-1)).sum(1)
            found.append(rows if outputs.observed is None else rows[outputs.observed])
        return torch.cat(found).flatten()


def differentiable_twice(problem: Problem) -> bool:
    """Whether second derivatives can be had: ⟨c, J v⟩ = ⟨Jᵀc, v⟩ for random c, v on a batch.

    A backward pass that PyTorch cannot differentiate raises an error; one that only seems to be
    differentiable, such as that of a custom function with detached parts, fails the comparison.
    """
    problem = problem.reference
    with isolated(), twice():
        outputs = problem.evaluator.outputs(next(problem.batches()))
        generator = torch.Generator().manual_seed(0)
        v, c = (
            torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)
            for like in (problem.theta, outputs.h)
        )
        try:
            image = _image(problem, outputs, problem.selection.split(v))
        except ModelError:
            return False
        found, expected = float((c * image).sum()), float(vjp(problem.evaluator, outputs, c) @ v)
        return abs(found - expected) <= 1e-6 * float(c.norm() * image.norm())


@contextmanager
def twice() -> Iterator[None]:
    """Have PyTorch take the kernels whose backward passes can be differentiated."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield


def _image(problem: Problem, outputs: Outputs, parts: dict[str, Tensor]) -> Tensor:
    """J_i v of every observation, (n, m); keeps the graph."""
    h = outputs.h
    leaves = problem.evaluator.leaves
    u = torch.zeros_like(h, requires_grad=True)
    try:
        pulled = torch.autograd.grad(
            h, list(leaves.values()), u, create_graph=True, allow_unused=True
        )
        inner = [
            (g * parts[name].to(g)).sum()
            for name, g in zip(leaves, pulled, strict=True)
            if g is not None and g.requires_grad
        ]
        if not inner:
            return torch.zeros_like(h)
        (found,) = torch.autograd.grad(inner, u, retain_graph=True, allow_unused=True)
        return torch.zeros_like(h) if found is None else found.detach()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(
            f"An operation cannot be differentiated twice: {error}.",
            "Products with the Fisher matrix come from differentiating a gradient.",
            "Use operations that have a double backward.",
        ) from error
