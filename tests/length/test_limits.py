"""Extrapolated slopes against known learning coefficients, from slopes that quadrature gives."""

import math

import numpy as np
import pytest
from singular_models import aoyagi_watanabe, slope_of_crossing, slope_of_one_hidden_unit

import lightlike as ll
from lightlike.length.limits import EXPONENTS, extrapolate

SAMPLES = [10.0**k for k in range(3, 9)]


def limit(slopes, error, samples=SAMPLES, seed=None, **options):
    noise = np.zeros(len(slopes))
    if seed is not None:
        noise = error * np.random.default_rng(seed).standard_normal(len(slopes))
    return extrapolate(samples, slopes + noise, error**2 * np.eye(len(slopes)), **options)


CASES = {
    "a b": (lambda t: slope_of_crossing((1, 1), t), 0.5, 0.5),
    "a b²": (lambda t: slope_of_crossing((1, 2), t), 0.25, 0.5),
    "2, 1, 1": (lambda t: slope_of_one_hidden_unit(2, 1, t), aoyagi_watanabe(2, 1, 1, 0)[0], 1.0),
    "3, 1, 1": (lambda t: slope_of_one_hidden_unit(3, 1, t), aoyagi_watanabe(3, 1, 1, 0)[0], 1.5),
}


@pytest.mark.parametrize("case", CASES)
def test_exact_slopes_of_singular_models(case):
    """Within two standard errors and 10 %, from exact slopes and from noisy ones."""
    function, known, bound = CASES[case]
    slopes = [function(t) for t in SAMPLES]
    for error in (0.003, 0.01):
        found = limit(slopes, error, bound=bound)
        assert abs(found.value - known) < 2 * found.stderr
        assert abs(found.value - known) < 0.1 * known
        assert found.stderr < 0.15 * known
        assert sum(law.weight for law in found.laws) == pytest.approx(1.0)
        inside = [
            abs(f.value - known) < 2 * f.stderr
            for f in (limit(slopes, error, seed=seed, bound=bound) for seed in range(4))
        ]
        assert all(inside)


def test_each_law_finds_its_own():
    """Slopes that follow one law exactly: that law gives λ, and the others fit worse."""
    t = np.array(SAMPLES)
    for law in (*EXPONENTS, None):
        deficit = 1 / (np.log(t) + 2.0) if law is None else 0.3 * (t / t[0]) ** -law
        found = limit(0.7 - deficit, 1e-4)
        (own,) = [f for f in found.laws if f.exponent == law]
        assert own.multiplicity == (2 if law is None else 1)
        assert own.value == pytest.approx(0.7, abs=0.01)
        assert own.misfit == min(f.misfit for f in found.laws)
        assert own.misfit < 0.1


def test_a_regular_model():
    """½ Σ t f/(t f + γ) is known at every t: the limit d/2, within an error that covers 1/t²."""
    samples, f = [20.0, 60.0, 250.0, 1e3], np.array([0.5, 1.0, 3.0])
    slopes = [float(0.5 * (t * f / (t * f + 1.0)).sum()) for t in samples]
    found = limit(slopes, 1e-9, samples, regular=True)
    assert abs(found.value - 1.5) < 2 * found.stderr
    assert found.stderr < 0.002
    assert abs(slopes[-1] - 1.5) > 2 * abs(found.value - 1.5)


def test_scores_of_regular_models_are_normal():
    """z over 200 noisy repetitions: mean 0, deviation at most 1."""
    samples = [60.0, 250.0, 1e3]
    slopes = [1.5 * t / (t + 1.0) for t in samples]
    found = [limit(slopes, 0.02, samples, seed=seed, regular=True) for seed in range(200)]
    scores = np.array([(f.value - 1.5) / f.stderr for f in found])
    assert abs(scores.mean()) < 0.25
    assert 0.65 < scores.std() < 1.1  # below 1 by what the error has for 1/t²
    assert (np.abs(scores) < 2).mean() > 0.94


def test_correlated_slopes():
    """Errors that are all alike move λ by themselves; the standard error says so."""
    samples, slopes = [60.0, 250.0, 1e3], [1.5 * t / (t + 1.0) for t in (60.0, 250.0, 1e3)]
    together = 0.02**2 * (0.9 * np.ones((3, 3)) + 0.1 * np.eye(3))
    found = extrapolate(samples, slopes, together, regular=True)
    assert found.stderr == pytest.approx(0.02, rel=0.2)


def test_order_and_bounds():
    slopes = [slope_of_crossing((1, 1), t) for t in SAMPLES]
    found = limit(slopes, 0.01)
    turned = extrapolate(SAMPLES[::-1], slopes[::-1], 1e-4 * np.eye(6))
    assert turned.value == pytest.approx(found.value)
    assert limit(slopes, 0.01, bound=0.45).value < found.value
    assert math.isfinite(limit([0.01] * 6, 0.05).value)
    with pytest.raises(ll.errors.ChoiceError, match="three temperatures"):
        extrapolate([1.0, 2.0], [0.1, 0.2], np.eye(2))
