"""What a model predicted at a starting point, and how far its predictions elsewhere are from that.

The distance is the mean over observations of KL(p(· | x_i, θ_0) ‖ p(· | x_i, θ)), in nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightlike.errors import ModelError
from lightlike.metric.jacobian import whitening
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator, Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem


@dataclass(frozen=True)
class Fidelity:
    """Predictions at two points of parameter space, held against each other and against labels.

    Attributes:
        observations: How many count.
        divergence: Mean KL from the first point's predictions to the second's, nats.
        nll_before: Nats per observation at the first point; None without labels.
        nll_after: The same at the second.
        accuracy_before: Share of labels that were the most probable ones; None without labels or
            where labels are not a choice.
        accuracy_after: The same at the second.
    """

    observations: int
    divergence: float
    nll_before: float | None
    nll_after: float | None
    accuracy_before: float | None
    accuracy_after: float | None


class Start:
    """The outputs (N, m) of a problem at its own point, kept to compare others with.

    Attributes:
        problem: The problem at its starting point θ_0.
        outputs: Of each batch, without gradients.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.outputs = self.present(problem)

    @staticmethod
    def present(problem: Problem) -> list[Outputs]:
        """Outputs of each batch at a problem's own point, checked against its survey."""
        with isolated(problem.dtype), torch.no_grad():
            return [replace(o, h=o.h.detach()) for _, o in problem.sweep("Predictions")]

    def at(self, theta: Tensor) -> list[Tensor] | None:
        """Outputs of each batch at θ (D,); None where some are not finite."""
        problem = self.problem
        evaluator = problem.evaluator.at(problem.selection.split(theta))
        with isolated(problem.dtype), torch.no_grad():
            try:
                return [evaluator.outputs(batch).h for batch in problem.batches()]
            except ModelError:
                # It runs at the start, so it is the numbers that have run away here.
                return None

    def divergence(self, outputs: Sequence[Tensor] | None) -> float:
        """Mean KL from the start's predictions, nats per observation; infinite for None."""
        if outputs is None:
            return math.inf
        total = 0.0
        for start, h in zip(self.outputs, outputs, strict=True):
            found = _counted(self.problem.likelihood.divergence(start.h, h), start)
            total += float(found.sum())
        # A divergence of NaN would pass every comparison with a budget.
        return math.inf if math.isnan(total) else total / self.problem.survey.observations

    def residual(
        self, problem: Problem, present: Sequence[Outputs], outputs: Sequence[Tensor]
    ) -> Tensor:
        """N^{-1/2} [L_iᵀ (h_i − h_i(θ_0))], (K,), with the score roots L_i at another point.

        Half its square is the divergence to second order.

        Args:
            problem: At the point whose L_i whiten.
            present: The outputs there.
            outputs: h of each batch.
        """
        rows = []
        with isolated(problem.dtype), torch.no_grad():
            for start, here, h in zip(self.outputs, present, outputs, strict=True):
                change = (h - start.h).unsqueeze(-1)
                white = (whitening(problem, here).mT @ change).squeeze(-1)
                rows.append(_counted(white, start).reshape(-1))
        return torch.cat(rows)

    def fidelity(self, theta: Tensor, data: Iterable[Batch] | None = None) -> Fidelity:
        """Predictions at θ against the start's, on these data or others."""
        problem = self.problem
        end = problem.evaluator.at(problem.selection.split(theta))
        with isolated(problem.dtype), torch.no_grad():
            return _fidelity(problem.evaluator, end, problem.batches() if data is None else data)


def _fidelity(start: Evaluator, end: Evaluator, batches: Iterable[Batch]) -> Fidelity:
    likelihood, count = start.likelihood, 0
    totals: list[list[float | None]] = []
    for read in batches:
        batch = read.to(start.device, start.dtype)
        before, after = start.outputs(batch), end.outputs(batch)
        count += before.count
        found: list[Tensor | None] = [likelihood.divergence(before.h, after.h)]
        labels = before.targets
        for judge in (likelihood.nll, likelihood.correct):
            for h in (before.h, after.h):
                found.append(None if labels is None else judge(h, labels))
        totals.append([None if f is None else float(_counted(f, before).sum()) for f in found])
    means = [
        None if None in column or not count else sum(x for x in column if x is not None) / count
        for column in zip(*totals, strict=True)
    ]
    return Fidelity(count, math.nan if means[0] is None else means[0], *means[1:])


def _counted(values: Tensor, outputs: Outputs) -> Tensor:
    return values if outputs.observed is None else values[outputs.observed]
