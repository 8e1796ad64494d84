"""The observed information: the Hessian of the negative log-likelihood at the labels seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import CapacityError, ModelError, UndefinedError
from lightlike.metric.jacobian import Backward
from lightlike.metric.twice import differentiable_twice, twice
from lightlike.problem.evaluation import Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

# Parameters up to which D second backward passes and a D × D matrix are affordable.
LARGEST = 2000
# Second backward passes taken together.
TOGETHER = 256
# Eigenvalues of the Hessian within this share of the largest are taken as zero.
NULL = 1e-9


@dataclass(frozen=True)
class Observed:
    """Second-order expansion of the mean negative log-likelihood.

    Attributes:
        hessian: 𝒥 = ∇² NLL / N, (D, D), float64.
        gradient: ∇ NLL / N, (D,).
        nll: NLL_total.
        observations: N.
    """

    hessian: Tensor
    gradient: Tensor
    nll: float
    observations: int

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of 𝒥, ascending, and eigenvectors in columns."""
        values, vectors = torch.linalg.eigh(self.hessian)
        return values, vectors

    def decrement(self, values: Tensor, vectors: Tensor) -> float:
        """Nats between here and the minimum of the quadratic picture: (N/2) gᵀ𝒥⁺g.

        Raises:
            UndefinedError: if an eigenvalue is negative, so that there is no minimum.
        """
        floor = NULL * float(values.abs().max())
        if float(values[0]) < -floor:
            raise UndefinedError(
                f"The Hessian of the loss has the eigenvalue {float(values[0]):.3g} (largest "
                f"{float(values[-1]):.3g}).",
                "The point is no minimum, and the observed information no precision.",
                "Train on to a minimum, or use a criterion that needs none.",
            )
        keep = values > floor
        along = vectors[:, keep].T @ self.gradient
        return 0.5 * self.observations * float((along.square() / values[keep]).sum())


def observe(problem: Problem, what: str) -> Observed:
    """The Hessian by double backward, D backward passes through the gradient's graph a batch.

    Args:
        problem: With labels; taken in float64.
        what: The length that needs it, for messages.

    Raises:
        UndefinedError: without labels.
        CapacityError: if D is more than 2,000.
        ModelError: if an operation cannot be differentiated twice.
    """
    problem = problem.reference
    require_second_derivatives(problem)
    nll, n, size = require_labels(problem, what), problem.survey.observations, problem.parameters
    if size > LARGEST:
        raise CapacityError(
            f"The Hessian of {size:,} parameters has {size:,}² entries.",
            f"It takes as many backward passes a batch; up to {LARGEST:,} are taken.",
            "Select fewer parameters, or use the Fisher matrix in its place where offered.",
        )
    hessian = torch.zeros(size, size, dtype=torch.float64, device=problem.evaluator.device)
    gradient = torch.zeros_like(problem.theta)
    with isolated(), twice():
        backward = Backward()
        for _, outputs in problem.sweep("Hessian"):
            first, second = _second_order(problem, outputs, backward)
            gradient += first
            hessian += second
    scale = float(hessian.abs().max())
    if not float((hessian - hessian.T).abs().max()) <= 1e-8 * scale:
        raise second_derivatives_error()
    return Observed(0.5 * (hessian + hessian.T) / n, gradient / n, nll, n)


def require_second_derivatives(problem: Problem) -> None:
    """Raise a ModelError if the model's gradient cannot be differentiated, or not rightly."""
    if not differentiable_twice(problem):
        raise second_derivatives_error()


def second_derivatives_error() -> ModelError:
    """The error for a backward pass that is not differentiated as what it computes."""
    return ModelError(
        "The second derivatives of the model are not those of its gradient, or there are none.",
        "Some operation's backward pass is not differentiated as what it computes.",
        "Use operations that have a double backward.",
    )


def require_labels(problem: Problem, what: str) -> float:
    """NLL_total.

    Raises:
        UndefinedError: without labels.
    """
    nll = problem.reference.survey.nll
    if nll is None:
        raise UndefinedError(
            f"The {what} needs labels, and the data have none.",
            "It is a property of the labels seen.",
            "Pass (x, y).",
        )
    return math.fsum(nll.tolist())


def _second_order(problem: Problem, outputs: Outputs, backward: Backward) -> tuple[Tensor, Tensor]:
    """Gradient (D,) and Hessian (D, D) of one batch's negative log-likelihood."""
    selection, leaves = problem.selection, problem.evaluator.leaves
    assert outputs.targets is not None
    nll = problem.likelihood.nll(outputs.h, outputs.targets)
    nll = nll if outputs.observed is None else nll[outputs.observed]
    try:
        found = torch.autograd.grad(
            nll.sum(), list(leaves.values()), create_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        raise ModelError(
            f"PyTorch cannot differentiate the model: {type(error).__name__}: {error}.",
            "The observed information is made of derivatives.",
            "Use operations that have a double backward.",
        ) from error
    named = zip(leaves.items(), found, strict=True)
    flat = selection.flatten(
        {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in named}
    ).double()
    size = selection.size
    second = flat.new_zeros(size, size)
    if flat.requires_grad:
        for start in range(0, size, TOGETHER):
            stop = min(start + TOGETHER, size)
            rows = flat.new_zeros(stop - start, size)
            rows[:, start:stop] = torch.eye(stop - start, dtype=rows.dtype, device=rows.device)
            columns = backward(flat, list(leaves.values()), rows)
            for entry, column in zip(selection.entries, columns, strict=True):
                if column is not None:
                    flat_column = column.detach().reshape(stop - start, -1)
                    second[start:stop, entry.start : entry.stop] = flat_column
    return flat.detach(), second
