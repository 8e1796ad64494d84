"""Standard errors of the variational length hold what they promise, with few draws too."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_evidence import linear, logistic_data, logistic_map
from numpy.polynomial.hermite_e import hermegauss

import lightlike as ll
from lightlike.length.priors import Isotropic
from lightlike.length.variational import regressed, uncertainty

SEEDS = 800


class Logistic:
    """One-parameter logistic regression: the loss under its Laplace posterior, exact and drawn."""

    def __init__(self, N):
        Z, self.y = logistic_data(N, 1)
        self.z, self.m = Z[:, 0], logistic_map(Z, self.y, 4.0)[0]
        p = 1 / (1 + np.exp(-self.z * self.m))
        self.H = float(self.z**2 @ (p * (1 - p)))
        self.C = 1 / (self.H + 0.25)
        self.data = torch.as_tensor(Z), torch.as_tensor(self.y)[:, None]
        nodes, weights = hermegauss(120)
        at = self.loss(self.m + math.sqrt(self.C) * nodes)
        self.exact = float(weights @ at / weights.sum())

    def loss(self, theta):
        h = np.multiply.outer(theta, self.z)
        return (np.logaddexp(0, h) - self.y * h).sum(-1)

    def scores(self, pairs):
        """(mean − truth)/standard error of many samples of antithetic pairs."""
        y = math.sqrt(self.C) * np.random.default_rng(5).standard_normal((SEEDS, pairs))
        values = torch.as_tensor(0.5 * (self.loss(self.m + y) + self.loss(self.m - y)))
        control = torch.as_tensor(0.5 * self.H * y**2)
        rows = zip(values, control, strict=True)
        expected = 0.5 * self.H * self.C
        found = [(regressed(v, c, expected)[0], uncertainty(v, c, expected)) for v, c in rows]
        mean, error = np.array(found).T
        return np.abs(mean - self.exact) / error


# The error of the regression alone misses in 36 %, 27 % and 21 % of samples.
@pytest.mark.parametrize("pairs", [8, 16, 25, 50])
def test_the_error_covers_logistic_regression(pairs):
    scores = Logistic(100).scores(pairs)
    assert np.mean(scores > 2) < 0.08
    # And it is no excuse: half of all errors are not below a fiftieth of it.
    assert np.median(scores) > 0.02


def test_the_length_itself_has_this_error():
    case = Logistic(100)
    F = ll.fisher(linear([[case.m]]), case.data, "bernoulli")
    fits = [ll.lengths.variational(F, prior=Isotropic(4.0), draws=16, seed=s) for s in range(40)]
    scores = np.array([abs(length.fit - case.exact) / length.stderr for length in fits])
    assert np.mean(scores > 2) <= 0.15


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 60), tail=st.floats(-2, 2))
def test_the_error_is_never_below_that_of_the_regression(seed, n, tail):
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    control = x.square()
    values = 3.0 + control + tail * x**4
    error = uncertainty(values, control, 1.0)
    assert error >= regressed(values, control, 1.0)[1]
    # 0 where the control says all, and in proportion to what it does not say.
    assert uncertainty(3.0 + control, control, 1.0) < 1e-12
    fourth = float((values - control).std()) / math.sqrt(n)
    plain = float(values.std()) / math.sqrt(n)
    assert error >= min(fourth, plain)
