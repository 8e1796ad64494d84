"""Bounds on eigenvalues from residuals and random starts, against whole decompositions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.spectrum.krylov import orthonormal
from lightlike.spectrum.leading import errors_of
from lightlike.spectrum.missing import largest_unseen
from oracles.matrices import planted


def ritz(full, basis):
    """θ, r, X of Rayleigh and Ritz's method, and the largest eigenvalue beyond X."""
    values, turned = np.linalg.eigh(basis.T @ full @ basis)
    values, X = values[::-1], (basis @ turned)[:, ::-1]
    residuals = full @ X - X * values
    P = np.eye(len(full)) - X @ X.T
    return values, np.linalg.norm(residuals, axis=0), float(np.linalg.eigvalsh(P @ full @ P)[-1])


@settings(deadline=None, max_examples=80)
@given(
    exponents=st.lists(st.floats(-4.0, 0.0), min_size=6, max_size=25),
    kept=st.integers(1, 6),
    count=st.integers(0, 6),
    off=st.sampled_from([1e-8, 1e-4, 1e-2, 0.3, 3.0]),
    noise=st.sampled_from([0.0, 1e-6, 1e-2]),
    seed=st.integers(0, 999),
)
def test_errors_from_residuals_and_gaps(exponents, kept, count, off, noise, seed):
    """Of any subspace, near an invariant one or not; of a matrix that is off by `noise`, too."""
    count = min(count, kept)
    full = planted([10.0**e for e in exponents], seed).numpy()
    vectors = np.linalg.eigh(full)[1]
    random = np.random.default_rng(seed)
    start = vectors[:, ::-1][:, :kept] + off * random.standard_normal((len(full), kept))
    values, residuals, unseen = ritz(full, np.linalg.qr(start)[0])
    moved = full
    if noise:
        E = random.standard_normal(full.shape)
        E = E + E.T
        moved = full + noise * E / np.linalg.norm(E, 2)
    errors, rest = errors_of(values, residuals, max(unseen, 0.0), count, noise)
    exact = np.linalg.eigvalsh(moved)[::-1]
    slack = 1e-13
    assert (exact[:count] >= values[:count] - noise - slack).all()
    assert (exact[:count] <= values[:count] + errors + slack).all()
    assert (exact[count:] <= rest + slack).all()


def test_errors_are_quadratic_behind_a_gap():
    """A two by two matrix: [[1, r], [r, 0]] has 1 + r² − r⁴ + …"""
    r = 1e-4
    errors, rest = errors_of(np.array([1.0]), np.array([r]), 0.0, 1)
    assert r**2 - r**4 <= errors[0] <= 1.01 * r**2
    assert rest <= r


def tridiagonal(diagonal, start, steps):
    """Lanczos' process on a diagonal matrix, written out."""
    q, older, beta = start / np.linalg.norm(start), 0.0, 0.0
    basis, alphas, betas = [q], [], []
    for _ in range(steps):
        w = diagonal * q - beta * older
        alphas.append(float(q @ w))
        w = w - alphas[-1] * q
        for b in basis:
            w = w - (b @ w) * b
        beta = float(np.linalg.norm(w))
        betas.append(beta)
        older, q = q, w / beta
        basis.append(q)
    T = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    return np.linalg.eigvalsh(T), np.array(betas)


@pytest.mark.parametrize("rest", ["flat", "decaying"])
@pytest.mark.parametrize("steps", [2, 5, 9])
def test_eigenvalues_are_missed_as_rarely_as_is_said(steps, rest):
    n, chance, runs = 150, 0.2, 400
    other = np.linspace(0.9, 0.0, n - 1) if rest == "flat" else 0.9 * 0.7 ** np.arange(n - 1)
    diagonal = np.concatenate([[1.0], other])
    random = np.random.default_rng(steps)
    missed = 0
    for _ in range(runs):
        g = random.standard_normal(n)
        ritz_values, betas = tridiagonal(diagonal, g, steps)
        lengths = math.log(math.sqrt(2 / math.pi) * np.linalg.norm(g))
        missed += largest_unseen(ritz_values, betas, lengths, chance, 1.0) < 1.0
    assert missed <= runs * chance + 4 * math.sqrt(runs * chance * (1 - chance))


def test_the_bound_on_what_is_unseen_closes_in():
    n = 400
    diagonal = np.concatenate([[1.0], 0.8 * np.linspace(1.0, 0.0, n - 1)])
    g = np.random.default_rng(0).standard_normal(n)
    lengths = math.log(math.sqrt(2 / math.pi) * np.linalg.norm(g))
    bounds = []
    for steps in (5, 15, 25, 40):
        ritz_values, betas = tridiagonal(diagonal, g, steps)
        bounds.append(largest_unseen(ritz_values, betas, lengths, 1e-6, 1.0))
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(1.0, abs=1e-3)
    assert bounds[-1] >= 1.0
    assert largest_unseen(np.zeros(1), np.zeros(1), 0.0, 1e-6, 0.0) == 0.0


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 6), rank=st.integers(0, 6), seed=st.integers(0, 99),
    size=st.sampled_from([1e-9, 1.0, 1e9]),
)  # fmt: skip
def test_orthonormal_rows(rows, rank, seed, size):
    g = torch.Generator().manual_seed(seed)
    options = {"generator": g, "dtype": torch.float64}
    Z = size * torch.randn(rows, rank, **options) @ torch.randn(rank, 30, **options)
    Q, L = orthonormal(Z, 1e-11 * size)
    assert len(Q) == min(rows, rank)
    torch.testing.assert_close(L @ Q, Z, atol=1e-10 * size, rtol=0)
    torch.testing.assert_close(Q @ Q.T, torch.eye(len(Q)).double(), atol=1e-13, rtol=0)
