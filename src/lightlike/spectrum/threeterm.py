"""Lanczos steps that keep three vectors: the bare recurrence, without reorthogonalisation.

    β_{j+1} v_{j+1} = F v_j − α_j v_j − β_j v_{j−1},   α_j = v_jᵀ (F v_j − β_j v_{j−1}),

in this order of operations, which is the stable one (Paige 1972, doi:10.1093/imamat/10.3.373). The
v_j are orthogonal to their neighbours only: as eigenvalues converge, rounding brings their vectors
back, and T has copies of them. Its eigenvalues and weights remain as good as those of the exact
process on a matrix whose eigenvalues stand in tiny clusters about those of F (Greenbaum 1989,
doi:10.1016/0024-3795(89)90285-1), so that quadrature goes on to converge, and which eigenvalues
are copies can be told: see `lightlike.spectrum.distinct`.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from lightlike.spectrum.recurrence import ASYMMETRY, REMAINS, asymmetric
from lightlike.spectrum.tridiagonal import Measure

# A next direction that is shorter than this many rounding units of F is nothing but rounding.
NOTHING = 32.0


class Stretching(Protocol):
    """A symmetric matrix that notes what it is asked."""

    precision: float

    @property
    def largest(self) -> float:
        """The largest stretch seen."""

    def __matmul__(self, v: Tensor) -> Tensor:
        """F v."""


class ThreeTerm:
    """A Lanczos recurrence from one vector, which keeps that of this step and of the one before.

    Args:
        operator: F, (n, n).
        start: (n,), not zero; it is normalised, in a copy.

    Attributes:
        steps: Steps that were taken.
        finished: Whether what comes next is nothing but rounding: the measure is known.
    """

    def __init__(self, operator: Stretching, start: Tensor) -> None:
        self.operator = operator
        self.steps, self.finished = 0, False
        self._alphas: list[float] = []
        self._betas: list[float] = []
        self._scale = 0.0
        self._now = start / length(start)
        self._before = torch.zeros_like(start)

    @property
    def vector(self) -> Tensor:
        """The v that the next step multiplies, (n,)."""
        return self._now

    def advance(self) -> None:
        """One step.

        Raises:
            EstimateError: if a product is not finite, or the matrix not symmetric.
        """
        image = self.operator @ self._now
        now, rest = self._now, self._before
        before = self._betas[-1] if self._betas else 0.0
        back = float(rest @ image)
        # In place of the vector before, which is not needed any more: memory is what counts here.
        rest.mul_(-before).add_(image)
        del image
        alpha = float(now @ rest)
        rest.sub_(now, alpha=alpha)
        beta = length(rest)
        self._scale = max(self._scale, abs(alpha) + beta + before)
        if self.steps:
            # Products are in error by rounding of the largest stretch along any vector.
            scale = max(self._scale, REMAINS * self.operator.largest, 1e-300)
            # The shorter a direction was, the more of the one before has rounding left in it.
            rounding = NOTHING * self.operator.precision
            stretch = max(scale, self.operator.largest)
            allowed = max(ASYMMETRY, 1e2 * rounding * stretch / scale, rounding * stretch / before)
            asymmetric(abs(back - before) / scale, allowed)
        self.steps += 1
        self.finished = beta <= NOTHING * self.operator.precision * self._scale
        self._alphas.append(alpha)
        self._betas.append(0.0 if self.finished else beta)
        if not self.finished:
            self._now, self._before = rest.div_(beta), now

    def measures(self) -> list[Measure]:
        """What is known of the start's measure; one, as of a block of one."""
        alphas, betas = (torch.tensor(v, dtype=torch.float64) for v in (self._alphas, self._betas))
        return [Measure(alphas, betas, self.operator.precision, orthogonal=False)]


def length(v: Tensor) -> float:
    """‖v‖, without a copy of v unless squares of its entries are too small or large for a float."""
    unit = float(torch.linalg.vector_norm(v, math.inf)) if v.numel() else 0.0
    if unit == 0.0 or 1e-140 < unit < 1e140:
        return float(torch.linalg.vector_norm(v))
    return unit * float(torch.linalg.vector_norm(v / unit))
