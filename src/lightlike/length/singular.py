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
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import SamplingError, choice_error
from lightlike.length.coefficient import Diagnostics, LearningCoefficient
from lightlike.length.controls import Mean, controls_for, reduce_noise, virial
from lightlike.length.convergence import (
    effective_sample_size,
    mean_error,
    potential_scale_reduction,
)
from lightlike.length.exchange import Ladder
from lightlike.length.langevin import walk
from lightlike.length.potential import Potential
from lightlike.length.sampling import Chains, sample
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
# The temperatures of each method, over the one asked for.
FACTORS = {"reference": (1.0,), "difference": (0.5, 2.0), "limit": (1 / 64, 1 / 16, 1 / 4, 1.0)}
# How many standard errors the virial may be off: rarer than once in a million in equilibrium.
VIRIAL = 5.0
# Correlations are estimates: this share of them is believed, so that their matrix has an inverse.
CLEAR = 0.9


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        chains: Independent chains, two or more.
        draws: Recorded draws of each.
        burn_in: Draws of each before, in which step size and scales are adapted.
        temperature: β > 0, or None for 1/log n; several of them for "limit".
        localisation: γ > 0.
        steps: Most leapfrog steps a draw; 1 is the Metropolis-adjusted Langevin algorithm.
        step_size: In units of each coordinate's spread, or None to adapt it.
        acceptance: Mean acceptance probability that it is adapted to.
        method: "reference", "difference" or "limit".
        batches: Whether to walk by stochastic gradients, without a Metropolis step.
        seed: Of all random numbers.
    """

    chains: int = 4
    draws: int = 1000
    burn_in: int = 500
    temperature: float | Sequence[float] | None = None
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
        for name in ("localisation", "step_size"):
            value = getattr(self, name)
            if value is not None or name == "localisation":
                check_positive(name, value)
        if self.method not in tuple(FACTORS):
            raise choice_error("method", self.method, [repr(name) for name in FACTORS])
        if self.temperature is not None:
            self._check_temperature()

    def _check_temperature(self) -> None:
        if not isinstance(self.temperature, Sequence) or isinstance(self.temperature, str):
            check_positive("temperature", self.temperature)
            return
        for beta in self.temperature:
            check_positive("temperature", beta)
        if self.method != "limit" or len(set(self.temperature)) < 3:
            wanted = ["one number", "three different ones or more with method='limit'"]
            raise choice_error("temperature", self.temperature, wanted)

    def temperatures(self, n: int) -> list[float]:
        """β of each level, from the hottest to the coldest.

        Raises:
            ChoiceError: if there is but one observation, for which log n is 0.
        """
        if isinstance(self.temperature, Sequence):
            return sorted(set(self.temperature))
        if self.temperature is None and n < 2:
            raise choice_error("temperature", None, ["a number, as there is but one observation"])
        beta = self.temperature or 1.0 / math.log(n)
        return [beta * factor for factor in FACTORS[self.method]]


def estimate(
    problem: Problem, settings: Settings, progress: Progress
) -> tuple[LearningCoefficient, Tensor]:
    """Sample at one temperature or several, and the last point of a chain (D,) besides λ̂.

    For "limit", λ̂ is that at the coldest; `LearningCoefficient.at_limit` extrapolates.

    Raises:
        SamplingError: if the chains disagree, are not in equilibrium, too few draws count, θ̂ is not
            a minimum, or λ̂ is negative beyond its error.
        ChoiceError: if there is but one observation, for which log n is 0.
        DataError: if there are no labels.
    """
    potential = Potential(problem)
    n = potential.observations
    betas = settings.temperatures(n)
    generator = torch.Generator().manual_seed(int(settings.seed))
    assert problem.survey.nll is not None
    nll = float(problem.survey.nll.sum())
    draw = _walked if settings.batches else _exchanged
    levels = draw(potential, nll, betas, settings, generator, progress)
    means = [reduce_noise(c.records.cpu(), None if c.controls is None else c.controls.cpu())
             for c in levels]  # fmt: skip
    together = bool(potential.together)
    found = [
        _diagnose(chains, mean, beta, nll, settings, together)
        for chains, mean, beta in zip(levels, means, betas, strict=True)
    ]
    covariance: tuple[tuple[float, ...], ...] = ()
    if settings.method == "difference":
        # Of the difference itself, as chains that change places are not independent.
        run = 1.0 / betas[0] - 1.0 / betas[1]
        value = (means[0].value - means[1].value) / run
        stderr = mean_error(means[0].records - means[1].records) / run
    else:
        value, stderr = betas[-1] * means[-1].value, betas[-1] * means[-1].stderr
    if settings.method == "limit":
        covariance = _covariance(means, betas)
    check(value, stderr, nll, found[-1:] if settings.method == "limit" else found, settings)
    bias = "unknown" if settings.batches else "none"
    result = LearningCoefficient(
        value, stderr, n, nll, None, settings.method, tuple(found), bias, covariance=covariance
    )
    return result, levels[-1].last[0]


def _exchanged(
    potential: Potential,
    nll: float,
    betas: list[float],
    settings: Settings,
    generator: torch.Generator,
    progress: Progress,
) -> list[Chains]:
    """Chains at all temperatures at once, which change places."""
    centre = potential.problem.theta
    gamma, chains = settings.localisation, settings.chains
    ladder = Ladder(potential, nll, betas, gamma, chains, generator)
    inside = centre.new_tensor(betas)[:, None] * potential.observations
    scale = (gamma + inside * _curvature(potential.problem, settings.seed)).rsqrt()
    noise = torch.randn(len(betas) * chains, len(centre), generator=generator, dtype=torch.float64)
    with isolated():
        return sample(
            ladder.target,
            centre + scale.repeat_interleave(chains, 0) * noise.to(centre),
            scale,
            draws=settings.draws,
            burn_in=settings.burn_in,
            steps=settings.steps,
            step_size=settings.step_size,
            acceptance=settings.acceptance,
            generator=generator,
            progress=progress,
            levels=len(betas),
            swap=ladder.swap if len(betas) > 1 else None,
            controls=controls_for(centre, chains * settings.draws),
        )


def _walked(
    potential: Potential,
    nll: float,  # noqa: ARG001 — the walk records differences to θ̂ by itself
    betas: list[float],
    settings: Settings,
    generator: torch.Generator,
    progress: Progress,
) -> list[Chains]:
    """Chains at one temperature after the other, by stochastic gradients."""
    centre, found = potential.problem.theta, []
    for beta in betas:
        inside = beta * potential.observations * _curvature(potential.problem, settings.seed)
        scale = (settings.localisation + inside).rsqrt()
        noise = torch.randn(settings.chains, len(centre), generator=generator, dtype=torch.float64)
        with isolated():
            found.append(walk(
                potential,
                centre,
                centre + scale * noise.to(centre),
                scale,
                beta=beta,
                gamma=settings.localisation,
                draws=settings.draws,
                burn_in=settings.burn_in,
                step_size=settings.step_size,
                seed=int(torch.randint(2**62, (), generator=generator)),
                progress=progress,
            ))  # fmt: skip
    return found


def _diagnose(
    chains: Chains, mean: Mean, beta: float, nll: float, settings: Settings, together: bool
) -> Diagnostics:
    """What the chains at one temperature are worth; raises where that is nothing."""
    records = chains.records.cpu()
    known = (None, None) if chains.controls is None else virial(chains.controls.cpu())
    found = Diagnostics(
        beta,
        settings.localisation,
        nll + mean.value,
        mean.stderr,
        nll + chains.lowest,
        potential_scale_reduction(records),
        effective_sample_size(records),
        tuple(chains.acceptance.tolist()),
        tuple((beta * mean.records.mean(1)).tolist()),
        chains.step_size,
        int(chains.divergences.sum()),
        together,
        controls=mean.controls,
        virial=known[0],
        virial_stderr=known[1],
        swaps=chains.swaps,
    )
    check_chains(found)
    return found


def _covariance(means: list[Mean], betas: list[float]) -> tuple[tuple[float, ...], ...]:
    """Of λ̂ at all temperatures: correlations from sums and differences of their chains."""
    series = [beta * mean.records for mean, beta in zip(means, betas, strict=True)]
    errors = [beta * mean.stderr for mean, beta in zip(means, betas, strict=True)]
    scaled = [s / s.std().clamp_min(1e-300) for s in series]
    found = [[error**2 for error in errors] for error in errors]
    for j, a in enumerate(scaled):
        for k, b in enumerate(scaled):
            plus, minus = mean_error(a + b) ** 2, mean_error(a - b) ** 2
            r = 1.0 if j == k else CLEAR * (plus - minus) / (plus + minus)
            found[j][k] = r * errors[j] * errors[k]
    return tuple(tuple(row) for row in found)


def _curvature(problem: Problem, seed: int) -> Tensor:
    """A guess of the diagonal of Î (D,), from one random combination of each observation's rows."""
    root = Root(problem.sketched(Draws(1, seed, 0, "rademacher")))
    total = torch.zeros_like(problem.theta)
    for slab in root.slabs("Scales"):
        total += slab.square().sum(0)
    return total


def check_chains(found: Diagnostics) -> None:
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
    off = 0.0 if found.virial is None else abs(found.virial)
    if off > VIRIAL * (found.virial_stderr or 0.0):
        raise SamplingError(
            f"{at} the chains are not in equilibrium: D − w·∇U has the mean {found.virial:.3g} ± "
            f"{found.virial_stderr:.2g} instead of 0.",
            "They have seen a part of the distribution only, though they do not disagree.",
            remedy,
        )


def check(
    value: float, stderr: float, nll: float, found: list[Diagnostics], settings: Settings
) -> None:
    """Raise a SamplingError if θ̂ is visibly not a minimum, or the estimate is negative."""
    if settings.method != "difference":
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
