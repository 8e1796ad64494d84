"""Bounds on sums over eigenvalues, against whole decompositions by numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.spectrum.enclosure import Enclosing
from lightlike.spectrum.lanczos import lanczos
from lightlike.spectrum.rounding import EPS


def matrix(seed, size, rank, decay):
    """A matrix whose diagonal is as uneven as its spectrum."""
    random = np.random.default_rng(seed)
    A = random.standard_normal((rank, size)) * 10.0 ** (-decay * np.arange(rank))[:, None]
    A *= 10.0 ** random.uniform(-1, 1, size)
    return A.T @ A


def enclosing(G, count, most=None):
    G = torch.from_numpy(G)
    found = lanczos(G, count, seed=1)
    return Enclosing.of(G, found, G.diagonal(), len(G) if most is None else most, EPS)


def sums(G, c):
    values = np.linalg.eigvalsh(G).clip(0)
    return np.log1p(c * values).sum(), (c * values / (1 + c * values)).sum()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(2, 40),
    share=st.floats(0.05, 1.0),
    decay=st.floats(0.0, 0.3),
    count=st.integers(1, 12),
    exponent=st.floats(-2, 4),
)
def test_the_bounds_hold(seed, size, share, decay, count, exponent):
    rank = max(1, int(share * size))
    G = matrix(seed, size, rank, decay)
    c = 10**exponent / np.trace(G)
    for most in (size, rank):
        e = enclosing(G, count, most)
        logdet, soft = sums(G, c)
        slack = 1e-12 * c * np.trace(G)
        assert e.logdet(c).lower - slack <= logdet <= e.logdet(c).upper + slack
        found = e.effective_dimension(1 / c)
        assert found.lower - slack <= soft <= found.upper + slack
        assert e.trace == pytest.approx(np.trace(G), rel=1e-13)


def test_more_eigenvalues_more_narrow_until_nothing_is_open():
    G = matrix(3, 60, 60, 0.05)
    c = 1e3 / np.trace(G)
    widths = [enclosing(G, k).logdet(c).error for k in (2, 5, 10, 20, 40, 60)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-9 * sums(G, c)[0]
    assert enclosing(G, 60).logdet(c).value == pytest.approx(sums(G, c)[0], rel=1e-9)


def test_each_bound_is_the_closed_form_of_its_case():
    # Equal others: Jensen is sharp. As many as fill the trace: the lower bound is.
    G = np.diag([5.0, 3.0, *[0.5] * 8])
    e = enclosing(G, 2)
    assert (e.logdet(2.0).lower, e.logdet(2.0).upper) == pytest.approx(
        [np.log(11 * 7) + 8 * np.log(2)] * 2, rel=1e-6
    )
    # Unlike others on the diagonal: majorisation is sharp where Jensen is not.
    G = np.diag([5.0, 3.0, 1.0, *[1e-4] * 7])
    e = enclosing(G, 2)
    assert e.logdet(2.0).upper == pytest.approx(sums(G, 2.0)[0], rel=1e-6)
    jensen = np.log(11 * 7) + 8 * np.log1p(2.0 * (1.0 + 7e-4) / 8)
    assert e.logdet(2.0).upper < jensen


def test_nothing_at_all():
    e = enclosing(np.zeros((4, 4)), 2)
    assert (e.logdet(3.0).lower, e.logdet(3.0).upper) == (0.0, 0.0)
    assert e.effective_dimension(1.0).value == 0.0


def test_errors_of_products_widen_the_bounds():
    """An operator in float32: the bounds hold for the float64 matrix with that diagonal."""
    G = matrix(5, 30, 30, 0.05)

    class Rough:
        shape, precision, device = G.shape, 1.2e-7, "cpu"

        def __matmul__(self, v):
            return (torch.from_numpy(G).float() @ v.float()).double()

    rough = Rough()
    found = lanczos(rough, 6, tolerance=1e-4)
    diagonal = torch.from_numpy(G).diagonal()
    e = Enclosing.of(rough, found, diagonal, 30, rough.precision)
    c = 1e2 / np.trace(G)
    bounds, sharp = e.logdet(c), enclosing(G, 6).logdet(c)
    assert bounds.lower <= sums(G, c)[0] <= bounds.upper
    assert bounds.lower < sharp.lower
