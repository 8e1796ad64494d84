"""What holds of every approximation of every network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from oracles import networks as nets

LIKELIHOODS = ["gaussian", "categorical", "bernoulli", "poisson"]


@st.composite
def problems(draw):
    """A small network, inputs with positions or without, a likelihood."""
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    act = draw(st.sampled_from(["relu", "tanh", "leaky"]))
    bias = draw(st.booleans())
    norm = nn.LayerNorm if draw(st.booleans()) else None
    model = nets.fill(nets.mlp(widths, act, bias, norm), draw(st.integers(0, 99)))
    shape = draw(st.integers(1, 6)), *draw(st.sampled_from([(), (2,), (3,)])), widths[0]
    x = nets.normal(*shape, seed=draw(st.integers(0, 99)))
    likelihood = draw(st.sampled_from(LIKELIHOODS))
    if likelihood == "categorical" and widths[-1] == 1:
        likelihood = "bernoulli"
    return model, x, likelihood


@settings(max_examples=25, deadline=None)
@given(problem=problems(), sharing=st.sampled_from(["expand", "reduce"]))
def test_the_correction_is_the_pinching_of_the_exact_matrix(problem, sharing):
    model, x, likelihood = problem
    F = ll.fisher(model, (x,), likelihood)
    exact = F.dense()
    total = float(exact.trace())
    plain = F.kronecker(sharing=sharing)
    corrected = F.kronecker(sharing=sharing, eigenvalue_correction=True)
    K, E = plain.dense(), corrected.dense()
    assert float((E - exact).norm()) <= float((K - exact).norm()) + 1e-10 * total
    # The nearest: what is left is orthogonal to all that has these eigenvectors.
    assert abs(float(((E - exact) * E).sum())) <= 1e-10 * total**2
    assert corrected.trace() == pytest.approx(total, rel=1e-10, abs=1e-300)
    for M in (K, E):
        assert float(torch.linalg.eigvalsh(M)[0]) >= -1e-10 * max(total, 1e-300)
    # Majorisation (Schur): sums of the largest eigenvalues are never more than those of Î.
    sums = [torch.linalg.eigvalsh(M).flip(0).cumsum(0) for M in (E, exact)]
    assert bool((sums[0] <= sums[1] + 1e-10 * total).all())
    scale = 7.0 / max(total, 1e-300)
    truth = float(torch.logdet(torch.eye(len(exact)) + scale * exact))
    assert corrected.logdet(scale) >= truth - 1e-10


@settings(max_examples=15, deadline=None)
@given(problem=problems(), at=st.integers(1, 5))
def test_batches_do_not_show(problem, at):
    model, x, likelihood = problem
    at = min(at, len(x))
    whole = ll.fisher(model, (x,), likelihood)
    split = ll.fisher(model, [(part,) for part in (x[:at], x[at:]) if len(part)], likelihood)
    size = float(whole.dense().norm())
    for get in (ll.Fisher.kronecker, ll.Fisher.diagonal, ll.Fisher.blocks):
        assert float((get(whole).dense() - get(split).dense()).norm()) <= 1e-10 * size
