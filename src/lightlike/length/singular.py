"""The learning coefficient λ of a point of parameter space, by sampling.

At a singular point the evidence goes as n L_n + λ log n − (m − 1) log log n, with a learning
coefficient λ (real log canonical threshold) at most half the rank at generic nearby points, and a
multiplicity m (Watanabe 2009, doi:10.1017/CBO9780511800474). Under the posterior tempered by β and
held near θ̂ by a Gaussian of precision γ,

    p_β(θ) ∝ exp(−β n L_n(θ) − ½ γ |θ − θ̂|²),

the mean loss tells λ: n β (E_β[L_n] − L_n(θ̂)) → λ at β = 1/log n (Watanabe 2013, JMLR 14:867,
arXiv 1208.6338; localised by Lau et al. 2023, arXiv 2308.12108).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import SamplingError, choice_error
from lightlike.length.coefficient import Diagnostics, LearningCoefficient
from lightlike.length.convergence import (
    effective_sample_size,
    mean_error,
    potential_scale_reduction,
)
from lightlike.length.langevin import walk
from lightlike.length.potential import Potential
from lightlike.length.sampling import sample
from lightlike.metric.root import Root
from lightlike.numbers import check_positive, check_seed, check_whole
from lightlike.problem.draws import Draws
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.progress import Progress

# Chains that differ by more than this have not seen the same distribution.
LARGEST_RHAT = 1.1
# With fewer independent draws an error bar is itself a guess.
FEWEST_DRAWS = 50.0
# How many standard errors, and what share of the estimate, θ̂ may visibly lack of a minimum.
ERRORS, SHARE = 2.0, 0.1
# The two temperatures of the difference, over the one asked for.
PAIR = 0.5, 2.0


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        chains: Independent chains, two or more.
        draws: Recorded draws of each.
        burn_in: Draws of each before, in which step size and scales are adapted.
        temperature: β > 0, or None for 1/log n.
        localisation: γ > 0.
        steps: Most leapfrog steps a draw; 1 is the Metropolis-adjusted Langevin algorithm.
        step_size: In units of each coordinate's spread, or None to adapt it.
        acceptance: Mean acceptance probability that it is adapted to.
        method: "reference" or "difference".
        batches: Whether to walk by stochastic gradients, without a Metropolis step.
        seed: Of all random numbers.
    """

    chains: int = 4
    draws: int = 1000
    burn_in: int = 500
    temperature: float | None = None
    localisation: float = 1.0
    steps: int = 20
    step_size: float | None = None
    acceptance: float = 0.8
    method: str = "reference"
    batches: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("chains", 2), ("draws", 8), ("burn_in", 0), ("steps", 1)):
            check_whole(name, getattr(self, name), least)
        check_seed(self.seed)
        for name in ("temperature", "localisation", "step_size"):
            value = getattr(self, name)
            if value is not None or name == "localisation":
                check_positive(name, value)
        if self.method not in ("reference", "difference"):
            raise choice_error("method", self.method, ["'reference'", "'difference'"])


def estimate(
    problem: Problem, settings: Settings, progress: Progress
) -> tuple[LearningCoefficient, Tensor]:
    """Sample at one temperature or two, and the last point of a chain (D,) besides λ̂.

    Raises:
        SamplingError: if the chains disagree, too few draws count, θ̂ is not a minimum, or λ̂ is
            negative beyond its error.
        ChoiceError: if there is but one observation, for which log n is 0.
        DataError: if there are no labels.
    """
    potential = Potential(problem)
    n = potential.observations
    if settings.temperature is None and n < 2:
        raise choice_error("temperature", None, ["a number, as there is but one observation"])
    beta = settings.temperature or 1.0 / math.log(n)
    factors = (1.0,) if settings.method == "reference" else PAIR
    generator = torch.Generator().manual_seed(int(settings.seed))
    found, last = [], problem.theta
    for factor in factors:
        diagnostics, last = _temper(potential, beta * factor, settings, generator, progress)
        found.append(diagnostics)
    assert problem.survey.nll is not None
    nll = float(problem.survey.nll.sum())
    if settings.method == "reference":
        value, stderr = beta * (found[0].loss - nll), beta * found[0].loss_stderr
    else:
        hot, cold = found
        run = 1.0 / hot.temperature - 1.0 / cold.temperature
        value = (hot.loss - cold.loss) / run
        stderr = math.hypot(hot.loss_stderr, cold.loss_stderr) / run
    check(value, stderr, nll, found, settings)
    bias = "unknown" if settings.batches else "none"
    result = LearningCoefficient(value, stderr, n, nll, None, settings.method, tuple(found), bias)
    return result, last


