"""Projections by conjugate gradients, held against a singular value decomposition of A."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.geometry import iterative
from oracles.networks import fill, mlp, normal


def naive(F, d):
    A = F.root.dense()
    _, s, V = torch.linalg.svd(A)
    return A, s, V[:d]


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.integers(1, 30), st.integers(1, 8), st.sampled_from(["categorical", "gaussian"]),
    st.sampled_from(["tanh", "leaky", "relu"]), st.integers(0, 99), st.sampled_from([2, 8, 256]),
)  # fmt: skip
def test_projections(n, h, head, act, seed, vectors):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iterative, "VECTORS", vectors)
        model = fill(mlp([3, h, 3], act).double(), seed)
        F = ll.fisher(model, (normal(n, 3, seed=seed),), head)
        radical, screen = ll.subspaces(F, "iterative", tolerance=1e-10, steps=3000)
        v = normal(F.shape[0], 2, seed=seed + 1)
        split = screen.split(v)
    A, s, W = naive(F, int(ll.dimension(F)))
    assert radical.method == "iterative"
    seen = (A @ split.radical).norm(dim=0) / (s[0] * v.norm(dim=0))
    assert float(seen.max()) <= 1e-10
    assert split.residual <= split.tolerance == 1e-10
    torch.testing.assert_close(split.radical + split.screen, v)
    # Each direction of the screen is taken out up to residual · s_1 / s_k.
    left = (W @ split.radical).norm(dim=1) * s[: len(W)] / (s[0] * v.norm())
    assert float(left.max()) <= 1e-10
    # What was subtracted is a combination of A's rows.
    inside = split.screen - W.T @ (W @ split.screen)
    assert float(inside.norm()) <= 1e-9 * float(v.norm())
    assert screen.dimension == len(W)


def test_fewer_vectors_take_more_steps(monkeypatch):
    model = fill(mlp([4, 6, 3], "tanh").double(), 1)
    F = ll.fisher(model, (normal(12, 4),), "gaussian")
    v = normal(F.shape[0], seed=2)
    steps = []
    for vectors in (256, 8):
        monkeypatch.setattr(iterative, "VECTORS", vectors)
        found = ll.subspaces(F, "iterative", tolerance=1e-8)[0].split(v)
        steps.append(found.steps)
        assert found.residual <= 1e-8
    assert steps[0] <= 3
    assert steps[1] > 10
    with pytest.raises(ll.errors.ConsistencyError, match="After 3 steps"):
        ll.subspaces(F, "iterative", tolerance=1e-8, steps=3)[0].project(v)


def test_natural_gradients(monkeypatch):
    monkeypatch.setattr(iterative, "VECTORS", 8)
    model = fill(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).double(), 1)
    F = ll.fisher(model, (normal(30, 4),), "categorical")
    screen = ll.subspaces(F, "iterative", tolerance=1e-9)[1]
    v = normal(F.shape[0], 2, seed=2)
    _, s, W = naive(F, screen.dimension)
    expected = W.T @ ((W @ v) / s[: len(W), None].square())
    torch.testing.assert_close(screen.solve(v), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(screen.norm(v), ll.subspaces(F)[1].norm(v))


def test_a_solution_that_rounding_hides_is_none():
    """With s_1/s_d = 2e5, Î x is computed to 1e-5 of it at best."""
    model = fill(mlp([4, 6, 5, 3], "leaky").double(), 0)
    F = ll.fisher(model, (normal(40, 4),), "categorical")
    screen = ll.subspaces(F, "iterative", steps=50)[1]
    v = normal(F.shape[0], seed=1)
    assert screen.split(v).residual <= 1e-10
    with pytest.raises(ll.errors.ConsistencyError, match="Î x"):
        screen.solve(v)


def test_another_inner_product():
    model = fill(mlp([3, 4, 3], "tanh").double(), 1)
    F = ll.fisher(model, (normal(6, 3),), "categorical")
    precision = torch.exp(normal(F.shape[0], seed=8))
    v = normal(F.shape[0], 2, seed=2)
    found, expected = (
        ll.subspaces(F, method, precision=precision)[1].project(v)
        for method in ("iterative", "svd")
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_auto_iterates_where_nothing_else_fits():
    model = fill(mlp([3, 4, 3], "tanh").double(), 1)
    F = ll.fisher(model, (normal(6, 3),), "categorical")
    v = normal(F.shape[0], seed=2)
    radical, screen = ll.subspaces(F, memory=1000)
    assert (radical.method, ll.subspaces(F)[0].method) == ("iterative", "gram")
    assert "not computed" in repr(radical)
    expected = ll.subspaces(F)[0].project(v)
    torch.testing.assert_close(radical.project(v), expected, rtol=0, atol=1e-6)
    assert radical.contains(expected)
    assert not radical.contains(v)
    assert screen.contains(F.root.rmv(normal(12, seed=1)))
    assert not screen.contains(v)
    for ask in (lambda: screen.dimension, lambda: ll.subspaces(F, "gram", memory=1000)):
        with pytest.raises(ll.errors.CapacityError):
            ask()
    exact = ll.subspaces(F, "iterative")[1]
    for ask in (
        exact.basis, exact.share, exact.metric, lambda: exact.angles(exact),
        ll.subspaces(F, "iterative")[0].basis,
    ):  # fmt: skip
        with pytest.raises(ll.errors.ChoiceError, match="does not know"):
            ask()


def test_a_tolerance_is_of_the_iteration():
    F = ll.fisher(fill(mlp([3, 2], "tanh").double(), 0), (normal(4, 3),), "gaussian")
    for options in ({"method": "foo"}, {"steps": "a"}, {"precision": "a"}, {"tolerance": "a"}):
        with pytest.raises(ll.errors.ChoiceError, match=next(iter(options))):
            ll.subspaces(F, **options)
    with pytest.raises(ll.errors.ChoiceError, match="'iterative'"):
        ll.subspaces(F, "foo")
    for method, tolerance in (
        ("gram", 1e-8), ("auto", 1e-3), ("iterative", 0.0), ("iterative", 2.0),
    ):  # fmt: skip
        with pytest.raises(ll.errors.ChoiceError, match="tolerance"):
            ll.subspaces(F, method, tolerance=tolerance)


def test_nothing_is_felt_at_all():
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    F = ll.fisher(model, (torch.zeros(4, 3),), "gaussian")
    radical, screen = ll.subspaces(F, "iterative")
    v = normal(6)
    assert torch.equal(radical.project(v), v)
    assert not screen.solve(v).any()


def test_faint_directions_are_not_called_null():
    """A last weight near 0 makes small singular values, of which none is 0."""
    model = fill(mlp([2, 3, 1], "tanh").double(), 0)
    with torch.no_grad():
        model[2].weight.mul_(1e-9)
    F = ll.fisher(model, (normal(40, 2),), "gaussian")
    radical, _ = ll.subspaces(F, memory="1 KB")
    assert radical.method == "iterative"
    assert int(ll.dimension(F)) == F.shape[0]
    first = torch.eye(F.shape[0], dtype=torch.float64)[0]
    assert not radical.contains(first)
    assert float(radical.project(first).norm()) < 1e-2


def test_a_column_that_is_solved_waits_for_the_others():
    """More rows than the preconditioner has vectors, and a vector without any part to remove."""
    F = ll.fisher(fill(mlp([4, 12, 16, 3], "tanh").double(), 1), (normal(140, 4),), "categorical")
    exact, other = (ll.subspaces(F, method) for method in ("gram", "iterative"))
    v = normal(F.shape[0], 2, seed=3)
    v[:, 1] = 0.0
    split = other[0].split(v)
    assert split.steps > 10
    assert not split.radical[:, 1].any()
    assert not split.screen[:, 1].any()
    turned = 1e-12 * float(exact[1].rows.largest / exact[1].rows.singular_values[-1])
    torch.testing.assert_close(split.radical, exact[0].project(v), rtol=0, atol=turned)
