"""Sums of squares of factored rows against the rows written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.metric.contractions import Dense, Grouped, Lookup, Outer, Total
from lightlike.metric.contractions.factor import Weighted
from lightlike.metric.kronecker.squares import squares
from oracles import networks as nets


def outer(k, s, P, outs, ins, *, bias=False, transposed=False, sparse=False):
    x, g = nets.normal(s, P, ins, seed=1), nets.normal(k, s, P, outs, seed=2)
    if bias:
        x[..., -1] = 1.0
    if sparse:  # row r reaches position r mod P alone
        reach = torch.arange(k)[:, None] % P == torch.arange(P)
        g = g * reach[:, None, :, None]
    return Outer(x, g, bias=bias, transposed=transposed)


def table(k, s, P, size, depth):
    tokens = torch.randint(size, (s, P), generator=nets.generator(3))
    return Lookup(tokens, nets.normal(k, s, P, depth, seed=4), size)


def check(factor):
    expected = factor.dense().square().sum((0, 1))
    assert torch.allclose(squares(factor), expected, rtol=1e-11, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 9), s=st.integers(1, 3), P=st.integers(1, 4), outs=st.integers(1, 4),
    ins=st.integers(2, 9), bias=st.booleans(), transposed=st.booleans(), sparse=st.booleans(),
)  # fmt: skip
def test_outer_products(k, s, P, outs, ins, bias, transposed, sparse):
    check(outer(k, s, P, outs, ins, bias=bias, transposed=transposed, sparse=sparse))


@settings(max_examples=20, deadline=None)
@given(k=st.integers(1, 6), s=st.integers(1, 3), P=st.integers(1, 4), Q=st.integers(1, 3))
def test_tables_and_their_sums_with_layers(k, s, P, Q):
    check(table(k, s, P, 5, 3))
    for sparse in (True, False):
        layer = outer(k, s, Q, 5, 3, sparse=sparse)
        check(Total([table(k, s, P, 5, 3), layer]))
        check(Total([layer, table(k, s, P, 5, 3)]))
        turned = outer(k, s, P, 3, 5, transposed=True)
        check(Total([turned, layer]))
        check(Total([turned, layer, table(k, s, P, 5, 3)]))


@pytest.mark.parametrize("transposed", [False, True])
def test_factors_made_of_others(transposed):
    inner = outer(4, 2, 3, 2, 5, bias=True, transposed=transposed)
    check(Weighted(inner, nets.normal(10, seed=5)))
    check(Grouped([inner, Dense(nets.normal(4, 2, 3, seed=6))]))
    check(Dense(nets.normal(4, 2, 3, seed=6)))
