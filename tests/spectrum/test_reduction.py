"""Some eigenvectors of a symmetric matrix, also where eigenvalues agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.operator import ExplicitFactor
from lightlike.spectrum.reduction import Reduction
from oracles.networks import normal

EPS = np.finfo(float).eps


def with_eigenvalues(values, seed=0):
    """A symmetric matrix and its eigenvectors, (n, n)."""
    Q = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    values = torch.as_tensor(values, dtype=torch.float64)
    matrix = (Q * values) @ Q.T
    return (matrix + matrix.T) / 2, Q


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(2, 60), st.integers(0, 99), st.floats(0, 12), st.integers(1, 9), st.data())
def test_against_numpy(n, seed, decades, repeats, data):
    """Eigenvalues over many decades, each there several times: any cut through them."""
    count = data.draw(st.integers(1, n))
    spread = 10.0 ** -np.linspace(0, decades, -(-n // repeats))
    matrix, _ = with_eigenvalues(np.repeat(spread, repeats)[:n], seed)
    values, vectors = Reduction(matrix).largest(count)
    expected = np.linalg.eigvalsh(matrix.numpy())[::-1][:count]
    assert np.abs(values.numpy() - expected).max() < 50 * n * EPS
    eye = torch.eye(count, dtype=torch.float64)
    torch.testing.assert_close(vectors.T @ vectors, eye, rtol=0, atol=1e-12)
    # What they span is kept by the matrix, whichever of a cluster they are.
    assert float((matrix @ vectors - vectors * values).abs().max()) < 50 * n * EPS


@pytest.mark.parametrize("count", [1, 5, 11])
def test_a_cluster_that_is_cut_is_filled_from_its_own_space(count):
    """Twenty equal eigenvalues behind one that is larger, and zeros."""
    matrix, Q = with_eigenvalues([3.0] + [1.0] * 20 + [0.0] * 19)
    _, vectors = Reduction(matrix).largest(count)
    assert abs(float(Q[:, 0] @ vectors[:, 0])) == pytest.approx(1.0, abs=1e-14)
    inside = Q[:, 1:21]
    rest = vectors[:, 1:] - inside @ (inside.T @ vectors[:, 1:])
    assert float(rest.abs().max() if rest.numel() else 0.0) < 1e-13


def test_matrices_that_fall_apart():
    """A diagonal matrix is in tridiagonal form already, in blocks of one."""
    values = torch.tensor([1.0, 4.0, 4.0, 0.0, 2.0, 4.0], dtype=torch.float64)
    found, vectors = Reduction(torch.diag(values)).largest(4)
    assert found.tolist() == [4.0, 4.0, 4.0, 2.0]
    assert torch.equal(vectors.abs().sum(1) > 0.5, values >= 2)


def test_few_are_computed_alone_and_many_are_not():
    A = normal(40, 90, seed=1)
    decomposition = decompose(ExplicitFactor(A), "gram")
    U, s, _ = np.linalg.svd(A.numpy(), full_matrices=False)
    for count in (0, 1, 20, 21, 40):
        values, vectors = decomposition.leading(count)
        assert ("vectors" in vars(decomposition)) == (count > 20)
        assert vectors.shape == (40, count)
        np.testing.assert_allclose(values.sqrt().numpy(), s[:count], rtol=1e-13)
        cosines = np.abs((U[:, :count] * vectors.numpy()).sum(0))
        np.testing.assert_allclose(cosines, 1.0, rtol=0, atol=1e-12)
