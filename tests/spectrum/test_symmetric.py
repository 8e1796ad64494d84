import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.errors import ConsistencyError
from lightlike.spectrum.rounding import EPS, eigenvalue_floor
from lightlike.spectrum.symmetric import ACCURACY, SymmetricMatrix, cholesky
from oracles.matrices import planted, toeplitz


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_norm_and_trace(scale):
    matrix = SymmetricMatrix(scale * planted([3.0, 2.0, 0.5, 0.0]))
    assert matrix.trace == pytest.approx(5.5 * scale, rel=1e-14)
    assert matrix.norm == pytest.approx(math.sqrt(13.25) * scale, rel=1e-14)
    assert matrix.participation_ratio() == pytest.approx(5.5**2 / 13.25, rel=1e-13)
    assert matrix.error >= eigenvalue_floor(4, 3.0 * scale)


@pytest.mark.parametrize("n", [0, 3])
def test_nothing(n):
    matrix = SymmetricMatrix(torch.zeros(n, n, dtype=torch.float64))
    assert matrix.trace == matrix.norm == matrix.participation_ratio() == 0.0
    shifted = matrix.shifted(7.0)
    assert shifted.logdet == shifted.soft_count == 0.0
    u = torch.ones(n, 2, dtype=torch.float64)
    assert torch.equal(shifted.solve(u), u)


def test_determinant_of_second_differences():
    """det(I + c T) with c = 1 satisfies d_n = 3 d_{n−1} − d_{n−2}: every other Fibonacci number."""
    fibonacci = [1, 1]
    while len(fibonacci) < 62:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    for n in (1, 2, 5, 30):
        shifted = SymmetricMatrix(toeplitz(n)).shifted(1.0)
        assert shifted.logdet == pytest.approx(math.log(fibonacci[2 * n + 1]), rel=1e-13)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 40), st.integers(0, 20), st.floats(0, 14), st.floats(-10, 16),
    st.integers(0, 10**6),
)  # fmt: skip
def test_sums_over_eigenvalues_from_a_factor(rank, null, depth, log_scale, seed):
    """Within the stated error of the sums over the planted eigenvalues, or not given at all."""
    values = 10 ** -np.random.default_rng(seed).uniform(0, depth, rank)
    scale = 10**log_scale
    shifted = SymmetricMatrix(planted([*values, *[0.0] * null], seed)).shifted(scale)
    expected = float(np.log1p(scale * values).sum())
    if shifted.logdet is not None:
        assert abs(shifted.logdet - expected) <= shifted.error <= ACCURACY * shifted.logdet
    soft = float((scale * values / (1 + scale * values)).sum())
    if shifted.soft_count is not None:
        assert abs(shifted.soft_count - soft) <= shifted.error <= ACCURACY * shifted.soft_count
    if 1e-2 < scale < 1e3 and depth < 2:
        assert shifted.logdet is not None
        assert shifted.soft_count is not None


@pytest.mark.parametrize("scale", [1e-9, 1e8])
def test_no_number_where_rounding_hides_it(scale):
    shifted = SymmetricMatrix(planted([1.0, *[0.0] * 9])).shifted(scale)
    assert shifted.logdet is None
    assert shifted.soft_count is None
    assert "factor" not in vars(shifted)  # nothing was factorised in vain


def test_no_number_from_entries_of_lower_precision():
    coarse = SymmetricMatrix(planted([1.0, 0.5]), precision=2.0**-23)
    assert coarse.shifted(1.0).logdet is None
    assert coarse.error == pytest.approx(SymmetricMatrix(coarse.entries).error * 2.0**-23 / EPS)


def test_solutions():
    matrix = planted([4.0, 1.0, 0.1])
    u = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = SymmetricMatrix(matrix).shifted(5.0).solve(u)
    np.testing.assert_allclose(x + 5.0 * matrix @ x, u, atol=1e-14)


def test_a_bound_that_cannot_be_told_from_zero_has_no_count():
    matrix = SymmetricMatrix(planted([1.0, 1e-3, 0.0]))
    assert matrix.count(1e-15, 3) is None
    assert matrix.count(0.0, 3) is None
    assert matrix.count(-1.0, 3) is None
    assert matrix.count(float("nan"), 3) is None
    assert matrix.count(1e-4, 3).value == 2


@pytest.mark.parametrize("n", [0, 1, 4, 33])
def test_cholesky_factors(n):
    matrix = planted(np.linspace(1, 5, n), n)
    factor = cholesky(matrix.clone())
    assert torch.equal(factor, factor.tril())
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-13)


def test_a_matrix_that_is_not_positive_is_told():
    with pytest.raises(ConsistencyError, match="leading minor 2 of 3"):
        cholesky(torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)))
