"""Rules of Gauss and Radau against the measures they stand for, taken from eigenvectors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.errors import EstimateError
from lightlike.spectrum.probes import Operator
from lightlike.spectrum.recurrence import Recurrence, leading
from lightlike.spectrum.tridiagonal import Measure
from oracles.matrices import planted, toeplitz

BERNSTEIN = {
    "log": lambda t: torch.log1p(100 * t),
    "soft": lambda t: t / (t + 0.01),
    "root": torch.sqrt,
    "exponential": lambda t: 1 - torch.exp(-3 * t),
}


def spectra():
    """Clustered, repeated, rapidly decaying and rank-deficient eigenvalues."""
    size = st.floats(1e-6, 10.0)
    return st.one_of(
        st.lists(size, min_size=1, max_size=12),
        st.builds(lambda v, n: [v] * n, size, st.integers(1, 8)),
        st.builds(lambda n, r: [r**k for k in range(n)], st.integers(1, 14), st.floats(0.05, 0.9)),
        st.builds(lambda v, z: v + [0.0] * z, st.lists(size, min_size=1, max_size=6),
                  st.integers(1, 6)),
    )  # fmt: skip


def stepped(F, start, steps):
    run = Recurrence(Operator(F), start[:, None])
    while run.steps < steps and not run.finished:
        run.advance()
    return run.measures()[0]


def true_measure(F, start):
    values, vectors = np.linalg.eigh(F.numpy())
    return torch.as_tensor(values).clamp_min(0), torch.as_tensor(
        (vectors.T @ (start / start.norm()).numpy()) ** 2
    )


@settings(max_examples=60, deadline=None)
@given(values=spectra(), steps=st.integers(1, 14), seed=st.integers(0, 50))
def test_bounds(values, steps, seed):
    F = planted(values, seed)
    start = torch.randn(len(values), generator=torch.Generator().manual_seed(seed)).double()
    measure = stepped(F, start, steps)
    nodes, weights = true_measure(F, start)
    for name, f in BERNSTEIN.items():
        truth = float(weights @ f(nodes))
        low, high = measure.bounds(f)
        # √λ is not smooth at 0: rounding of eigenvalues there is of the order √eps.
        slack = 1e-6 if name == "root" else 1e-9
        assert low - slack <= truth <= high + slack, name
    for x in (0.0, 1e-4, 0.3 * max(values), 0.9 * max(values), 2 * max(values)):
        low, high = measure.above(x)
        error = 1e-12 * max(values)
        least, most = (float(weights[nodes > x + e].sum()) for e in (error, -error))
        assert low - 1e-9 <= most
        assert least <= high + 1e-9
        assert 0.0 <= low <= high <= 1.0


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_moments_of_gauss_rule(steps):
    """∫ λ^j dμ for j ≤ 2m − 1, and to 2m by Radau with its further node."""
    F = toeplitz(20) / 4
    start = torch.linspace(1, 2, 20, dtype=torch.float64)
    measure = stepped(F, start, steps)
    nodes, weights = true_measure(F, start)
    for rule, most in [(measure.gauss, 2 * steps - 1), (measure.radau, 2 * steps)]:
        for j in range(most + 1):
            assert math.isclose(rule.of(lambda t, j=j: t**j), float(weights @ nodes**j),
                                rel_tol=1e-10)  # fmt: skip
    assert float(measure.radau.nodes[0]) == pytest.approx(0.0, abs=1e-13)


def test_the_recurrence_is_that_of_lanczos():
    """F V = V T + β v e_mᵀ with V orthonormal, also where it would lose that without care."""
    F = planted([10.0**-k for k in range(16)])
    run = Recurrence(Operator(F), torch.ones(16, 1, dtype=torch.float64), room=2)
    for _ in range(9):
        run.advance()
    V, m = run.basis[0, :9], run.measures()[0]
    assert torch.allclose(V @ V.T, torch.eye(9, dtype=torch.float64), atol=1e-13)
    T = torch.diag(m.alphas) + torch.diag(m.betas[:-1], 1) + torch.diag(m.betas[:-1], -1)
    left = F @ V.T - V.T @ T
    assert float(left[:, :-1].abs().max()) < 1e-14
    assert math.isclose(float(left[:, -1].norm()), float(m.betas[-1]), rel_tol=1e-6)


def test_side_by_side_is_one_by_one():
    F = torch.diag(torch.linspace(1.0, 2.0, 30, dtype=torch.float64))
    block = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    block[9:, 1] = 0.0
    block[:, 2] = torch.eye(30)[3]  # an eigenvector: its measure is known after one step
    run = Recurrence(Operator(F), block)
    while not run.finished:
        run.advance()
    assert run.lengths[1:] == [9, 1]
    for measure, start in zip(run.measures(), block.T, strict=True):
        alone = stepped(F, start, 30)
        assert torch.allclose(measure.gauss.nodes, alone.gauss.nodes, atol=1e-12)
        assert measure.exhausted


def test_leading_pairs():
    values = [9.0, 5.0, 4.9, 1.0, *np.linspace(0.001, 0.1, 36)]
    F = planted(values)
    start = torch.randn(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = leading(Operator(F), start, 4, 40)
    assert np.allclose(found.values, values[:4], rtol=1e-6)
    residual = (F @ found.vectors - found.vectors * found.values).norm(dim=0)
    assert torch.allclose(residual, found.residuals, atol=1e-12)
    # Too few steps: only what has converged, from the top on without a gap.
    short = leading(Operator(F), start, 4, 4)
    assert len(short.values) < 4
    assert bool((short.residuals <= 1e-4 * short.values).all())


def test_what_is_not_symmetric_or_not_positive():
    skew = toeplitz(12)
    skew[2, 7] += 1.0
    with pytest.raises(EstimateError, match="not symmetric"):
        stepped(skew, torch.ones(12, dtype=torch.float64), 12)
    indefinite = planted([-0.1, 1.0, 2.0])
    with pytest.raises(EstimateError, match=r"eigenvalue of -0\.1"):
        _ = stepped(indefinite, torch.ones(3, dtype=torch.float64), 3).gauss


def test_a_mean_and_a_variance_bound_a_tail():
    """One step knows both: Cantelli's inequality."""
    mean, deviation = 2.0, 0.5
    measure = Measure(torch.tensor([mean]).double(), torch.tensor([deviation]).double())
    low, high = measure.above(1.0)
    assert (low, high) == pytest.approx((1 - 0.25 / 1.25, 1.0))
    low, high = measure.above(3.0)
    assert (low, high) == pytest.approx((0.0, 0.25 / 1.25))
