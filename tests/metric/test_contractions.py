"""Factors against their own entries, in both orders of multiplication."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.metric.contractions import Dense, Outer, add_up
from lightlike.metric.contractions.factor import by_sample, cross_entries
from lightlike.metric.contractions.pairs import add_pairs
from oracles.networks import normal

sizes = st.integers(1, 4)


def outer(k, s, p, ins, outs, bias, seed):
    x, g = normal(s, p, ins, seed=seed), normal(k, s, p, outs, seed=seed + 1)
    if bias:
        x = torch.nn.functional.pad(x, (0, 1), value=1.0)
    return Outer(x, g, bias=bias)


def entries(factor):
    """The rows (k, s, width) one weight gradient at a time."""
    rows = []
    for c, i in itertools.product(range(factor.per_sample), range(factor.samples)):
        full = factor.g[c, i].T @ factor.x[i]
        parts = [full[:, :-1].reshape(-1), full[:, -1]] if factor.bias else [full.reshape(-1)]
        rows.append(torch.cat(parts))
    return torch.stack(rows).view(factor.per_sample, factor.samples, -1)


def same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, sizes, sizes, sizes, st.booleans(), st.integers(0, 999))
def test_outer_products_are_their_entries(k, s, p, ins, outs, c, bias, seed):
    factor = outer(k, s, p, ins, outs, bias, seed)
    rows = entries(factor)
    assert factor.width == rows.shape[-1]
    assert same(factor.dense(), rows)
    v, u = normal(factor.width, c, seed=seed), normal(k, s, c, seed=seed)
    assert same(factor.apply(v), rows @ v)
    assert same(factor.pull(u), torch.einsum("ksw,ksc->wc", rows, u))
    assert factor.squared_norm() == pytest.approx(float(rows.square().sum()))
    w = v[:, 0].exp()
    assert same(factor.scaled(w).dense(), rows * w)
    one = factor.scaled(torch.full_like(w, 2.5))
    assert isinstance(one, Outer)
    assert same(one.dense(), rows * 2.5)
    if bias:
        w[: ins * outs], w[ins * outs :] = 0.5, 3.0
        two = factor.scaled(w)
        assert isinstance(two, Outer)
        assert same(two.dense(), rows * w)
    start = seed % s
    assert same(factor.narrow(start, s - start).dense(), rows[:, start:])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(sizes, sizes, sizes), st.tuples(sizes, sizes, sizes), sizes, sizes, st.booleans(),
    st.booleans(), st.sampled_from(["weights", "positions", "chosen"]), st.integers(0, 999),
)  # fmt: skip
def test_inner_products_in_every_order(mine, theirs, ins, outs, bias, written, order, seed):
    left = outer(*mine, ins, outs, bias, seed)
    right = outer(*theirs, ins, outs, bias, seed + 5)
    expected = by_sample(entries(left)) @ by_sample(entries(right)).T
    other = Dense(right.dense()) if written else right
    out = torch.ones_like(expected)
    if order != "chosen" and not written:
        if order == "weights":
            cross_entries(left, right, out, fresh=False)
        else:
            add_pairs(left._rows(), right._rows(), out, symmetric=False)
    else:
        left.cross(other, out, fresh=False)
    assert same(out, expected + 1)
    out.fill_(1)
    Dense(left.dense()).cross(other, out, fresh=False)
    assert same(out, expected + 1)
    for factor in (left, Dense(left.dense()), left.settled()):
        out.fill_(float("nan"))
        factor.cross(other, out, fresh=True)
        assert same(out, expected)


@pytest.mark.parametrize("bias", [False, True])
def test_short_samples_are_padded_when_joined(bias):
    parts = [outer(2, s, p, 3, 2, bias, s) for s, p in [(2, 1), (1, 3), (3, 2)]]
    joined = Outer.join(parts)
    assert same(joined.dense(), torch.cat([entries(part) for part in parts], 1))
    dense = Dense.join([parts[0], Dense(parts[1].dense())])
    assert same(dense.dense(), joined.dense()[:, :3])


@pytest.mark.parametrize("kinds", [(Outer, Outer), (Outer, Dense), (Dense, Dense)])
def test_uses_add_up(kinds):
    first, second = outer(2, 3, 1, 3, 2, False, 0), outer(2, 3, 2, 3, 2, False, 1)
    factors = [
        f if kind is Outer else Dense(f.dense())
        for kind, f in zip(kinds, (first, second), strict=True)
    ]
    assert same(add_up(factors).dense(), entries(first) + entries(second))
    assert add_up(factors[:1]) is factors[0]
