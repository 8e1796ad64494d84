"""The interpolating razor: a prior between the Gaussian and Jeffreys'.

p(θ) ∝ exp(−½ δᵀΣ⁻¹δ) det(Î(θ) + εI)^½ adds to the Gaussian razor

    log E_{θ~N(μ,Σ)} det(I + Î(θ)/ε)^½ − ½ log det(I + Î(θ̂)/ε)

(arXiv 1905.11027). ε → ∞ is the Gaussian prior; ε → 0, then Σ → ∞ is Jeffreys' (the order matters).
Parameters that the prior holds at their mean are no coordinates here: det is over the others.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lightlike.errors import EstimateError
from lightlike.length.arguments import check_fisher
from lightlike.length.description import DescriptionLength
from lightlike.length.draws import LogMean, check_draws, check_precision, prior_draws
from lightlike.length.evidence import settle
from lightlike.length.gaussian import expand, razor_under
from lightlike.length.priors import Prior, ResolvedPrior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.numbers import check_positive, check_seed
from lightlike.spectrum.decomposition import decompose

# Effective draws below which, and standard errors above which, in nats, an estimate says nothing.
FEWEST, LARGEST = 5.0, 0.5
REMEDY = "Take more draws, a larger epsilon, or a narrower prior."


def interpolating(
    F: Fisher, *, prior: Prior | None = None, epsilon: float, draws: int = 100, seed: int = 0
) -> DescriptionLength:
    """The razor under p(θ) ∝ exp(−½ δᵀΣ⁻¹δ) det(Î(θ) + εI)^½, with its standard error.

    Each draw θ ~ N(μ, Σ) takes one Gram matrix and one Cholesky factorisation, as the Gaussian
    razor does once.

    Args:
        F: From `lightlike.fisher`; in float64.
        prior: Its Gaussian part, from `lightlike.priors`; N(0, I) unless given.
        epsilon: ε > 0, in the units of eigenvalues of Î.
        draws: Of θ, 2 or more.
        seed: Of the draws.

    Returns:
        A `DescriptionLength` with `prior_term`, `stderr` and `effective_draws`.

    Raises:
        ChoiceError: if ε is not a positive number, prior or seed are none, or there are fewer than
            two draws.
        EstimateError: if the draws say nothing of the mean: few of them make up nearly all of it,
            or θ̂, though a likely point of the prior, lies where none of them does.
        PriorError: if the prior does not fit.
    """
    check_fisher(F)
    check_draws(draws)
    check_positive("epsilon", epsilon)
    check_seed(seed)
    prior = resolve_prior(prior)
    check_precision(F.problem)
    problem, expansion, decomposition = F.problem, expand(F.problem), F.decomposition()
    resolved = settle(problem, prior, decomposition, expansion.gradient)
    length = razor_under(problem, resolved, decomposition, expansion).settled()
    here = half_logdet(F, resolved, epsilon)
    stage = problem.progress.track(
        prior_draws(resolved, draws, seed), "Draws from the prior", draws
    )
    found = [half_logdet(F.at(theta), resolved, epsilon) for theta in stage]
    mean = LogMean.of(torch.tensor(found, dtype=torch.float64))
    if mean.effective < FEWEST or mean.stderr > LARGEST:
        raise EstimateError(
            f"Of {draws:,} draws from the prior, {mean.effective:.1f} are all that counts: "
            f"log E det(I + Î/ε)^½ = {mean.value:.4g} ± {mean.stderr:.2g}.",
            "The mean is made of a few rare draws, and of rarer ones that have not been seen: even "
            "its standard error means nothing.",
            REMEDY,
        )
    if here - improbability(F, resolved) > mean.value + math.log(draws):
        raise EstimateError(
            f"At θ̂, a likely point of the prior, ½ log det(I + Î/ε) is {here:.4g}; of {draws:,} "
            f"draws the log mean is {mean.value:.4g}.",
            "Regions like that of θ̂ would make up the mean, and no draw has fallen into one.",
            REMEDY,
        )
    return replace(
        length,
        prior_term=mean.value - here,
        stderr=mean.stderr,
        kind="estimated",
        prior={**length.prior, "epsilon": float(epsilon), "draws": draws, "seed": seed},
        name="interpolating",
        effective_draws=mean.effective,
        validity=(
            "Laplace's approximation, off by O(1/N) where the metric is regular; the standard "
            "error is that of the prior's normaliser, whose tail may hold rare draws not seen yet."
        ),
    )


def improbability(F: Fisher, prior: ResolvedPrior) -> float:
    """How much less log-density θ̂ has under the prior than a typical draw, or 0 if it has more."""
    free = prior.variance > 0
    delta = (F.problem.theta - prior.mean)[free]
    return max(0.0, 0.5 * float((delta.square() / prior.variance[free] - 1.0).sum()))


def half_logdet(F: Fisher, prior: ResolvedPrior, epsilon: float) -> float:
    """½ log det(I + Î/ε) over the parameters that have a variance."""
    free = prior.variance > 0
    if bool(free.all()):
        return 0.5 * F.decomposition().spectrum.logdet(1.0 / epsilon)
    root: Root = F.root.scaled(free.to(torch.float64))
    return 0.5 * decompose(root).spectrum.logdet(1.0 / epsilon)