def _temper(
    potential: Potential,
    beta: float,
    settings: Settings,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Diagnostics, Tensor]:
    """Chains at one temperature."""
    problem = potential.problem
    centre, gamma, n = problem.theta, settings.localisation, potential.observations
    assert problem.survey.nll is not None
    nll = float(problem.survey.nll.sum())

    def target(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, gradient = potential(points)
        away = points - centre
        energy = beta * (loss - nll) + 0.5 * gamma * away.square().sum(1)
        return energy, beta * gradient + gamma * away, loss - nll

    scale = (gamma + n * beta * _curvature(problem, settings.seed)).rsqrt()
    noise = torch.randn(settings.chains, len(centre), generator=generator, dtype=torch.float64)
    start = centre + scale * noise.to(centre)
    with isolated():
        if settings.batches:
            chains = walk(
                potential,
                centre,
                start,
                scale,
                beta=beta,
                gamma=gamma,
                draws=settings.draws,
                burn_in=settings.burn_in,
                step_size=settings.step_size,
                seed=int(torch.randint(2**62, (), generator=generator)),
                progress=progress,
            )
        else:
            chains = sample(
                target,
                start,
                scale,
                draws=settings.draws,
                burn_in=settings.burn_in,
                steps=settings.steps,
                step_size=settings.step_size,
                acceptance=settings.acceptance,
                generator=generator,
                progress=progress,
            )
    records = chains.records.cpu()
    diagnostics = Diagnostics(
        beta,
        gamma,
        nll + float(records.mean()),
        mean_error(records),
        nll + chains.lowest,
        potential_scale_reduction(records),
        effective_sample_size(records),
        tuple(chains.acceptance.tolist()),
        tuple((beta * records.mean(1)).tolist()),
        chains.step_size,
        int(chains.divergences.sum()),
        bool(potential.together),
    )
    _check_chains(diagnostics)
    return diagnostics, chains.last[0]


def _curvature(problem: Problem, seed: int) -> Tensor:
    """A guess of the diagonal of Î (D,), from one random combination of each observation's rows."""
    root = Root(problem.sketched(Draws(1, seed, 0, "rademacher")))
    total = torch.zeros_like(problem.theta)
    for slab in root.slabs("Scales"):
        total += slab.square().sum(0)
    return total


def _check_chains(found: Diagnostics) -> None:
    """Raise a SamplingError if chains have not seen the same, or too little."""
    at = f"At β = {found.temperature:.3g}"
    remedy = (
        "Take more draws, a longer burn-in or more leapfrog steps (draws, burn_in, steps); or a "
        "larger localisation, which keeps the chains nearer to θ̂."
    )
    if not found.rhat <= LARGEST_RHAT or not math.isfinite(found.loss):
        means = ", ".join(f"{mean:.3g}" for mean in found.chain_means)
        raise SamplingError(
            f"{at} the chains disagree: R̂ = {found.rhat:.3f} of the loss, above {LARGEST_RHAT}; "
            f"their estimates are {means}, their lowest acceptance "
            f"{min(found.acceptance, default=math.nan):.2f}.",
            "They have not seen the same distribution, so that their mean is nobody's.",
            remedy,
        )
    if found.effective_draws < FEWEST_DRAWS:
        raise SamplingError(
            f"{at} the draws are worth {found.effective_draws:.0f} independent ones, fewer than "
            f"{FEWEST_DRAWS:.0f}.",
            "Neither the mean nor its standard error can be trusted.",
            remedy,
        )


def check(
    value: float, stderr: float, nll: float, found: list[Diagnostics], settings: Settings
) -> None:
    """Raise a SamplingError if θ̂ is visibly not a minimum, or the estimate is negative."""
    if settings.method == "reference":
        beta = found[0].temperature
        missing = beta * (nll - found[0].lowest)
        if missing > max(ERRORS * stderr, SHARE * abs(value)):
            raise SamplingError(
                f"The chains found losses up to {missing / beta:.3g} nats below n L_n(θ̂) = "
                f"{nll:.6g}; the estimate, {value:.3g} ± {stderr:.2g}, is too small by "
                f"{missing:.3g} at least.",
                "The learning coefficient is that of a minimum of the loss, which θ̂ is not.",
                "Train on, or use method='difference', which does without the loss at θ̂.",
            )
    if value < -ERRORS * stderr:
        raise SamplingError(
            f"The estimate, {value:.3g} ± {stderr:.2g}, is negative.",
            "A learning coefficient is positive: here a smaller β does not raise the loss, so θ̂ is "
            "not near a minimum, or the localisation decides and not the data.",
            "Train on; or change the localisation, or the temperature.",
        )
