import math
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.spectrum.inertia import Inertia, count_above
from oracles.matrices import planted, toeplitz


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6), st.sampled_from(["dense", "hollow", "blocks"]))
def test_signs_of_indefinite_matrices(n, seed, kind):
    random = np.random.default_rng(seed)
    full = random.integers(-3, 4, (n, n)).astype(float)
    full = full + full.T
    if kind != "dense":  # zeros on the diagonal call for 2 × 2 pivots
        np.fill_diagonal(full, 0.0)
    if kind == "blocks":
        full = np.kron(full, np.array([[0.0, 1.0], [1.0, 0.0]]))
    t = float(random.normal())
    values = np.linalg.eigvalsh(full - t * np.eye(len(full)))
    if np.abs(values).min() > 1e-9:
        found = Inertia(torch.as_tensor(full), t)
        assert found.positive == int((values > 0).sum())
        assert found.clear(1e-13)


@pytest.mark.parametrize("n", [1, 2, 7, 60])
@pytest.mark.parametrize("scale", [1.0, 1e-290, 1e290])
def test_eigenvalues_of_second_differences(n, scale):
    matrix = scale * toeplitz(n)
    for k in range(n + 1):
        between = scale * (2 - 2 * math.cos((k + 0.5) * math.pi / (n + 1)))
        count = count_above(matrix, between, 1e-13 * scale, n)
        assert (count.value, count.lower, count.upper) == (n - k,) * 3


def test_the_matrix_is_left_alone():
    matrix = planted([3.0, 2.0, 1.0])
    before = matrix.clone()
    state = torch.get_rng_state()
    count_above(matrix, 2.0, 1e-14, 3)
    assert torch.equal(matrix, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_all_eigenvalues_at_the_bound_stay_open(n):
    count = count_above(torch.eye(n, dtype=torch.float64), 1.0, 1e-14, n)
    assert (count.lower, count.upper) == (0, n)
    assert 0 <= count.value <= n


def test_nothing_exceeds_what_is_known_otherwise():
    matrix = planted([1.0] * 4 + [1e-16] * 6)
    count = count_above(matrix, 1e-17, 1e-15, 4)
    assert count.upper == 4
    assert count.lower <= count.value <= 4
    assert count_above(torch.zeros(0, 0, dtype=torch.float64), 1.0, 1e-15, 0).upper == 0


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 25), st.floats(-3, 3), st.integers(0, 10**6),
    st.sampled_from([1e-13, 1e-9, 1e-3]),
)  # fmt: skip
def test_bounds_hold_however_close(n, distance, seed, error):
    """Bounds count eigenvalues farther than the error, and meet only if none is as near as that."""
    random = np.random.default_rng(seed)
    values = random.uniform(0, 2, n)
    t = float(np.clip(values[0] + distance * error, 0.01, None))
    count = count_above(planted(values, seed), t, error, n)
    slack = 1e-14 * n
    assert (values > t + error + slack).sum() <= count.lower <= (values > t + error - slack).sum()
    assert count.upper <= (values > t - error - slack).sum()
    assert count.lower <= count.value <= count.upper
    nearest = np.abs(values - t).min()
    if nearest < 0.9 * error:
        assert count.lower < count.upper
    assert (count.lower == count.upper) == ((np.abs(values - t) <= error).sum() == 0) or (
        abs(nearest - error) < slack
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("side", [-1, 1])
def test_probes_see_an_eigenvalue_that_is_near_and_only_that(seed, side):
    random = np.random.default_rng(seed)
    others = random.uniform(0, 2, 49)
    matrix = planted(np.append(others[np.abs(others - 1) > 1e-3], 1.0), seed)
    assert not Inertia(matrix, 1.0 + side * 1e-10).clear(2e-10)
    assert Inertia(matrix, 1.0 + side * 1e-4).clear(1e-10)


@pytest.mark.parametrize(("t", "factorisations"), [(0.5, 1), (1.0, 3)])
def test_one_factorisation_unless_it_is_close(t, factorisations, monkeypatch):
    calls = []
    module = import_module("lightlike.spectrum.inertia")

    def counted(*args, **options):
        calls.append(1)
        return factorise(*args, **options)

    factorise = module.dsytrf
    monkeypatch.setattr(module, "dsytrf", counted)
    count_above(planted([2.0, 1.0, 1e-3]), t, 1e-14, 3)
    assert len(calls) == factorisations
