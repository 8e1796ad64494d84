"""Hamiltonian Monte Carlo on all chains at once, with a Metropolis step that makes it exact.

A plain Langevin walk, such as stochastic-gradient Langevin dynamics, has a stationary distribution
that is off by its step size, and so are averages of the loss. Here a proposal is a leapfrog
trajectory, accepted with probability min(1, e^{H − H′}): detailed balance holds whatever the step
size (Duane et al. 1987, doi:10.1016/0370-2693(87)91197-X; Neal 2011, arXiv 1206.1901). One leapfrog
step is the Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996, doi:10.2307/3318418).
None of the kept libraries offers such a kernel for many PyTorch chains with generators of their
own, hence this short one; tests hold it against known distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.progress import Progress

# θ (C, D) ↦ U(θ) = −log density up to a constant (C,), ∇U (C, D), and what is recorded (C,).
Target = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
# Chains after an exchange between levels, and the share (L,) of chains that changed places with the
# next level; the second argument counts the exchanges.
Swap = Callable[["State", int], tuple["State", Tensor]]
# Points and gradients of U (C, D) ↦ values whose mean under the target is 0 (C, P).
Controls = Callable[[Tensor, Tensor], Tensor]

# Of the dual averaging of the step size (Hoffman & Gelman 2014, arXiv 1111.4246, section 3.2).
SHRINKAGE, DELAY, DECAY = 0.05, 10.0, 0.75
# A trajectory that gains this much energy has left the region where its step size serves.
DIVERGENT = 1000.0
# The step size of each trajectory is a random share of the largest, from this up: one size for all
# would be too large in the narrow parts of a singular posterior, or never cross its wide ones. At
# first shares are much smaller now and then: a chain that starts where the loss is steep would
# reject every step that suits the others, and never leave.
LEAST, LEAST_AT_FIRST = 0.2, 1e-3
# Length of the longest trajectories in units of each coordinate's spread: on a normal distribution
# half a turn, after which a trajectory comes back.
LONGEST = math.pi
# Shares of the burn-in after which units are set anew; the last part is for the step size alone.
WINDOWS = (0.1, 0.2, 0.4, 0.7)


@dataclass(frozen=True)
class State:
    """Where all chains are: points (C, D), U (C,), ∇U (C, D) and what is recorded (C,)."""

    points: Tensor
    energy: Tensor
    gradient: Tensor
    record: Tensor

    @staticmethod
    def at(target: Target, points: Tensor) -> State:
        """Evaluate the target."""
        return State(points, *target(points))


@dataclass(frozen=True)
class Chains:
    """What was drawn after burn-in, with everything then held fixed.

    Attributes:
        records: Recorded values (C, draws).
        last: Final points (C, D).
        acceptance: Mean acceptance probability of each chain (C,).
        divergences: Trajectories of each chain that ended with an absurd energy (C,).
        step_size: Largest leapfrog step, in units of `scale`.
        scale: Unit of each coordinate (D,).
        lowest: The lowest value that is known to be exact.
        controls: Values of known mean 0 beside each draw (C, draws, P), or None.
        swaps: Share of exchanges with the next level that were taken, or None at the last.
    """

    records: Tensor
    last: Tensor
    acceptance: Tensor
    divergences: Tensor
    step_size: float
    scale: Tensor
    lowest: float
    controls: Tensor | None = None
    swaps: float | None = None


def transition(
    target: Target,
    state: State,
    scale: Tensor,
    step_size: float | Tensor,
    steps: int,
    generator: torch.Generator,
    least: float = LEAST,
) -> tuple[State, Tensor, Tensor]:
    """One trajectory of each chain, accepted or not: state, acceptance probability, divergence.

    The step size of a chain is step_size times a random share from `least` up, the number of steps
    random up to `steps`: both are drawn without looking where the chain is, so that each choice is
    reversible.
    """
    points, gradient = state.points, state.gradient
    momentum = _normal(points, generator)
    share = torch.rand(len(points), 1, generator=generator, dtype=points.dtype).to(points.device)
    size = step_size * least**share
    count = int(torch.randint(1, steps + 1, (), generator=generator))
    before = state.energy + 0.5 * momentum.square().sum(1)
    energy, record = state.energy, state.record
    for _ in range(count):
        momentum = momentum - 0.5 * size * scale * gradient
        points = points + size * scale * momentum
        energy, gradient, record = target(points)
        momentum = momentum - 0.5 * size * scale * gradient
    gain = energy + 0.5 * momentum.square().sum(1) - before
    # From infinite energy any finite one is a gain; between two infinite ones nothing moves.
    gain = torch.where(torch.isnan(gain), torch.inf, gain)
    probability = (-gain.clamp_min(0.0)).exp()
    uniform = torch.rand(len(points), generator=generator, dtype=points.dtype).to(points.device)
    taken = uniform < probability
    moved = State(
        torch.where(taken[:, None], points, state.points),
        torch.where(taken, energy, state.energy),
        torch.where(taken[:, None], gradient, state.gradient),
        torch.where(taken, record, state.record),
    )
    return moved, probability, gain > DIVERGENT


class StepSize:
    """The step size at which trajectories are accepted as often as asked, by dual averaging."""

    def __init__(self, first: float, acceptance: float) -> None:
        self.current = self.averaged = first
        self._centre, self._acceptance = math.log(10.0 * first), acceptance
        self._deficit, self._count = 0.0, 0

    def learn(self, probability: float) -> None:
        """Take note of one mean acceptance probability."""
        self._count += 1
        weight = 1.0 / (self._count + DELAY)
        self._deficit += weight * (self._acceptance - probability - self._deficit)
        log = self._centre - math.sqrt(self._count) / SHRINKAGE * self._deficit
        share = self._count**-DECAY
        self.averaged = math.exp(share * log + (1.0 - share) * math.log(self.averaged))
        self.current = math.exp(log)


def sample(
    target: Target,
    start: Tensor,
    scale: Tensor,
    *,
    draws: int,
    burn_in: int,
    steps: int,
    step_size: float | None,
    acceptance: float,
    generator: torch.Generator,
    progress: Progress,
    levels: int = 1,
    swap: Swap | None = None,
    controls: Controls | None = None,
) -> list[Chains]:
    """Run chains (L · C, D) from their starts: burn-in, then draws with a fixed kernel.

    During burn-in alone the step size of each level is adapted, unless given, and the unit of each
    coordinate is set to its spread over the chains of the level (a diagonal preconditioner), at the
    ends of growing windows.

    Args:
        target: −log density, its gradient, and what is to be recorded.
        start: First points, level after level.
        scale: First guess of the unit of each coordinate (D,), or (L, D).
        draws: Trajectories of each chain that are recorded.
        burn_in: Trajectories that are not.
        steps: Most leapfrog steps of a trajectory, fewer where these are large; 1 is the
            Metropolis-adjusted Langevin algorithm.
        step_size: In units of the spread of each coordinate, or None to adapt it.
        acceptance: Mean acceptance probability to adapt it to.
        generator: On the CPU.
        progress: Where to report.
        levels: L, how many distributions the target has.
        swap: Exchanges chains between levels, after each trajectory.
        controls: What has the mean 0, from points and gradients.

    Returns:
        One entry a level.
    """
    state = State.at(target, start)
    each = len(start) // levels
    scale = scale.expand(levels, -1)
    sizes = [StepSize(step_size or 0.1, acceptance) for _ in range(levels)]
    ends = {round(burn_in * share) for share in WINDOWS} - {0}
    seen: list[Tensor] = []
    records: list[Tensor] = []
    beside: list[Tensor] = []
    accepted, diverged = torch.zeros_like(state.energy), torch.zeros_like(state.energy)
    taken = torch.zeros(levels, dtype=torch.float64)
    for index in progress.track(range(burn_in + draws), "Sampling", burn_in + draws):
        adapting = index < burn_in
        h = [step_size or (s.current if adapting else s.averaged) for s in sizes]
        most = max(1, min(steps, math.ceil(LONGEST / min(h))))
        least = LEAST_AT_FIRST if index < WINDOWS[-2] * burn_in else LEAST
        state, probability, divergent = transition(
            target, state, scale.repeat_interleave(each, 0),
            state.points.new_tensor(h).repeat_interleave(each)[:, None], most, generator, least,
        )  # fmt: skip
        if swap is not None:
            state, shares = swap(state, index)
            taken += 0.0 if adapting else shares
        if adapting:
            for size, p in zip(sizes, probability.reshape(levels, each).mean(1), strict=True):
                size.learn(float(p))
            seen.append(state.points)
            if index + 1 in ends:
                scale = _spread(seen[len(seen) // 2 :], scale)
                sizes = [StepSize(step_size or 0.1, acceptance) for _ in range(levels)]
                seen = []
        else:
            accepted += probability
            diverged += divergent
            records.append(state.record)
            if controls is not None:
                beside.append(controls(state.points, state.gradient))
    drawn = torch.stack(records, 1)
    known = torch.stack(beside, 1) if beside else None
    found = []
    for level, size in enumerate(sizes):
        own = slice(level * each, (level + 1) * each)
        # A pair is proposed every other time.
        share = 2.0 * float(taken[level]) / draws if swap and level + 1 < levels else None
        found.append(Chains(
            drawn[own], state.points[own], accepted[own] / draws, diverged[own].long(),
            step_size or size.averaged, scale[level], float(drawn[own].min()),
            None if known is None else known[own], share,
        ))  # fmt: skip
    return found


def _spread(seen: list[Tensor], scale: Tensor) -> Tensor:
    """Standard deviation of each coordinate, held near the guess while there are few points."""
    levels, size = scale.shape
    points = torch.stack(seen).reshape(len(seen), levels, -1, size).transpose(1, 2)
    points = points.reshape(-1, levels, size)
    weight = len(points) / (len(points) + 5.0)
    variance: Tensor = weight * points.var(0) + (1.0 - weight) * 1e-3 * scale.square()
    return variance.sqrt()


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
