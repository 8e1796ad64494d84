"""Real labels with Gaussian noise, of known or predicted variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, ModelError
from lightlike.problem.likelihoods.base import Diagonal, bregman

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Gaussian(Diagonal):
    """Independent N(h, s²) for every output, s² known: Λ = I/s², root I/s.

    Args:
        variance: The noise variance s² > 0.
    """

    variance: float = 1.0
    name: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        real = isinstance(self.variance, Real)
        if not (real and math.isfinite(self.variance) and self.variance > 0):
            raise ChoiceError(
                f"Gaussian(variance={self.variance!r}) has no density.",
                "The noise variance divides every residual.",
                "Give a finite number above 0.",
            )

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """½ Σ_j [(y_j − h_j)²/s² + log 2πs²]: (n, m), (n, m) -> (n,)."""
        squares = (outputs - targets).square().sum(-1) / self.variance
        return 0.5 * (squares + outputs.shape[-1] * (LOG_2PI + math.log(self.variance)))

    def deviations(self, outputs: Tensor) -> Tensor:
        """1/s, (n, m) -> (n, m)."""
        return torch.full_like(outputs, 1.0 / math.sqrt(self.variance))

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels (n, m)."""
        return outputs + math.sqrt(self.variance) * _normal_like(outputs, generator)

    def divergence(self, start: Tensor, outputs: Tensor) -> Tensor:
        """½ Σ_j (h_j − g_j)²/s², g = start: (n, m), (n, m) -> (n,)."""
        return 0.5 * (outputs - start).square().sum(-1) / self.variance

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {"name": self.name, "variance": self.variance}


@dataclass(frozen=True)
class HeteroscedasticGaussian(Diagonal):
    """N(μ, e^v) with mean and log-variance heads, h = (μ_1..μ_q, v_1..v_q).

    The score's covariance in (μ, v) is diag(e^{−v}, ½); its root is the square root of that. The
    parametrisation is not the natural one, so the metric is the Fisher matrix and not the
    generalised Gauss–Newton matrix's Hessian reading.
    """

    name: ClassVar[str] = "heteroscedastic_gaussian"

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """½ Σ_j [(y_j − μ_j)² e^{−v_j} + v_j + log 2π]: (n, 2q), (n, q) -> (n,)."""
        mean, log_variance = outputs.chunk(2, -1)
        squares = (targets - mean).square() * (-log_variance).exp()
        return 0.5 * (squares + log_variance + LOG_2PI).sum(-1)

    def deviations(self, outputs: Tensor) -> Tensor:
        """(e^{−v/2}, √½), (n, 2q) -> (n, 2q)."""
        log_variance = outputs.chunk(2, -1)[1]
        half = torch.full_like(log_variance, math.sqrt(0.5))
        return torch.cat([(-0.5 * log_variance).exp(), half], -1)

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels (n, q)."""
        mean, log_variance = outputs.chunk(2, -1)
        return mean + (0.5 * log_variance).exp() * _normal_like(mean, generator)

    def divergence(self, start: Tensor, outputs: Tensor) -> Tensor:
        """½ Σ_j [e^{u_j − v_j} − 1 − (u_j − v_j) + (μ_j − ν_j)² e^{−v_j}]: (n, 2q) twice -> (n,).

        Here (ν, u) = start and (μ, v) = outputs are means and log-variances.
        """
        (first, u), (mean, v) = start.chunk(2, -1), outputs.chunk(2, -1)
        return 0.5 * (
            bregman(torch.zeros_like(u), u - v) + (mean - first).square() * (-v).exp()
        ).sum(-1)

    def target_width(self, width: int) -> int:
        """Half the outputs are means."""
        return width // 2

    def check_outputs(self, width: int) -> None:
        """An even number of outputs."""
        if width % 2:
            raise ModelError(
                f"The model gives {width} outputs for each observation.",
                "Mean and log-variance heads come in pairs: first all means, then all "
                "log-variances.",
                "Give the model an even number of outputs, or use Gaussian(variance=...).",
            )


def _normal_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
