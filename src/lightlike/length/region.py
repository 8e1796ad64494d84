"""The effective dimension of a region of parameter space, from the spectra at draws of it.

With F̂ = D F / E_Θ[tr F] and κ = γ n / (2π log n), γ ∈ (0, 1],

    d_{γ,n} = 2 log( E_{θ~Θ} √det(I + κ F̂(θ)) ) / log κ

(Abbas et al. 2021, arXiv 2011.00027; Θ a ball around θ̂ in the local version, arXiv 2112.04807). As
n → ∞ it tends to the largest rank in the region. The eigenvalues of each draw are kept, not one
log-determinant: the mean trace is known only after the last draw, and every n and γ can then be
asked for. They come from the smaller of A Aᵀ and Aᵀ A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import PriorError, SamplingError, choice_error
from lightlike.length.priors import Prior
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_positive, check_whole, is_finite
from lightlike.problem.problem import Problem
from lightlike.progress import Progress
from lightlike.results import Result, fields_of

# Fewer draws that carry the mean, and one of them more or less decides it.
FEWEST_DRAWS = 10.0


@dataclass(frozen=True)
class EffectiveDimension(Result):
    """d_{γ,n} of a region, with its standard error.

    Attributes:
        value: d_{γ,n}.
        stderr: By the delta method, for the mean of √det and the mean trace together; 0, up to
            rounding, where the metric is the same all over the region.
        observations: n.
        gamma: γ.
        kappa: κ = γ n / (2π log n).
        draws: Points of the region that were taken.
        effective_draws: How many of them carry the mean: (Σ w)² / Σ w², w = √det(I + κ F̂).
        largest_rank: Of the metric over the draws; what the value tends to as n grows.
        mean_trace: E_Θ[tr F].
        parameters: D.
        region: What Θ is.
        spectra: Non-zero eigenvalues of F at each draw.
        kind: Always "estimated".
    """

    value: float
    stderr: float
    observations: int
    gamma: float
    kappa: float
    draws: int
    effective_draws: float
    largest_rank: int
    mean_trace: float
    parameters: int
    region: dict[str, Any]
    spectra: tuple[Tensor, ...] = field(repr=False, compare=False)
    kind: str = "estimated"

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return (
            f"d = {self.value:.4g} ± {self.stderr:.2g} of D = {self.parameters:,} (estimated at "
            f"n = {self.observations:,}; largest rank {self.largest_rank:,}, "
            f"{self.effective_draws:,.0f} effective draws)"
        )

    def at(self, n: int, gamma: float | None = None) -> EffectiveDimension:
        """The same region seen with n observations, from the spectra at hand.

        Raises:
            ChoiceError: if κ ≤ 1.
            SamplingError: if too few draws carry the mean there.
        """
        chosen = self.gamma if gamma is None else gamma
        return effective_dimension_of(self.spectra, self.parameters, n, chosen, self.region)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the spectra, by name."""
        return fields_of(self, "spectra")


