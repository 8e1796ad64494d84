"""n L_n(θ) = −Σ log p(y_i | x_i, θ) and its gradient, at several points of parameter space at once.

The points go through the model together, by `torch.vmap`, where the model allows it: for small
networks the time of a pass is that of starting its operations, not that of their numbers. Whether
it does is found out at the first points: both ways must give the same numbers there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import DataError
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import output_of
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

# Largest relative difference of the two ways, which order their sums differently.
SAME = 1e-9


@dataclass(frozen=True)
class Labelled:
    """A batch on the model's device with its labels flattened to observations.

    Attributes:
        batch: Inputs.
        targets: Labels (samples · positions, ...).
        counted: Places of the observations that count, or None if all do.
    """

    batch: Batch
    targets: Tensor
    counted: Tensor | None


class Potential:
    """θ (C, D) ↦ n L_n(θ) in nats (C,) and ∇ n L_n(θ) (C, D), float64, for any likelihood.

    Where the model or the loss is not finite, n L_n is ∞ and the gradient 0.

    Args:
        problem: Model, data with labels, likelihood. The inputs are kept in memory.

    Raises:
        DataError: if there are no labels.

    Attributes:
        together: Whether all points go through the model in one pass; None before the first call.
    """

    def __init__(self, problem: Problem) -> None:
        problem = problem.reference
        if problem.survey.nll is None:
            raise DataError(
                "The data have no labels.",
                "Without them there is no loss whose minimum could be measured.",
                "Pass (x, y), or batches with labels.",
            )
        self.problem = problem
        with isolated(), torch.no_grad():
            self.batches = [
                Labelled(batch, outputs.targets, _places(outputs.observed))
                for batch, outputs in problem.sweep("Keeping the data")
                if outputs.targets is not None
            ]
            # Some models write to their buffers.
            self._fixed = {k: v.clone() for k, v in problem.evaluator.values.items()}
        self.together: bool | None = None

    @property
    def observations(self) -> int:
        """The number n of observations that count."""
        return self.problem.survey.observations

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Value and gradient at points (C, D)."""
        if self.together is None:
            self.together = self._agree(points)
        return self._finite(*self._differentiate(self.losses, points))

    def losses(self, labelled: Labelled, points: Tensor) -> Tensor:
        """−Σ log p over one batch at points (C, D), part of the autograd graph: (C,)."""
        return (self._batched if self.together else self._in_turn)(labelled, points)

    def _agree(self, points: Tensor) -> bool:
        """Whether one pass for all points works and gives what passes one by one give."""
        expected = self._finite(*self._differentiate(self._in_turn, points))
        try:
            found = self._finite(*self._differentiate(self._batched, points))
        except Exception:
            # Whatever vmap does not support, in code that is not ours: one by one it has worked.
            return False
        return all(
            bool(((a == b) | ((a - b).abs() <= SAME * (a.abs().amax(-1, True) + 1.0))).all())
            for a, b in zip(expected, found, strict=True)
        )

    def _differentiate(
        self, way: Callable[[Labelled, Tensor], Tensor], points: Tensor
    ) -> tuple[Tensor, Tensor]:
        leaf = points.detach().clone().requires_grad_(True)
        total, gradient = points.new_zeros(len(points)), torch.zeros_like(points)
        for labelled in self.batches:
            losses = way(labelled, leaf)
            total += losses.detach()
            gradient += torch.autograd.grad(losses.sum(), leaf)[0]
        return total, gradient

    def _finite(self, total: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        bad = ~(torch.isfinite(total) & torch.isfinite(gradient).all(-1))
        return total.masked_fill(bad, torch.inf), gradient.masked_fill(bad[:, None], 0.0)

    def _batched(self, labelled: Labelled, points: Tensor) -> Tensor:
        one: Callable[[Tensor], Tensor] = lambda point: self._loss(labelled, point)  # noqa: E731
        return torch.vmap(one)(points)

    def _in_turn(self, labelled: Labelled, points: Tensor) -> Tensor:
        return torch.stack([self._loss(labelled, point) for point in points])

    def _loss(self, labelled: Labelled, point: Tensor) -> Tensor:
        """−Σ log p over one batch at one point (D,)."""
        problem, likelihood = self.problem, self.problem.likelihood
        values = {**self._fixed, **problem.selection.split(point)}
        raw = output_of(problem.evaluator.forward(labelled.batch, values)).double()
        h = raw.unsqueeze(-1) if raw.ndim == 1 else raw.movedim(likelihood.output_dim, -1)
        nll = likelihood.nll(h.reshape(-1, h.shape[-1]), labelled.targets)
        return (nll if labelled.counted is None else nll[labelled.counted]).sum()


def _places(observed: Tensor | None) -> Tensor | None:
    return None if observed is None else observed.nonzero()[:, 0]
