"""The Metropolis-corrected kernel against distributions whose moments are known."""

import math

import pytest
import torch
from scipy import stats

from lightlike.length.sampling import State, StepSize, sample, transition
from lightlike.progress import Progress


def normal(scales):
    """N(0, diag scales²), recording the first coordinate."""

    def target(points):
        z = points / scales
        return 0.5 * z.square().sum(1), z / scales, points[:, 0]

    return target


def quartic(points):
    """p ∝ exp(−x⁴/4): E x² = 2 Γ(3/4)/Γ(1/4), E x⁴ = 1."""
    x = points[:, 0]
    return 0.25 * x**4, points**3, x


def run(target, dimension, *, draws, chains=40, steps=5, step_size=None, seed=0, scale=None):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(chains, dimension, generator=generator, dtype=torch.float64)
    scale = torch.ones(dimension, dtype=torch.float64) if scale is None else scale
    (chains,) = sample(
        target,
        start,
        scale,
        draws=draws,
        burn_in=200,
        steps=steps,
        step_size=step_size,
        acceptance=0.8,
        generator=generator,
        progress=Progress.silent(),
    )
    return chains


@pytest.mark.parametrize(("steps", "step_size"), [(1, 1.0), (5, 0.7), (5, 1.5), (8, None)])
def test_one_step_keeps_the_stationary_distribution(steps, step_size):
    """Exact draws of exp(−x⁴/4), after one transition, are draws of it: at any step size.

    A step size of 1.5 is far too large for an uncorrected walk, whose moments would be off by a
    third and more.
    """
    generator = torch.Generator().manual_seed(1)
    n = 20_000
    u = torch.rand(n, generator=generator, dtype=torch.float64).numpy()
    radius = (4.0 * stats.gamma.ppf(u, 0.25)) ** 0.25
    sign = 2.0 * torch.randint(0, 2, (n,), generator=generator) - 1.0
    exact = torch.from_numpy(radius) * sign
    state = State.at(quartic, exact[:, None])
    scale = torch.ones(1, dtype=torch.float64)
    moved, probability, _ = transition(quartic, state, scale, step_size or 0.4, steps, generator)
    x = moved.points[:, 0]
    assert 0.05 < float((x != exact).double().mean()) <= 1.0
    assert 0.05 < float(probability.mean()) <= 1.0
    second = 2.0 * math.gamma(0.75) / math.gamma(0.25)
    for power, expected in ((1, 0.0), (2, second), (4, 1.0)):
        values = x**power
        error = float(values.std()) / math.sqrt(n)
        assert abs(float(values.mean()) - expected) < 4 * error


@pytest.mark.parametrize("steps", [1, 4])
def test_detailed_balance(steps):
    """As many go from A to B as from B to A when all start in the stationary distribution."""
    generator = torch.Generator().manual_seed(2)
    n = 40_000
    before = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    target = normal(torch.ones(1, dtype=torch.float64))
    scale = torch.ones(1, dtype=torch.float64)
    moved, _, _ = transition(target, State.at(target, before), scale, 1.4, steps, generator)
    a, b = before[:, 0], moved.points[:, 0]
    for low, high in ((-0.5, 0.5), (0.0, 1.2)):
        there = int(((a < low) & (b > high)).sum())
        back = int(((a > high) & (b < low)).sum())
        assert there > 50
        assert abs(there - back) < 4 * math.sqrt(there + back)


def test_moments_from_a_wrong_start():
    """Badly scaled normal distribution, chains that start elsewhere: burn-in finds the scales."""
    scales = torch.tensor([0.01, 1.0, 10.0], dtype=torch.float64)
    chains = run(normal(scales), 3, draws=300, steps=20)
    assert float(chains.records.std()) == pytest.approx(0.01, rel=0.05)
    torch.testing.assert_close(chains.scale, scales, rtol=0.5, atol=0)
    assert 0.6 < float(chains.acceptance.mean()) < 0.95


def test_the_kernel_is_fixed_after_burn_in():
    """Draws with a given step size are those of that step size; the scale stays the last one."""
    chains = run(quartic, 1, draws=50, step_size=0.5)
    assert chains.step_size == 0.5
    assert chains.records.shape == (40, 50)


def test_infinite_energies_are_rejected():
    """A wall: no chain goes where the density is zero."""

    def half_normal(points):
        x = points[:, 0]
        energy = torch.where(x > 0, 0.5 * x.square(), torch.inf)
        return energy, points.clamp_min(0.0), x

    generator = torch.Generator().manual_seed(0)
    start = torch.rand(40, 1, generator=generator, dtype=torch.float64) + 0.1
    start[0] = -0.1
    state = State.at(half_normal, start)
    scale = torch.ones(1, dtype=torch.float64)
    kept = []
    for _ in range(400):
        state, _, _ = transition(half_normal, state, scale, 0.8, 3, generator)
        kept.append(state.points)
    # The first chain starts where the density is zero, and finds its way.
    values = torch.cat(kept[50:])
    assert bool((values > 0).all())
    assert float(values.mean()) == pytest.approx(math.sqrt(2 / math.pi), rel=0.05)


def test_the_step_size_reaches_the_acceptance_asked_for():
    """On a made-up acceptance curve e^{−h}, dual averaging settles at −log 0.8."""
    size = StepSize(3.0, 0.8)
    for _ in range(3000):
        size.learn(math.exp(-size.current))
    assert size.averaged == pytest.approx(-math.log(0.8), rel=0.05)


def test_seeds_seed_and_the_global_state_stays():
    before = torch.get_rng_state()
    first, again, other = (run(quartic, 1, draws=20, seed=s).records for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