def effective_dimension_of(
    spectra: tuple[Tensor, ...], parameters: int, n: int, gamma: float, region: dict[str, Any]
) -> EffectiveDimension:
    """d_{γ,n} from the non-zero eigenvalues at each draw.

    With ℓ_j = ½ Σ_k log(1 + c λ_jk), c = κ D / T̄ and T̄ the mean trace, log Ê = log mean exp ℓ_j. A
    draw's influence on it is w_j − 1 − g (T_j/T̄ − 1), where w_j = e^{ℓ_j}/Ê and g is the mean of
    w_j ½ Σ_k c λ_jk / (1 + c λ_jk), as c falls when the mean trace rises.

    Raises:
        ChoiceError: if κ ≤ 1 or γ is not in (0, 1].
        SamplingError: if the trace is zero at every draw, or too few draws carry the mean.
    """
    kappa = scale_of(n, gamma)
    traces = torch.stack([values.sum() for values in spectra])
    mean_trace = float(traces.mean())
    if not mean_trace > 0.0:
        raise SamplingError(
            f"The metric is zero at all {len(spectra)} draws.",
            "It is normalised by its mean trace, which is zero.",
            "Check that the model's output depends on the selected parameters in that region.",
        )
    c = kappa * parameters / mean_trace
    half = torch.stack([0.5 * torch.log1p(c * values).sum() for values in spectra])
    weights = torch.softmax(half, 0)
    effective = 1.0 / float(weights.square().sum())
    if effective < min(FEWEST_DRAWS, len(spectra)) * (1.0 - 1e-9):
        raise SamplingError(
            f"The mean of √det(I + κ F̂) rests on {effective:.1f} of {len(spectra)} draws.",
            "One draw more could change it, and its standard error would not tell.",
            f"Take more draws until {FEWEST_DRAWS:.0f} of them carry it, a smaller region, or a "
            "smaller n.",
        )
    counts = torch.stack([0.5 * (c * v / (1.0 + c * v)).sum() for v in spectra])
    slope = float(weights @ counts)
    influence = len(spectra) * weights - 1.0 - slope * (traces / mean_trace - 1.0)
    unit = 2.0 / math.log(kappa)
    return EffectiveDimension(
        value=unit * (float(torch.logsumexp(half, 0)) - math.log(len(spectra))),
        stderr=unit * float(influence.std()) / math.sqrt(len(spectra)),
        observations=n,
        gamma=gamma,
        kappa=kappa,
        draws=len(spectra),
        effective_draws=effective,
        largest_rank=max(len(values) for values in spectra),
        mean_trace=mean_trace,
        parameters=parameters,
        region=region,
        spectra=spectra,
    )


def scale_of(n: int, gamma: float) -> float:
    """κ = γ n / (2π log n).

    Raises:
        ChoiceError: if γ is not in (0, 1], or κ ≤ 1.
    """
    if not is_finite(gamma) or not 0.0 < gamma <= 1.0:
        raise choice_error("gamma", gamma, ["a number above 0, at most 1"])
    check_whole("n", n, 1)
    kappa = gamma * n / (2.0 * math.pi * math.log(n)) if n > 1 else 0.0
    if not kappa > 1.0 or not math.isfinite(kappa):
        raise choice_error(
            "n", n, [f"a number with γ n / (2π log n) above 1 (it is {kappa:.3g} here)"]
        )
    return kappa


def spectra_of(F: Fisher, points: Tensor, progress: Progress) -> tuple[Tensor, ...]:
    """The non-zero eigenvalues of Î at each of some points (R, D)."""
    found = []
    for point in progress.track(points, "Spectra of draws", len(points)):
        found.append(F.at(point).decomposition().spectrum.eigenvalues.cpu())
    return tuple(found)


def draw_ball(problem: Problem, radius: float, draws: int, seed: int) -> Tensor:
    """Points (R, D) uniform in the ball of a radius around θ̂.

    Raises:
        ChoiceError: if the radius is not a finite number above 0.
    """
    check_positive("radius", radius)
    theta = problem.theta
    generator = torch.Generator().manual_seed(int(seed))
    z = torch.randn(draws, len(theta), generator=generator, dtype=torch.float64)
    u = torch.rand(draws, 1, generator=generator, dtype=torch.float64)
    away = (
        float(radius)
        * u.pow(1.0 / len(theta))
        * z
        / torch.linalg.vector_norm(z, dim=1, keepdim=True)
    )
    points: Tensor = theta + away.to(theta.device)
    return points


def draw_prior(problem: Problem, prior: Prior, draws: int, seed: int) -> Tensor:
    """Points (R, D) from a prior.

    Raises:
        PriorError: if it does not fit, or its variance is to be fitted to the data.
    """
    if prior.by_evidence:
        raise PriorError(
            "Variances of the prior are to be fitted to the data.",
            "The region must be fixed before its dimension can be taken.",
            "Give them as numbers.",
        )
    resolved = prior.resolve(problem)
    generator = torch.Generator().manual_seed(int(seed))
    z = torch.randn(draws, len(resolved.mean), generator=generator, dtype=torch.float64)
    points: Tensor = resolved.mean + resolved.variance.sqrt() * z.to(resolved.mean.device)
    return points
