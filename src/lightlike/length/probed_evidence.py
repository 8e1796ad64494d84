"""The variance of N(μ, σ²I) that maximises the evidence, from random probes.

Probes of Î know ½ log det(I + N σ² Î) at every σ² at once, and Lanczos steps from one vector the
displacement (`lightlike.length.displacements`), so that the razor L(t), t = log σ², is an estimated
curve with an error ε(t) of which the displacement has none. At its minimum t̂, to first order,

    t̂ − t* = −ε′/L″,     ε′ = error of ½ γ,     γ = Σ cλ/(1 + cλ), c = N σ²,

where t* is where L itself is least. The least value is in error by ε − ½ ε′²/L″: it is stationary,
and the fit costs it nothing to first order. The complexity alone moves with t̂: it is in error, as
an estimate of that under the best variance, by ε − ½ γ ε′/L″, and the displacement the other way.
All of these are sums over eigenvalues, with the errors that the probes give any sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from lightlike.errors import EstimateError, PriorError
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.displacements import Displacements
from lightlike.length.evidence import best_variance
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.length.priors import Isotropic
from lightlike.problem.problem import Problem
from lightlike.spectrum.density import Density
from lightlike.spectrum.enclosed import Enclosed

# Standard error of log σ² up to which errors to first order are believed.
LINEAR = 0.5
# Factors of σ² between which no other is certain to be better.
APART = math.log(10.0)


@dataclass(frozen=True)
class ProbedVariance:
    """A variance fitted to an estimated evidence.

    Attributes:
        value: σ̂².
        log_stderr: Standard error of log σ̂², by chance.
        complexity: ½ log det(I + N σ² Î) at σ̂², with the error it has as an estimate of that under
            the variance which maximises the evidence itself.
        effective_dimension: γ at σ̂², likewise.
        total_stderr: Standard error of the razor as an estimate of the least one.
    """

    value: float
    log_stderr: float
    complexity: Enclosed
    effective_dimension: Enclosed
    total_stderr: float

    def under(self, prior: ResolvedPrior) -> ResolvedPrior:
        """The prior with this variance."""
        return replace(
            prior,
            variance=torch.full_like(prior.variance, self.value),
            tuned=1,
            description={
                **prior.description,
                "variance": self.value,
                "fitted_by": "evidence",
                "log_variance_stderr": self.log_stderr,
            },
        )


def check_fitted(prior: Prior, problem: Problem, gradient: Tensor | None) -> Tensor:
    """The gradient that the evidence of one variance takes.

    Raises:
        PriorError: if the prior has more than that to be fitted, or there are no labels.
    """
    if not isinstance(prior, Isotropic):
        raise PriorError(
            f"Variances of {type(prior).__name__} are not fitted by stochastic quadrature.",
            "Each change of them is a change of the matrix, whose probes would begin anew.",
            "Fit one with Isotropic('evidence'), give them as numbers, or use an exact method.",
        )
    if gradient is None or problem.survey.nll is None:
        raise PriorError(
            "Isotropic('evidence') needs labels.",
            "The evidence is the probability of the labels.",
            "Pass labels, or give the variance as a number.",
        )
    return gradient


def fit_probed_variance(
    density: Density, displacements: Displacements, observations: int
) -> ProbedVariance:
    """The σ² at which the estimated razor is least, and what chance leaves open of it.

    Steps are added to the displacement until it is known to a thousandth of a nat there, and no σ²
    ten times larger or smaller is better, whatever they leave open.

    Args:
        density: Of Î.
        displacements: At any σ².
        observations: N.

    Raises:
        PriorError: if the razor falls all the way to σ² → 0 or ∞.
        EstimateError: if chance moves the fitted variance too far for errors to first order.
    """

    @cache  # the grid of the search is the same every time
    def complexity(t: float) -> float:
        return density.logdet(observations * math.exp(t)).times(0.5).value

    while True:
        t = math.log(best_variance(lambda t: complexity(t) + displacements.bounds(t)[1]))
        low, high = displacements.bounds(t)
        least = complexity(t) + high - TOLERANCE
        beside = (t - APART, t + APART)
        sure = all(complexity(s) + displacements.bounds(s)[0] >= least for s in beside)
        if (sure and high - low <= TOLERANCE) or displacements.finished:
            break
        displacements.advance()
    c = observations * math.exp(t)
    dimension = density.effective_dimension(1.0 / c)
    # γ grows with t by Σ cλ/(1 + cλ)².
    growth = density.sum(lambda x: c * x / (1.0 + c * x).square(), positive=True)
    curvature = 0.5 * growth.value + displacements.curvature(t)
    if not curvature > 0.0:
        raise _left_to_chance(math.inf)
    log_stderr = 0.5 * dimension.stderr / curvature
    if not log_stderr <= LINEAR:
        raise _left_to_chance(log_stderr)
    moved = 0.5 * dimension.value / curvature
    fixed = density.logdet(c).times(0.5)
    whole = density.sum(
        lambda x: 0.5 * torch.log1p(c * x) - 0.5 * moved * c * x / (1.0 + c * x), positive=False
    )
    # ½ ε′²/L″ has a mean of half, and a variance of half the square, of Var(ε′)/L″.
    bent = log_stderr**2 * curvature
    return ProbedVariance(
        value=math.exp(t),
        log_stderr=log_stderr,
        complexity=replace(fixed, stderr=whole.stderr, positive=False),
        # γ is in error by 2ε′ − ε′ Σ cλ/(1 + cλ)²/L″.
        effective_dimension=replace(
            dimension, stderr=dimension.stderr * abs(1.0 - 0.5 * growth.value / curvature)
        ),
        total_stderr=math.hypot(fixed.stderr, math.sqrt(0.75) * bent),
    )


def _left_to_chance(error: float) -> EstimateError:
    return EstimateError(
        f"The variance that maximises the evidence is left to chance: its logarithm has a standard "
        f"error of {error:.2g}.",
        "The fitted variance, and the length with it, would not have the error that is told.",
        "Take more probes, Quadrature(probes=...), or give the variance as a number.",
    )
