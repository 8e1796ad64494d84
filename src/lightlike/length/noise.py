"""The noise variance of a Gaussian likelihood by the evidence.

In prior units at a noise variance s², let h_k be the eigenvalues of N Σ^½ Î Σ^½, p_k and q_k the
parts of Σ^½ ∇NLL and Σ^{-½}(θ̂ − μ) along their eigenvectors, and M the number of labels. At ρ s²

    L(ρ) = R/ρ + (M/2) log ρ + ½ Σ_k [c_k²/(ρ + h_k) + log(1 + h_k/ρ)] + const,
    c_k = p_k/√h_k − √h_k q_k,   R = ½ Σ (y − h)²/s² − ½ Σ_k p_k²/h_k,

where R ≥ 0 is what the best linear fit leaves. For a linear model this is the exact evidence
(MacKay 1992, doi:10.1162/neco.1992.4.3.415).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import minimize_scalar

from lightlike.errors import DataError, EstimateError, choice_error
from lightlike.length.arguments import check_fisher
from lightlike.length.description import DescriptionLength
from lightlike.length.draws import check_precision
from lightlike.length.eigenbasis import eigenbasis
from lightlike.length.evidence import settle
from lightlike.length.gaussian import (
    Expansion,
    expand,
    in_prior_units,
    razor_under,
    scaled_by,
    shift_frozen,
)
from lightlike.length.layer_evidence import LOG_RANGE
from lightlike.length.priors import Prior, ResolvedPrior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.problem.likelihoods import Gaussian
from lightlike.results import Result, fields_of

# Rounds between the noise and a prior that is fitted too, and the change of log s² that ends them.
ROUNDS, SETTLED = 200, 1e-7
# A smaller share of the squared residuals is what rounding leaves of a perfect fit.
NOTHING = 1e-12


@dataclass(frozen=True)
class NoiseVariance(Result):
    """A noise variance that maximises the evidence.

    Attributes:
        variance: s².
        length: The Gaussian razor at it; its `tuning_cost` counts ½ log N for s².
        fisher: The Fisher matrix at it, for further questions.
    """

    variance: float
    length: DescriptionLength
    fisher: Fisher

    def __float__(self) -> float:
        return self.variance

    def to_dict(self) -> dict[str, Any]:
        """The variance, and the length at it, in plain Python types."""
        return fields_of(self, "fisher")

    def _records(self) -> list[dict[str, Any]]:
        return [{"variance": self.variance, **row} for row in self.length._records()]


def noise_variance(F: Fisher, *, prior: Prior | None = None) -> NoiseVariance:
    """The s² of N(h, s² I) under which the labels have the shortest Gaussian razor.

    Args:
        F: From `lightlike.fisher` with a Gaussian likelihood of any variance, labels, in float64.
        prior: From `lightlike.priors`, N(0, I) unless given; one that is fitted by the
            evidence is fitted together with s², in turns.

    Raises:
        ChoiceError: for another likelihood, or a prior that is none.
        DataError: without labels.
        EstimateError: if the razor falls all the way to s² → 0 or ∞, or turns do not settle.
        PriorError: if the prior does not fit, or its evidence has no maximum.
    """
    check_fisher(F)
    prior = resolve_prior(prior)
    likelihood = F.problem.likelihood
    if type(likelihood) is not Gaussian:
        raise choice_error("likelihood", likelihood, ["Gaussian(variance=...)"])
    check_precision(F.problem)
    variance = likelihood.variance
    for _ in range(ROUNDS):
        expansion = expand(F.problem)
        if expansion.gradient is None:
            raise DataError(
                "A noise variance is fitted to labels, and there are none.",
                "Outputs alone say nothing about the noise.",
                "Pass labels, or give the variance as a number.",
            )
        resolved = settle(F.problem, prior, F.decomposition(), expansion.gradient)
        factor = best_factor(F, resolved, expansion)
        variance *= factor
        F = Fisher(Root(F.problem.under(Gaussian(variance)), F.root.weights, F.root.layer))
        if not prior.by_evidence or abs(math.log(factor)) <= SETTLED:
            return _at(F, variance, prior)
    raise EstimateError(
        f"Noise and prior variance had not settled after {ROUNDS} turns (s² = {variance:.4g}).",
        "The evidence is nearly the same along a line of both.",
        "Give the prior's variance as a number.",
    )


def best_factor(F: Fisher, prior: ResolvedPrior, expansion: Expansion) -> float:
    """The ρ that minimises L(ρ): what to multiply the noise variance by."""
    problem = F.problem
    n = problem.survey.observations
    labels = n * problem.survey.width
    assert isinstance(problem.likelihood, Gaussian)
    assert expansion.nll is not None
    assert expansion.gradient is not None
    root, scaled, scale = scaled_by(prior, F.decomposition(), n)
    nll, g = shift_frozen(problem, prior, root, expansion.nll, expansion.gradient)
    both = torch.stack(in_prior_units(problem, prior, g), 1)
    basis = eigenbasis(scaled, root, scale / n)
    h = n * basis.values
    q, p = basis.parts(both).T
    squares = nll - 0.5 * labels * math.log(2 * math.pi * problem.likelihood.variance)
    left = squares - 0.5 * float((p.square() / h).sum())
    left = 0.0 if left <= NOTHING * squares else left
    c = (p / h.sqrt() - h.sqrt() * q).square()

    def razor(log_factor: float) -> float:
        rho = math.exp(log_factor)
        seen = float((c / (rho + h) + torch.log1p(h / rho)).sum())
        return left / rho + 0.5 * labels * log_factor + 0.5 * seen

    grid = torch.linspace(-LOG_RANGE, LOG_RANGE, 241, dtype=torch.float64).tolist()
    found = [razor(t) for t in grid]
    best = min(range(len(found)), key=found.__getitem__)
    if best in (0, len(grid) - 1):
        towards = "0" if best == 0 else "infinity"
        raise EstimateError(
            f"The evidence has no maximum: it grows as the noise variance goes to {towards}.",
            "The model fits the labels without any noise."
            if best == 0
            else "The residuals are beyond all bounds.",
            "Give the variance as a number, a narrower prior, or more observations.",
        )
    bounds = (grid[best - 1], grid[best + 1])
    result = minimize_scalar(razor, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    return math.exp(float(result.x))


def _at(F: Fisher, variance: float, prior: Prior) -> NoiseVariance:
    expansion, decomposition = expand(F.problem), F.decomposition()
    resolved = settle(F.problem, prior, decomposition, expansion.gradient)
    length = razor_under(F.problem, resolved, decomposition, expansion).settled()
    cost = 0.5 * math.log(length.observations)
    described = {**length.prior, "noise_variance": variance, "noise_fitted_by": "evidence"}
    length = replace(length, tuning_cost=length.tuning_cost + cost, prior=described)
    return NoiseVariance(variance, length, F)
