"""The dimension against the number of observations."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from geometry.test_closed_forms import linear_network, weights
from lightlike.errors import CapacityError, ChoiceError
from lightlike.geometry.counting import ascending
from lightlike.geometry.prefixes import Prefixes
from oracles.networks import mlp, normal
from oracles.reference import whitened

HEADS = pytest.mark.parametrize("head", ["gaussian", "categorical"])


def order(n, seed=0):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def generic(widths, seed=0, activation="tanh"):
    random = torch.Generator().manual_seed(seed)
    model = mlp(widths, activation).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.8 * torch.randn(p.shape, generator=random, dtype=torch.float64))
    return model


@HEADS
@pytest.mark.parametrize("widths", [[3, 8, 2], [2, 5, 3], [4, 6, 5, 3]], ids=str)
def test_tanh_networks_gain_every_row_until_they_saturate(widths, head):
    """d̂(n) = min(d, n rank Λ), d = D, less the shifts of logits."""
    model = generic(widths)
    D = sum(p.numel() for p in model.parameters())
    d = D - (widths[-2] + 1) * (head == "categorical")
    rank = widths[-1] - (head == "categorical")
    s = ll.saturation(ll.fisher(model, (2 * normal(120, widths[0], seed=1),), head))
    assert s.rank == rank
    assert s.rows == tuple(n * rank for n in s.sizes)
    assert [int(x) for x in s.dimensions] == [min(d, n * rank) for n in s.sizes]
    assert {x.kind for x in (*s.dimensions, s.dimension)} == {"exact"}
    assert s.point == (-(-d // rank) - 1, -(-d // rank))
    assert int(s.dimension) == d
    assert set(s.point) <= set(s.sizes)


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("head", ["gaussian", "categorical", "poisson"])
def test_every_subset_has_the_rank_of_its_rows(n, activation, head):
    """Also with repeated inputs, and for ReLU, which stays below the line near the corner."""
    model, seed = generic([3, 6, 4], 2, activation), 5
    x = normal(n, 3, seed=1)
    x[: n // 4] = x[n // 2 : n // 2 + n // 4]
    sizes = [1, 2, 3, 5, 8, 11, 14, 16, 17, 19, n]
    s = ll.saturation(ll.fisher(model, (x,), head), sizes, seed)
    rows = whitened(model, [((x,), None)], head).reshape(n, -1, s.parameters)[order(n, seed)]
    naive = [np.linalg.matrix_rank(rows[:k].reshape(-1, s.parameters)) for k in sizes]
    assert s.sizes == tuple(sizes)
    assert [int(d) for d in s.dimensions] == naive
    ranks = [np.linalg.matrix_rank(rows[: k + 1].reshape(-1, s.parameters)) for k in range(n)]
    first = ranks.index(ranks[-1]) + 1
    full = ranks[-1] == s.parameters
    assert s.point == ((first - 1, first) if first < n or full else None)


@pytest.fixture(scope="module")
def deep():
    """Eight linear layers: eigenvalues of the Gram matrix count 255 where the rank is 256."""
    model = weights(linear_network([16] * 9))
    return ll.fisher(model, (normal(24, 16, seed=1),), "gaussian")


@pytest.mark.parametrize("memory", [None, 2.2e7], ids=["factorised", "refined in subspaces"])
def test_small_singular_values_are_refined(deep, memory):
    sizes = [8, 15, 16, 17]
    prefixes = Prefixes(deep, order(24), memory)
    assert prefixes._fits == (memory is None)
    found = [prefixes.dimension(n) for n in sizes]
    assert [(int(d), d.kind) for d in found] == [(128, "exact"), (240, "exact")] + 2 * [
        (256, "exact")
    ]
    assert prefixes.refined >= 2
    assert ll.saturation(deep, sizes, memory=memory).point == (15, 16)


def test_rows_beyond_memory_are_refused():
    model = generic([2, 3, 1])
    F = ll.fisher(model, (normal(3000, 2),), "gaussian")
    with pytest.raises(CapacityError, match="Neither the 3,000 × 3,000 Gram"):
        ll.saturation(F, memory=800_000)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 30),
    activation=st.sampled_from(["relu", "tanh"]),
    head=st.sampled_from(["gaussian", "categorical", "bernoulli"]),
    scale=st.sampled_from([0.3, 1.0, 4.0]),
)
def test_it_never_falls(seed, n, activation, head, scale):
    model = weights(mlp([3, 4, 3], activation), seed, scale)
    F = ll.fisher(model, (normal(n, 3, seed=seed),), head)
    s = ll.saturation(F, seed=seed)
    for bound in ("lower", "value", "upper"):
        numbers = [getattr(d, bound) for d in s.dimensions]
        assert numbers == sorted(numbers)
    assert all(
        d.lower <= d.value <= d.upper <= k for d, k in zip(s.dimensions, s.rows, strict=True)
    )
    assert s.dimensions[-1] == ll.dimension(F)
    assert s == ll.saturation(F, seed=seed)


def test_a_dead_network_has_nothing_to_saturate():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    s = ll.saturation(ll.fisher(model.eval(), (normal(10, 3),), "gaussian"))
    assert s.point is None
    assert {int(d) for d in s.dimensions} == {0}
    assert "No direction" in str(s)


def test_as_many_rows_as_parameters_are_enough():
    s = ll.saturation(ll.fisher(generic([3, 8, 2]), (2 * normal(25, 3, seed=1),), "gaussian"))
    assert (int(s.dimension), s.parameters, s.rows[-1]) == (50, 50, 50)
    assert s.point == (24, 25)


def test_falling_bounds_are_an_error(deep):
    small = ll.dimension(ll.fisher(generic([2, 3, 1]), (normal(5, 2),), "gaussian"))
    with pytest.raises(ll.errors.ConsistencyError, match="between 256 and 5"):
        ascending([ll.dimension(deep), small])


@pytest.mark.parametrize("sizes", [[0, 4], [25], []])
def test_sizes_that_are_none(deep, sizes):
    with pytest.raises(ChoiceError, match="from 1 to 24"):
        ll.saturation(deep, sizes)


def test_float32_is_refused():
    F = ll.fisher(generic([2, 3, 1]), (normal(5, 2),), "gaussian", dtype="float32")
    with pytest.raises(ChoiceError, match="float64"):
        ll.saturation(F)


def test_as_text_and_as_plain_values(untouched):
    model, x = generic([2, 5, 3]), normal(30, 2)
    with untouched(model, x):
        s = ll.saturation(ll.fisher(model, (x,), "gaussian"))
    assert "Saturates at dimension 33 at 11 observations of 30." in str(s)
    assert max(map(len, str(s).splitlines())) <= 100
    plain = json.loads(json.dumps(s.to_dict(), allow_nan=False))
    assert plain["point"] == [10, 11]
    assert [d["value"] for d in plain["dimensions"]] == [min(33, 3 * n) for n in plain["sizes"]]
    few = ll.saturation(ll.fisher(model, (x[:4],), "gaussian"), [4])
    assert few.point is None
    assert "Not saturated" in str(few)
