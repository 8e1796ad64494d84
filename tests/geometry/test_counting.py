"""Independent directions, counted claim by claim, against singular values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array
from torch import nn

import lightlike as ll
from lightlike.geometry.symmetry import counting
from lightlike.geometry.symmetry.counting import CUT, _chosen, count_new
from lightlike.geometry.symmetry.verification import Verified
from oracles.networks import fill, normal
from oracles.nullities import layered, settle


def unit(columns):
    return columns / np.linalg.norm(columns, axis=0)


def above(columns, cut):
    """Singular values of columns above a cut."""
    return int((np.linalg.svd(columns, compute_uv=False) > cut).sum())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 99), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), min_size=1,
                                 max_size=4), st.integers(12, 30),
)  # fmt: skip
def test_chosen_columns_are_as_many_as_singular_values(seed, claims, size):
    """Each claim: some columns of its own, and some combinations of all before and these."""
    random = np.random.default_rng(seed)
    V, stops = np.zeros((size, 0)), []
    for own, mixed in claims:
        V = np.concatenate([V, random.standard_normal((size, own))], 1)
        V = np.concatenate([V, V @ random.standard_normal((V.shape[1], mixed))], 1)
        stops.append(V.shape[1])
    V = unit(V)
    found = _chosen(V.T @ V, stops, CUT)
    assert found == [above(V[:, :stop], CUT) for stop in stops]


@pytest.mark.parametrize(("apart", "expected"), [(1e-1, 3), (1e-3, 3), (3e-5, 2), (1e-9, 2)])
def test_near_dependence_is_no_independence(apart, expected):
    V = unit(np.array([[1, 0, 1], [0, 1, 1], [0, 0, apart], [0, 0, 0]], dtype=float))
    assert _chosen(V.T @ V, [2, 3], CUT) == [2, expected]


def test_what_cannot_be_proven_is_not_answered():
    """Kahan's matrix: each column is far from those before, and all together nearly cancel."""
    n, c = 40, 0.3
    s = np.sqrt(1 - c**2)
    V = (s ** np.arange(n))[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))
    V *= 0.995 ** np.arange(n)  # so that pivots come in this order
    smallest = np.linalg.svd(V, compute_uv=False)[-1]
    assert 20 * smallest < V[-1, -1]
    assert _chosen(V.T @ V, [n], 2 * smallest) == []
    assert _chosen(V.T @ V, [n], smallest / 2) == [n]


def test_many_ways_give_one_count(monkeypatch):
    """In blocks without images columns are chosen; the same as from singular values."""
    random = np.random.default_rng(1)
    V = random.standard_normal((40, 12))
    claims = [V[:, :6], np.concatenate([V[:, 2:8], V[:, :3] @ random.standard_normal((3, 2))], 1),
              V[:, 5:]]  # fmt: skip
    matrices = [csc_array(c) for c in claims]
    checked = [Verified(np.ones(c.shape[1], bool), 0.0, None) for c in claims]
    inert = np.array([3, 7])
    found = count_new(inert, matrices, checked, 1e-12)
    assert found == [6, 2, 4]
    monkeypatch.setattr(counting, "_chosen", lambda *_: [])
    assert count_new(inert, matrices, checked, 1e-12) == found


@pytest.mark.parametrize("n", [4, 40])
def test_fewer_are_counted_where_data_explain_the_rest(n, monkeypatch):
    model = settle(layered([5, 9, 4], None, [0, 0]), np.random.Generator(np.random.PCG64(0)))
    F = ll.fisher(model, (normal(n, 5),), "gaussian")
    before = ll.explain(F)
    monkeypatch.setattr(counting, "FEWER", 20)
    e = ll.explain(F)
    assert (e.explained, e.unexplained) == (81 - min(4 * n, 20), 0)
    limited = F.root.shape[0] == e.shape[1] - e.radical
    assert limited == (n == 4)
    assert e.certain == (20 if limited else before.certain)
    assert sum(s.dimension for s in e.sources) == e.explained


def test_units_that_are_always_on_with_few_observations():
    """A wide network on few samples: named directions and missing data add up."""
    layers = nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4)
    model = nn.Sequential(*layers)
    F = ll.fisher(fill(model.double(), 0), (normal(3, 8),), "categorical")
    e = ll.explain(F)
    A = F.root.dense()
    assert e.radical == F.shape[0] - int(torch.linalg.matrix_rank(A))
    V = e.directions.toarray()
    assert float((A @ torch.from_numpy(unit(V))).abs().max()) < 1e-12
    assert e.certain <= above(unit(V), CUT) <= e.radical
    assert e.certain > 0.9 * above(unit(V), CUT)
