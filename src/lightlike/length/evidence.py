"""Numbers of a prior that are fitted to the labels: empirical Bayes.

Where the razor is exact (linear models with Gaussian noise) its minimum over a variance is MacKay's
fixed point σ² = |m − μ|²/γ, m the posterior mean and γ the number of parameters that the data
determine (doi:10.1162/neco.1992.4.3.415).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from lightlike.errors import PriorError
from lightlike.length.eigenbasis import eigenbasis
from lightlike.length.layer_descent import fit_layers
from lightlike.length.layer_evidence import LOG_RANGE
from lightlike.length.layerwise import PerLayer
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.length.priors import Isotropic
from lightlike.metric.root import Root
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition


def settle(
    problem: Problem, prior: Prior, decomposition: Decomposition, gradient: Tensor | None
) -> ResolvedPrior:
    """The prior with everything in it fitted that is to be.

    Args:
        problem: Model, data and likelihood at θ̂.
        prior: See `lightlike.priors`.
        decomposition: Of A itself.
        gradient: ∇NLL_total(θ̂), None without labels.

    Raises:
        PriorError: if the prior does not fit, its evidence has no maximum, or it is one of one's
            own that says it is to be fitted.
    """
    resolved = prior.resolve(problem)
    if not prior.by_evidence:
        return resolved
    if not isinstance(prior, Isotropic | PerLayer):
        raise PriorError(
            f"How the evidence fits a {type(prior).__name__} is not known.",
            "Of a prior of one's own nothing says which numbers may move.",
            "Give them, or take Isotropic('evidence') or PerLayer('evidence').",
        )
    if isinstance(prior, PerLayer) and _is_sketch(decomposition):
        raise PriorError(
            "Variances of layers are not fitted to sketches.",
            "A sketch misses a part of the gradient of every layer.",
            "Give the variances as numbers, or fit one with Isotropic('evidence').",
        )
    if gradient is None:
        raise PriorError(
            f"{type(prior).__name__}('evidence') needs labels.",
            "The evidence is the probability of the labels.",
            "Pass labels, or give the variance as a number.",
        )
    if not isinstance(prior, PerLayer):
        return fit_variance(problem, resolved, decomposition, gradient)
    try:
        start = fit_variance(problem, resolved, decomposition, gradient).variance[0]
    except PriorError:
        # One variance for all may have no best value where each layer's has.
        start = resolved.variance.new_ones(())
    groups = prior.groups(problem.selection)
    return fit_layers(problem, resolved, groups, decomposition, gradient, float(start))


def fit_variance(
    problem: Problem, prior: ResolvedPrior, decomposition: Decomposition, gradient: Tensor
) -> ResolvedPrior:
    """The σ² that minimises the razor of N(μ, σ² I): empirical Bayes for one number.

    Where it is exact (linear Gaussian models) the minimum is MacKay's fixed point σ² = |m − μ|²/γ
    with m the posterior mean (doi:10.1162/neco.1992.4.3.415).

    Raises:
        PriorError: if the razor falls all the way to σ² → 0 or ∞.
    """
    variance = best_variance(evidence_curve(problem, prior, decomposition, gradient))
    return replace(
        prior,
        variance=torch.full_like(prior.variance, variance),
        tuned=1,
        description={**prior.description, "variance": variance, "fitted_by": "evidence"},
    )


def best_variance(razor: Callable[[float], float]) -> float:
    """The σ² at which a razor, a function of log σ², is least.

    Raises:
        PriorError: if it falls all the way to σ² → 0 or ∞.
    """
    grid = torch.linspace(-LOG_RANGE, LOG_RANGE, 121, dtype=torch.float64)
    values = [razor(float(t)) for t in grid]
    best = min(range(len(values)), key=values.__getitem__)
    if best in (0, len(values) - 1):
        towards = "0" if best == 0 else "infinity"
        raise PriorError(
            f"The evidence has no maximum: it grows as the prior variance goes to {towards}.",
            "At this point the labels do not determine how far θ lies from the prior mean.",
            "Give the variance as a number, or another prior mean.",
        )
    found = minimize_scalar(
        razor,
        bounds=(float(grid[best - 1]), float(grid[best + 1])),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return math.exp(float(found.x))


def evidence_curve(
    problem: Problem, prior: ResolvedPrior, decomposition: Decomposition, g: Tensor
) -> Callable[[float], float]:
    """The razor as a function of log σ², up to a constant, in the eigenbasis of Aᵀ A.

    g lies in the row space of A because scores lie in the range of their covariance; what rounding
    puts elsewhere is left out. A sketch of A misses a part g_? of it, which adds −½ |g_?|²/τ.
    """
    delta = problem.theta - prior.mean
    root = decomposition.factor
    assert isinstance(root, Root)
    basis = eigenbasis(decomposition, root)
    both = basis.parts(torch.stack([g, delta], 1))
    missed = 0.0
    if _is_sketch(decomposition):
        missed = max(0.0, float(g @ g - both[:, 0] @ both[:, 0]))
    h = problem.survey.observations * basis.values
    return curve_of(h, both[:, 0], both[:, 1], missed)


def curve_of(
    h: Tensor, gradient: Tensor, displacement: Tensor, missed: float = 0.0
) -> Callable[[float], float]:
    """The razor as a function of log σ², up to a constant, from parts along eigenvectors.

    With p = vᵀg, q = vᵀδ along an eigenvector v and τ = 1/σ², the terms that depend on τ are
    ½ N λ τ (q − p/(N λ))² / (N λ + τ) + ½ log(1 + N λ/τ): the likelihood peaks at q − p/(N λ).

    Args:
        h: N λ, (d,).
        gradient: p, (d,).
        displacement: q, (d,).
        missed: |g_?|².
    """
    squares = (displacement - gradient / h).square()

    def razor(log_variance: float) -> float:
        tau = math.exp(-log_variance)
        seen = float((h * tau / (h + tau) * squares + torch.log1p(h / tau)).sum())
        return 0.5 * (seen - missed / tau)

    return razor


def _is_sketch(decomposition: Decomposition) -> bool:
    """Whether a decomposition is of a sketch of A."""
    factor = decomposition.factor
    return isinstance(factor, Root) and factor.problem.draws is not None
