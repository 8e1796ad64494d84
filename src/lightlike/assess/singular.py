"""Questions to a neighbourhood in parameter space, answered by sampling it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lightlike.errors import CapacityError, choice_error
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.coefficient import LearningCoefficient, SingularLength
from lightlike.length.priors import Prior, resolve_prior
from lightlike.length.region import (
    EffectiveDimension,
    draw_ball,
    draw_prior,
    effective_dimension_of,
    scale_of,
    spectra_of,
)
from lightlike.length.singular import Settings, estimate
from lightlike.metric.fisher import Fisher, fisher
from lightlike.numbers import check_seed, check_whole
from lightlike.problem.likelihoods import Likelihood
from lightlike.progress import Progress


def learning_coefficient(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    *,
    parameters: str | Sequence[str] | None = None,
    seed: int = 0,
    chains: int = 4,
    draws: int = 1000,
    burn_in: int = 500,
    temperature: float | Sequence[float] | None = None,
    localisation: float = 1.0,
    method: str = "reference",
    sampler: str = "hmc",
    steps: int = 20,
    step_size: float | str = "auto",
    rank: bool = True,
    progress: str | bool | Progress = False,
) -> LearningCoefficient:
    """The local learning coefficient λ̂ of a model at its present point θ̂, a minimum of the loss.

    λ̂ = n β (E_β[L_n] − L_n(θ̂)), with E_β the mean over p_β(θ) ∝ exp(−β n L_n(θ) − ½ γ |θ − θ̂|²)
    (Watanabe 2013, arXiv 1208.6338; Lau et al. 2023, arXiv 2308.12108), all gradients on the whole
    data. At a regular point with γ → 0 this is D/2; where directions change nothing, or only at
    higher order, it is less.

    λ̂ is the slope of the free energy in log n at the finite n β that was used, which differs from
    its limit λ by about (m − 1)/log(n β) where the multiplicity m exceeds 1 (for a b x at the
    origin it is 0.41 at n β = 10⁴, λ = 0.5) and by powers of 1/(n β) elsewhere. That difference is
    no part of the standard error, but of `interval(multiplicity=m)`; method="limit" estimates it.

    Where the loss is quadratic, or nearly, its noise is known from gradients and taken off the mean
    (`lightlike.length.controls`). The mean of D − w·∇U, 0 in equilibrium, checks the chains.

    Args:
        model: Any module that PyTorch can differentiate; it is left as it was found.
        data: With labels; see `lightlike.measure`. The inputs are kept in memory.
        likelihood: A name, or an object from `lightlike.likelihoods`.
        parameters: None (all that require grad), a regular expression on names, or a list.
        seed: Of all random numbers.
        chains: Independent chains; where the model allows it they share each pass.
        draws: Recorded draws of each chain.
        burn_in: Draws before, in which step size and scales are adapted; then they are fixed.
        temperature: Inverse temperature β; 1/log n unless given. Of "limit" the coldest of four, a
            factor of 4 apart, or three and more as a list.
        localisation: γ, the precision of the Gaussian that holds the chains near θ̂. A direction
            counts once n β times its eigenvalue of Î exceeds γ.
        method: "reference", as above, or "difference": the slope of E[n L_n] in the temperature,
            λ̂ = (E_{β/2}[n L_n] − E_{2β}[n L_n]) / (2/β − 1/(2β)), which needs no loss at θ̂ and so
            no minimum there, for a larger error and twice the time. "limit": λ̂(t) at several
            temperatures, whose chains change places, extrapolated to t = n β → ∞. Where the rank at
            θ̂ is that nearby, it goes as 1/t; elsewhere it is the mean over laws that fit, powers of
            t and that of m = 2, and the standard error has what they differ by, a few percent.
            Wide apart temperatures tell most: a factor of 10³ or more.
        sampler: "hmc" (Hamiltonian trajectories) or "mala" (one Langevin step), both corrected by a
            Metropolis step and so without bias by the step size. "sgld" walks by the gradients of
            single batches, as the data come, without that correction: for large data, and biased
            by its step size in a way that its standard error does not tell.
        steps: Most leapfrog steps of a trajectory.
        step_size: "auto" to adapt it (0.1 for "sgld"), or a number in units of each coordinate's
            spread (for "sgld" it multiplies the squared unit).
        rank: Whether to compute `rank_bound`, half the largest rank at θ̂ and at a draw.
        progress: "auto", True or False.

    Returns:
        λ̂ with its standard error, R̂, effective sample size and more in `diagnostics`, `wbic`, and
        `length()`, the free energy as a code length.

    Raises:
        SamplingError: if chains disagree (R̂ > 1.1) or are not in equilibrium, too few draws count,
            θ̂ is visibly not a minimum, or the estimate is negative beyond its error.
        ChoiceError: for an unknown choice or a number out of range.
        CapacityError: if the rank does not fit in memory.
        ModelError, DataError, ParameterError, DeterminismError: if the parts do not fit.
    """
    if sampler not in ("hmc", "mala", "sgld"):
        raise choice_error("sampler", sampler, ["'hmc'", "'mala'", "'sgld'"])
    if isinstance(step_size, str) and step_size != "auto":
        raise choice_error("step_size", step_size, ["'auto'", "a finite number above 0"])
    mala = sampler == "mala"
    settings = Settings(
        chains=chains,
        draws=draws,
        burn_in=burn_in,
        temperature=temperature,
        localisation=localisation,
        steps=1 if mala else steps,
        step_size=None if isinstance(step_size, str) else step_size,
        # The best rates for many dimensions: Roberts & Rosenthal 1998; Beskos et al. 2013.
        acceptance=0.574 if mala else 0.8,
        method=method,
        batches=sampler == "sgld",
        seed=seed,
    )
    F = fisher(model, data, likelihood, parameters)
    # Before any time is spent: this raises if no route fits.
    here = _rank(F) if rank else None
    found, last = estimate(F.problem, settings, Progress.resolve(progress))
    if here is not None:
        there = _rank(F.at(last))
        found = replace(
            found,
            rank=0.5 * here.value if here.kind == "exact" else None,
            rank_bound=0.5 * max(here.upper, there.upper),
        )
    return found.at_limit() if method == "limit" else found


def singular(coefficient: LearningCoefficient, *, multiplicity: int = 1) -> SingularLength:
    """The length n L_n(θ̂) + λ̂ log n − (m − 1) log log n of the singular free energy, up to O(1).

    Args:
        coefficient: From `lightlike.learning_coefficient`.
        multiplicity: m, which is not estimated.

    Returns:
        Its terms and their standard error, in nats; `.to("bits")`.

    Raises:
        ChoiceError: if m is not a whole number from 1 up, or the coefficient is none.
    """
    if not isinstance(coefficient, LearningCoefficient):
        wanted = "what lightlike.learning_coefficient(model, data, likelihood) returns"
        raise choice_error("coefficient", coefficient, [wanted])
    return coefficient.length(multiplicity)


def effective_dimension(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    *,
    parameters: str | Sequence[str] | None = None,
    prior: Prior | None = None,
    radius: float | None = None,
    gamma: float = 1.0,
    n: int | None = None,
    draws: int = 100,
    seed: int = 0,
    progress: str | bool | Progress = False,
) -> EffectiveDimension:
    """The effective dimension d_{γ,n} of a region of parameter space (Abbas et al. 2021).

    d_{γ,n} = 2 log( E_{θ~Θ} √det(I + κ F̂(θ)) ) / log κ with F̂ = D F / E_Θ[tr F] and
    κ = γ n / (2π log n) (arXiv 2011.00027; local: arXiv 2112.04807). The two-scale effective
    dimension (arXiv 2401.09184) is not offered: its formula could not be checked against a source.

    Args:
        model: Any module that PyTorch can differentiate; it is left as it was found.
        data: See `lightlike.measure`; labels are not needed.
        likelihood: A name, or an object from `lightlike.likelihoods`.
        parameters: None (all that require grad), a regular expression on names, or a list.
        prior: Θ is drawn from it; from `lightlike.priors`.
        radius: Θ is the ball of this radius around the present point, uniformly; 1/√n if neither
            it nor a prior is given.
        gamma: γ ∈ (0, 1].
        n: The number of observations N unless given.
        draws: Points of Θ, two or more.
        seed: Of the draws.
        progress: "auto", True or False.

    Returns:
        The dimension with its standard error; `.at(n)` for other n from the same draws.

    Raises:
        ChoiceError: if κ ≤ 1, the radius is not positive, or both a radius and a prior are given.
        SamplingError: if the metric is zero all over, or fewer than 10 draws carry the mean.
        PriorError: if the prior does not fit, or something in it is to be fitted.
        CapacityError: if no exact route fits in memory.
    """
    check_whole("draws", draws, 2)
    check_seed(seed)
    if prior is not None and radius is not None:
        raise choice_error("radius", radius, ["None, as a prior is given"])
    F = fisher(model, data, likelihood, parameters)
    n = F.problem.survey.observations if n is None else n
    scale_of(n, gamma)
    region: dict[str, Any]
    points: Tensor
    if prior is not None:
        points = draw_prior(F.problem, resolve_prior(prior), draws, seed)
        region = {"name": "prior", **{f"prior_{k}": v for k, v in prior.describe().items()}}
    else:
        radius = 1.0 / math.sqrt(n) if radius is None else radius
        points = draw_ball(F.problem, radius, draws, seed)
        region = {"name": "ball", "radius": radius}
    spectra = spectra_of(F, points, Progress.resolve(progress))
    return effective_dimension_of(spectra, F.problem.parameters, n, gamma, region)


def _rank(F: Fisher) -> Dimension:
    """The rank at a point.

    Raises:
        CapacityError: if no exact route fits.
    """
    try:
        return dimension_of(F.decomposition().spectrum)
    except CapacityError as error:
        raise CapacityError(
            error.what, error.why, f"{error.remedy} Or pass rank=False, which leaves it out."
        ) from error
