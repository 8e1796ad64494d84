"""What lengths that are estimated from random draws have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, choice_error
from lightlike.length.prior import ResolvedPrior
from lightlike.numbers import is_whole
from lightlike.problem.problem import Problem


@dataclass(frozen=True)
class LogMean:
    """Log of the mean of positive numbers that are given by their logarithms.

    Attributes:
        value: log (1/n) Σ exp v_j.
        stderr: Its standard error by the delta method: that of the mean over the mean.
        effective: (Σ w)²/Σ w², w = exp v: draws of equal weight that tell as much.
    """

    value: float
    stderr: float
    effective: float

    @staticmethod
    def of(logs: Tensor) -> LogMean:
        """From v (n,), n ≥ 2."""
        weights = (logs - logs.max()).exp()
        mean = float(weights.mean())
        stderr = float(weights.std()) / (mean * math.sqrt(len(logs)))
        effective = float(weights.sum()) ** 2 / float(weights.square().sum())
        return LogMean(float(logs.max()) + math.log(mean), stderr, effective)


def prior_draws(prior: ResolvedPrior, draws: int, seed: int) -> Iterator[Tensor]:
    """Independent θ ~ N(μ, Σ), each (D,), the same whatever the device."""
    generator = torch.Generator().manual_seed(int(seed))
    for _ in range(draws):
        noise = torch.randn(len(prior.mean), generator=generator, dtype=torch.float64)
        yield prior.mean + prior.variance.sqrt() * noise.to(prior.mean.device)


def check_draws(draws: int, *, fewest: int = 2, even: bool = False, option: str = "draws") -> None:
    """Raise a ChoiceError unless there are enough."""
    if not is_whole(draws) or draws < fewest or (even and draws % 2):
        kind = "an even number" if even else "a whole number"
        raise choice_error(option, draws, [f"{kind}, {fewest} or more"])


def check_precision(problem: Problem) -> None:
    """Raise a ChoiceError unless the problem is in float64."""
    if problem.dtype != torch.float64:
        raise ChoiceError(
            "This length is computed in float64 only, and the Fisher matrix is in float32.",
            "What float32 makes of every draw is not known.",
            "Make it with lightlike.fisher(..., dtype='float64').",
        )
