"""The displacement by products against the closed form with explicit matrices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lightlike as ll
from lightlike.length import conjugate
from lightlike.length.conjugate import displacement_by_products, minimum
from lightlike.length.gaussian import expand
from oracles import networks as nets
from oracles.reference import whitened

X, Y = nets.normal(12, 3, seed=1), torch.arange(12) % 4


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 20),
    rank=st.integers(0, 20),
    scale=st.floats(-3, 3),
    far=st.floats(-2, 4),
)
def test_the_minimum_is_the_closed_form_within_its_error(seed, size, rank, scale, far):
    random = np.random.default_rng(seed)
    B = 10**scale * random.standard_normal((min(rank, size), size))
    H, z = B.T @ B, 10**far * random.standard_normal(size)
    b = B.T @ random.standard_normal(len(B))
    found = minimum(lambda v: torch.from_numpy(H) @ v, torch.from_numpy(z), torch.from_numpy(b))
    # ½ zᵀ(I − M)z − bᵀMz − ½ bᵀMb from the singular vectors of B: no |z|² in it.
    _, s, V = np.linalg.svd(B, full_matrices=False)
    p, q, h = V @ b, V @ z, s**2
    terms = (h * q**2 - 2 * p * q - p**2) / (1 + h)
    expected = 0.5 * terms.sum()
    size_of_terms = (h * q**2).sum() + abs(p * q).sum() + (p**2).sum()
    rounding = 1e-11 * size_of_terms
    assert -rounding <= expected - found.value <= found.error + rounding


@pytest.mark.parametrize("prior", [
    ll.priors.Isotropic(0.7, mean=0.2),
    ll.priors.Isotropic(30.0),
    ll.priors.PerParameter(torch.linspace(-1, 2, 36).clamp_min(0), mean=0.1),
])  # fmt: skip
def test_a_network_far_from_an_optimum(prior):
    model = nets.fill(nets.mlp([3, 4, 4], "tanh"), 0)
    F = ll.fisher(model, (X, Y), "categorical")
    resolved, expansion = prior.resolve(F.problem), expand(F.problem)
    found = displacement_by_products(F.problem, resolved, expansion)
    # Independently: the quadratic model of the loss, minimised over the free parameters.
    A = whitened(model, [(X, None)], "categorical")
    H = 12 * A.T @ A
    variance, mean = resolved.variance.numpy(), resolved.mean.numpy()
    theta, g = F.problem.theta.numpy(), expansion.gradient.numpy()
    free = variance > 0
    e = np.where(free, 0.0, mean - theta)
    start, slope = g @ e + 0.5 * e @ H @ e, g + H @ e
    precision = np.diag(1 / variance[free])
    delta = (theta - mean)[free]
    r = slope[free] + precision @ delta
    expected = start + 0.5 * delta @ precision @ delta
    expected -= 0.5 * r @ np.linalg.solve(H[np.ix_(free, free)] + precision, r)
    assert -1e-8 <= expected - found.value <= found.error + 1e-8
    assert found.error <= conjugate.TOLERANCE
    exact = ll.description_length(F, prior=prior).displacement
    assert found.value == pytest.approx(exact, abs=2e-3)


def test_what_is_left_is_said(monkeypatch):
    monkeypatch.setattr(conjugate, "MOST", 3)
    model = nets.fill(nets.mlp([3, 4, 4], "tanh"), 0)
    m = ll.measure(model, (X, Y), "categorical", method=ll.Sketch(draws=1, repetitions=2),
                   prior=ll.priors.Isotropic(100.0), progress=False)  # fmt: skip
    exact = ll.measure(model, (X, Y), "categorical", prior=ll.priors.Isotropic(100.0),
                       progress=False)  # fmt: skip
    error = m.record["sketch"]["displacement_error"]
    assert m.record["sketch"]["products"] == 3
    assert error > conjugate.TOLERANCE
    assert 0 <= exact.length.displacement - m.length.displacement <= error
    assert any("displacement may be up to" in w for w in m.warnings)


def test_without_labels_there_is_none():
    F = ll.fisher(nets.fill(nets.mlp([3, 4, 4], "tanh"), 0), (X,), "categorical")
    resolved = ll.priors.Isotropic().resolve(F.problem)
    assert displacement_by_products(F.problem, resolved, expand(F.problem)) is None


def test_parts_in_the_radical_cost_nothing():
    z = torch.tensor([1e9, 1.0], dtype=torch.float64)
    b = torch.zeros(2, dtype=torch.float64)
    found = minimum(lambda v: v * torch.tensor([0.0, 3.0], dtype=torch.float64), z, b)
    assert found.value == pytest.approx(0.5 * 3 / 4, rel=1e-12)
    assert math.isfinite(found.error)
