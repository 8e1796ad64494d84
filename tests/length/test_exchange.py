"""Chains that change places, and means with known noise taken off."""

import math

import numpy as np
import pytest
import torch
from singular_models import Crossing, noiseless, slope_of_crossing
from torch import nn

import lightlike as ll
from lightlike.length.coefficient import Diagnostics
from lightlike.length.controls import controls_for, reduce_noise, virial
from lightlike.length.exchange import Ladder
from lightlike.length.potential import Potential
from lightlike.length.sampling import State
from lightlike.length.singular import check_chains
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem


def ladder(model, width, betas, chains, seed=0):
    potential = Potential(Problem(model, noiseless(model, width), "gaussian"))
    generator = torch.Generator().manual_seed(seed)
    nll = float(potential.problem.survey.nll.sum())
    return Ladder(potential, nll, betas, 1.0, chains, generator)


def test_an_exchange_is_the_target_at_the_new_place():
    """Energies and gradients after exchanges are those that the model gives there."""
    rungs = ladder(Crossing(1, 2), 1, [1.0, 5.0, 30.0], 20)
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    with isolated():
        state = State.at(rungs.target, points)
        for index in (0, 1):
            moved, shares = rungs.swap(state, index)
            fresh = State.at(rungs.target, moved.points)
            for name in ("energy", "gradient", "record"):
                torch.testing.assert_close(getattr(moved, name), getattr(fresh, name))
            changed = ~(moved.points == state.points).all(1)
            assert 0 < int(changed.sum()) < 60
            assert float(shares.sum()) == pytest.approx(float(changed.sum()) / 40)
            state = moved


