"""Conjugate gradients against direct solutions, and the bounds that they promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.errors import ConsistencyError, EstimateError
from lightlike.spectrum.conjugate import conjugate_gradients


def definite(size, seed, shift=1.0):
    random = torch.Generator().manual_seed(seed)
    A = torch.randn(size, max(1, size // 2), generator=random, dtype=torch.float64)
    return A @ A.T + shift * torch.eye(size, dtype=torch.float64)


def vector(*shape, seed=7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 12), seed=st.integers(0, 1000), columns=st.integers(1, 3))
def test_solutions_and_bounds_are_right(size, seed, columns):
    S, b = definite(size, seed), vector(size, columns, seed=seed)
    exact = torch.linalg.solve(S, b)
    for steps in (1, 3, 100):
        found = conjugate_gradients(S, b, steps=steps, partial=True, tolerance=1e-12)
        assert torch.allclose(found.residual, (b - S @ found.x).norm(dim=0), atol=1e-10)
        off = (found.x - exact).norm(dim=0)
        assert bool((off <= found.error(1.0) + 1e-9).all())
        form = (b * exact).sum(0)
        assert bool((found.form <= form + 1e-9).all())
        assert bool((form <= found.form + found.form_error(1.0) + 1e-9).all())
    assert found.converged


def test_a_vector_stays_a_vector():
    S, b = definite(6, 0), vector(6)
    found = conjugate_gradients(S, b)
    assert found.x.shape == (6,)
    assert found.residual.ndim == 0
    assert torch.allclose(found.x, torch.linalg.solve(S, b))


def test_the_exact_inverse_needs_one_step():
    S, b = definite(30, 1), vector(30, 2)
    inverse = torch.linalg.inv(S)
    plain = conjugate_gradients(S, b)
    steered = conjugate_gradients(S, b, lambda v: inverse @ v)
    assert steered.products <= 3 < plain.products
    assert torch.allclose(steered.x, plain.x, atol=1e-8)


def test_zero_columns_are_solved_by_zero():
    S = definite(5, 2)
    b = torch.stack([torch.zeros(5, dtype=torch.float64), vector(5)], 1)
    found = conjugate_gradients(S, b)
    assert found.residual[0] == 0
    assert bool((found.x[:, 0] == 0).all())
    assert torch.allclose(found.x[:, 1], torch.linalg.solve(S, b[:, 1]))


def test_singular_systems_are_solved_in_the_range():
    A = vector(8, 3)
    S = A @ A.T
    b = S @ vector(8, 2, seed=3)
    found = conjugate_gradients(S, b, tolerance=1e-9)
    assert torch.allclose(found.x, torch.linalg.pinv(S) @ b, atol=1e-7)


def test_a_tolerance_out_of_reach_is_an_error():
    S, b = definite(30, 1), vector(30)
    with pytest.raises(EstimateError, match="residual"):
        conjugate_gradients(S, b, steps=2)
    found = conjugate_gradients(S, b, steps=2, partial=True)
    assert not found.converged
    assert float(found.residual) == pytest.approx(float((b - S @ found.x).norm()))


def test_an_absolute_residual_ends_the_search():
    S, b = definite(30, 1), vector(30)
    found = conjugate_gradients(S, b, tolerance=0.0, absolute=1e-2)
    assert found.converged
    assert 1e-9 < float(found.residual) <= 1e-2


def test_indefinite_matrices_and_preconditioners_are_refused():
    S, b = definite(5, 1), vector(5)
    with pytest.raises(ConsistencyError, match="matrix"):
        conjugate_gradients(-S, b)
    with pytest.raises(ConsistencyError, match="preconditioner"):
        conjugate_gradients(S, b, lambda v: -v)
