"""An estimated number, its standard error, and which way it is biased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightlike.numbers import check_share
from lightlike.results import Result

Value = float | Tensor


@dataclass(frozen=True)
class Estimate(Result):
    """The mean over independent repetitions.

    Attributes:
        value: The mean; a tensor for several numbers at once.
        stderr: Standard deviation of the repetitions over the root of their number.
        degrees: Repetitions less one.
        bias: "none" if the expectation is the quantity itself, "below" if it is at most that
            (then the interval holds for a lower bound), "unknown" otherwise.
    """

    value: Value
    stderr: Value
    degrees: int
    bias: str = "none"

    @staticmethod
    def of(repetitions: Sequence[Value], bias: str = "none") -> Estimate:
        """From one value a repetition, two or more."""
        values = torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in repetitions])
        count = len(values)
        mean, stderr = values.mean(0), values.std(0) / math.sqrt(count)
        if mean.ndim == 0:
            return Estimate(float(mean), float(stderr), count - 1, bias)
        return Estimate(mean, stderr, count - 1, bias)

    def interval(self, level: float = 0.95) -> tuple[Value, Value]:
        """Student's interval for the expectation, at a level of confidence.

        It takes the repetitions as normal. Squares of a handful of observations are skewed: of
        ‖Î‖²_F from six of them, two draws each, 95 % intervals covered 87 %; from 24, 94 %.
        """
        check_share("level", level)
        reach = float(stdtrit(self.degrees, 0.5 + 0.5 * level)) * self.stderr
        return self.value - reach, self.value + reach

    def _records(self) -> list[dict[str, object]]:
        values, errors = (torch.as_tensor(v).flatten() for v in (self.value, self.stderr))
        pairs = zip(values.tolist(), errors.tolist(), strict=True)
        same = {"degrees": self.degrees, "bias": self.bias}
        return [{"value": value, "stderr": error, **same} for value, error in pairs]

    def __float__(self) -> float:
        return float(self.value)
