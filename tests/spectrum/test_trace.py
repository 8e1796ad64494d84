"""Traces and diagonals by random probes, against the matrices they are of."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.errors import ChoiceError
from lightlike.spectrum.trace import diagonal, trace
from oracles.matrices import planted, toeplitz

TRACES = ["xtrace", "hutch++", "hutchinson"]
DIAGONALS = ["hutch++", "hutchinson"]


@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
def test_low_rank_is_exact(method):
    F = planted([3.0, 2.0, 1.0, *[0.0] * 30])
    found = trace(F, 15, method=method)
    assert found.value == pytest.approx(6.0, rel=1e-12)
    assert found.stderr < 1e-12
    zero = trace(torch.zeros(30, 30, dtype=torch.float64), 15, method=method)
    assert (zero.value, zero.stderr) == (0.0, 0.0)


def test_low_rank_diagonals_are_exact():
    F = planted([3.0, 2.0, 1.0, *[0.0] * 30])
    found = diagonal(F, 15)
    assert torch.allclose(found.value, F.diagonal(), atol=1e-12)
    assert float(found.stderr.max()) < 1e-12


@pytest.mark.parametrize("method", TRACES)
def test_as_many_probes_as_rows(method):
    F = toeplitz(8)
    found = trace(F, 8, method=method)
    assert (found.value, found.stderr) == (16.0, 0.0)
    if method in DIAGONALS:
        assert torch.equal(diagonal(F, 9, method=method).value, F.diagonal())


def test_a_diagonal_matrix_has_its_diagonal_by_one_sign():
    F = torch.diag(torch.linspace(0.1, 2.0, 20, dtype=torch.float64))
    found = diagonal(F, 4, method="hutchinson")
    assert torch.allclose(found.value, F.diagonal(), atol=1e-14)
    assert float(found.stderr.max()) < 1e-14


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(0.0, 5.0), min_size=12, max_size=30),
    method=st.sampled_from(TRACES),
    seed=st.integers(0, 10**6),
)
def test_any_matrix(values, method, seed):
    F = planted(values, seed % 89)
    found = trace(F, 11, method=method, seed=seed)
    low, high = found.interval(1 - 1e-5)
    assert low - 1e-9 <= sum(values) <= high + 1e-9


def test_what_a_leading_eigenvector_hides_from_plain_probes():
    F = planted([100.0, *np.linspace(0.01, 0.1, 60)])
    plain, better, best = (trace(F, 24, method=m, seed=3) for m in TRACES[::-1])
    assert plain.stderr > 20 * better.stderr
    assert plain.stderr > 20 * best.stderr
    assert abs(best.value - float(F.trace())) < 5 * best.stderr


def test_choices():
    F = toeplitz(50)
    with pytest.raises(ChoiceError, match="method"):
        trace(F, method="guess")
    with pytest.raises(ChoiceError, match="'hutch\\+\\+', 'hutchinson'"):
        diagonal(F, method="xtrace")
    for method, least in [("xtrace", 6), ("hutch++", 6), ("hutchinson", 2)]:
        with pytest.raises(ChoiceError, match=f"Use {least} or more"):
            trace(F, least - 1, method=method)
    assert trace(F, seed=1) == trace(F, seed=1)
    assert trace(F, seed=1) != trace(F, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("method", TRACES)
@pytest.mark.parametrize("kind", ["flat", "power", "decaying"])
def test_standard_errors_cover(method, kind):
    """90 % intervals over 300 seeds; those of "xtrace" are wide rather than narrow."""
    values = {
        "flat": np.linspace(1, 3, 40),
        "power": 1 / np.arange(1, 41) ** 2.0,
        "decaying": np.exp(-np.arange(40) / 4.0),
    }[kind]
    F, truth, seeds = planted(values), float(sum(values)), 300
    found = [trace(F, 20, method=method, seed=seed) for seed in range(seeds)]
    hits = sum(low <= truth <= high for low, high in (e.interval(0.9) for e in found))
    assert 0.84 <= hits / seeds <= (0.995 if method == "xtrace" else 0.96)
    errors = np.array([e.value - truth for e in found])
    assert abs(errors.mean()) < 3.5 * errors.std() / math.sqrt(seeds)
    if method in DIAGONALS:
        entries = [diagonal(F, 20, method=method, seed=seed) for seed in range(seeds)]
        inside = torch.stack([
            (e.interval(0.9)[0] <= F.diagonal()) & (F.diagonal() <= e.interval(0.9)[1])
            for e in entries
        ])  # fmt: skip
        assert 0.86 <= float(inside.double().mean()) <= 0.94