def test_exchanges_keep_the_distribution():
    """Exact draws at all temperatures of a linear model are draws of them after exchanges."""
    model, betas, n = nn.Linear(1, 1, bias=False).double(), [0.5, 2.0, 8.0], 20_000
    rungs = ladder(model, 1, betas, n)
    # n L_n − n L_n(θ̂) = ½ · 2 w² for the two inputs of mean square 1.
    deviations = (2.0 * torch.tensor(betas, dtype=torch.float64) + 1.0).rsqrt()
    noise = torch.randn(3 * n, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    points = rungs.centre + deviations.repeat_interleave(n)[:, None] * noise
    with isolated():
        rungs.potential(points[:2])  # the first points are also taken one by one
        state = State.at(rungs.target, points)
    for index in range(6):
        state, _ = rungs.swap(state, index)
    away = (state.points - rungs.centre).reshape(3, n)
    for got, deviation in zip(away, deviations, strict=True):
        second = got.square() / deviation**2
        assert abs(float(second.mean()) - 1.0) < 4 * math.sqrt(2 / n)
        assert abs(float(second.square().mean()) - 3.0) < 4 * math.sqrt(96 / n)


def normal_chains(size, seed=0):
    """Independent draws of N(1, C) as chains, with ∇U, for a C that is not diagonal."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    noise = torch.randn(8 * 500, size, generator=generator, dtype=torch.float64)
    points = 1.0 + noise @ root.T
    return points, noise @ torch.linalg.inv(root)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_quadratic_has_no_noise_left(size):
    """E[wᵀ B w] = tr B C under N(0, C), to rounding, by the full controls."""
    points, gradient = normal_chains(size)
    away = points - 1.0
    centre = torch.ones(size, dtype=torch.float64)
    known = controls_for(centre, 4000)(points, gradient).reshape(8, 500, -1)
    assert known.shape[2] == 1 + size + size * (size + 1) // 2
    weights = torch.arange(1.0, size + 1.0, dtype=torch.float64)
    records = (weights * away.square()).sum(1).reshape(8, 500)
    found = reduce_noise(records, known)
    exact_covariance = torch.linalg.lstsq(gradient, away).solution
    assert found.value == pytest.approx(float(weights @ exact_covariance.diagonal()), rel=1e-9)
    assert 0 < found.stderr < 1e-9 * found.value
    # In one dimension the virial is the only one that matters.
    assert found.controls == (1 if size == 1 else known.shape[2])
    plain = reduce_noise(records, None)
    assert plain.stderr > 0.01 * plain.value
    mean, error = virial(known)
    assert abs(mean) < 4 * error


def test_the_error_bars_of_what_is_left_cover():
    """E w⁴ = 3 under N(0, 1), with most of its noise taken off: z over 60 seeds."""
    scores, gains = [], []
    for seed in range(60):
        noise = torch.randn(
            4, 200, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        flat = noise.reshape(-1, 1)
        controls = controls_for(torch.zeros(1, dtype=torch.float64), 800)
        known = controls(flat, flat).reshape(4, 200, -1)
        found = reduce_noise(noise[:, :, 0] ** 4, known)
        scores.append((found.value - 3.0) / found.stderr)
        gains.append(found.stderr / reduce_noise(noise[:, :, 0] ** 4, None).stderr)
    assert np.median(gains) < 0.6
    assert abs(np.mean(scores)) < 0.5
    assert 0.6 < np.std(scores) < 1.35


def test_larger_models_have_fewer_controls():
    for size, values, expected in ((30, 1000, 1), (30, 5000, 61), (2, 5000, 6)):
        theta = torch.zeros(size, dtype=torch.float64)
        assert controls_for(theta, values)(theta[None], theta[None]).shape == (1, expected)


def test_chains_out_of_equilibrium_are_refused():
    given = (0.5, 1.0, 9.0, 0.1, 8.0, 1.0, 500.0, (0.8,), (1.0,), 0.5, 0, True)
    check_chains(Diagnostics(*given, virial=0.4, virial_stderr=0.1))
    with pytest.raises(ll.errors.SamplingError, match="not in equilibrium"):
        check_chains(Diagnostics(*given, virial=0.6, virial_stderr=0.1))


def sample_limit(model, width, samples, **options):
    data = noiseless(model, width)
    given = {"chains": 16, "draws": 60, "burn_in": 60, "steps": 8} | options
    betas = [t / len(data[0]) for t in samples]
    return ll.learning_coefficient(
        model, data, "gaussian", method="limit", temperature=betas, **given
    )


def test_the_limit_of_a_regular_model():
    """D/2 = 1.5, and each slope ½ · 3 t/(t + 1) to rounding."""
    samples = [20.0, 60.0, 250.0, 1e3]
    found = sample_limit(nn.Linear(3, 1, bias=False).double(), 3, samples)
    assert found.regular
    assert found.slopes == pytest.approx([1.5 * t / (t + 1) for t in samples], rel=1e-6)
    assert abs(found.value - 1.5) < 2 * found.stderr
    assert found.stderr < 0.01
    assert [law.exponent for law in found.limit.laws] == [1.0]
    assert found.interval(multiplicity=3) == found.interval()
    assert all(0 < d.swaps < 1 for d in found.diagnostics[:-1])
    assert found.diagnostics[-1].swaps is None
    assert found.to_dict()["limit"]["laws"][0]["weight"] == 1.0


def test_the_limit_of_a_crossing():
    """y = a² x: the exact slopes of a quartic, and λ = ¼ where D/2 = ½."""
    found = sample_limit(Crossing(2), 1, [10.0**k for k in range(3, 9)])
    assert found.regular is False
    assert abs(found.value - 0.25) < 2 * found.stderr
    assert found.value == pytest.approx(0.25, rel=0.1)
    assert max(d.temperature for d in found.diagnostics) == found.diagnostics[-1].temperature


@pytest.mark.slow
def test_cold_chains_reach_the_arms():
    """y = a b x at n β from 10³ to 10⁶: every slope by quadrature."""
    samples = [1e3, 1e4, 1e5, 1e6]
    found = sample_limit(Crossing(1, 1), 1, samples, chains=32, draws=400, burn_in=200, steps=16)
    for t, slope, d in zip(samples, found.slopes, found.diagnostics, strict=True):
        assert abs(slope - slope_of_crossing((1, 1), t)) < 3.5 * d.temperature * d.loss_stderr
    assert abs(found.value - 0.5) < 2 * found.stderr


def test_settings_of_the_limit():
    model = Crossing(2)
    for bad in ([1.0, 2.0], [1.0, 1.0, 2.0], [1.0, -1.0, 2.0], "cold"):
        with pytest.raises(ll.errors.ChoiceError, match="temperature"):
            ll.learning_coefficient(
                model, noiseless(model, 1), "gaussian", method="limit", temperature=bad
            )
    with pytest.raises(ll.errors.ChoiceError, match="temperature"):
        ll.learning_coefficient(model, noiseless(model, 1), "gaussian", temperature=[1.0, 2.0, 3.0])
