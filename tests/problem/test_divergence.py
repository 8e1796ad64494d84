"""KL divergences of the likelihoods against enumeration, quadrature and torch.distributions."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td

from lightlike.problem.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
)

few = settings(max_examples=30, deadline=None)
pairs = st.lists(st.tuples(st.floats(-6, 6), st.floats(-6, 6)), min_size=2, max_size=5).map(
    lambda p: torch.tensor(p, dtype=torch.float64).T
)


class Copied(Categorical):
    def nll(self, outputs, targets):
        return 2.0 * super().nll(outputs, targets)


class Own(Likelihood):
    """Labels ±1 with the probability of a logistic law."""

    def nll(self, outputs, targets):
        return torch.nn.functional.softplus(-targets * outputs).sum(-1)

    def root(self, outputs):
        p = torch.sigmoid(outputs)
        return torch.diag_embed((p * (1 - p)).sqrt())

    def sample(self, outputs, generator=None):
        return 2.0 * torch.bernoulli(torch.sigmoid(outputs), generator=generator) - 1.0


def one(likelihood, start, end):
    return float(likelihood.divergence(start[None], end[None])[0])


@few
@given(pairs)
def test_classes_by_enumeration(h):
    p, q = ([math.exp(float(x)) for x in row] for row in h)
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    naive = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert one(Categorical(), *h) == pytest.approx(naive, abs=1e-13, rel=1e-10)


@few
@given(pairs)
def test_coins_by_enumeration(h):
    naive = 0.0
    for a, b in h.T.tolist():
        p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
        naive += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert one(Bernoulli(), *h) == pytest.approx(naive, abs=1e-12, rel=1e-9)


@few
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_counts_by_enumeration(a, b):
    p, q = (td.Poisson(torch.tensor(x, dtype=torch.float64).exp()) for x in (a, b))
    counts = torch.arange(150, dtype=torch.float64)
    naive = (p.log_prob(counts).exp() * (p.log_prob(counts) - q.log_prob(counts))).sum()
    start, end = torch.tensor([[[a]], [[b]]], dtype=torch.float64)
    found = float(Poisson().divergence(start, end))
    assert found == pytest.approx(float(naive), abs=1e-11, rel=1e-9)


@pytest.mark.parametrize(("u", "v"), [(0.3, -0.8), (-1.0, 0.5), (0.2, 0.2)])
def test_normal_laws_by_quadrature(u, v):
    def density(y, mean, log_variance):
        s = mpmath.exp(log_variance)
        return mpmath.exp(-((y - mean) ** 2) / (2 * s)) / mpmath.sqrt(2 * mpmath.pi * s)

    def integrand(y):
        p, q = density(y, 0.4, u), density(y, -0.2, v)
        return p * mpmath.log(p / q)

    naive = float(mpmath.quad(integrand, [-12, -4, 0, 4, 12]))
    start, end = torch.tensor([[0.4, u], [-0.2, v]], dtype=torch.float64)
    assert one(HeteroscedasticGaussian(), start, end) == pytest.approx(naive, rel=1e-7)
    if u == v:
        known = Gaussian(variance=math.exp(u))
        assert one(known, start[:1], end[:1]) == pytest.approx(naive, rel=1e-7)


def test_several_at_once_and_torch_distributions():
    random = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 7, 4, generator=random, dtype=torch.float64)
    deviation = torch.tensor(0.7).double()
    first, then = td.Normal(start, deviation), td.Normal(end, deviation)
    found = Gaussian(variance=0.49).divergence(start, end)
    torch.testing.assert_close(found, td.kl_divergence(first, then).sum(-1))
    laws = [td.Categorical(logits=h) for h in (start, end)]
    found = Categorical().divergence(start, end)
    torch.testing.assert_close(found, td.kl_divergence(*laws))


@pytest.mark.parametrize(
    "likelihood",
    [Categorical(), Bernoulli(), Gaussian(2.0), Poisson(), HeteroscedasticGaussian(), Own()],
    ids=lambda x: type(x).__name__,
)
def test_the_metric_is_its_second_order(likelihood):
    random = torch.Generator().manual_seed(1)
    h, v = torch.randn(2, 5, 4, generator=random, dtype=torch.float64)
    found = likelihood.divergence(h, h + 1e-4 * v)
    expected = 0.5e-8 * (likelihood.root(h).mT @ v[..., None]).square().sum((1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-14)
    assert torch.equal(likelihood.divergence(h, h), torch.zeros(5, dtype=torch.float64))


def test_saturated_outputs_stay_finite_and_positive():
    h = torch.tensor([[800.0, 0.0, -800.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for likelihood in (Categorical(), Bernoulli()):
        found = likelihood.divergence(h, h.flip(0))
        assert bool(torch.isfinite(found).all())
        assert bool((found > 0).all())


def test_what_has_no_closed_form_says_so():
    assert Categorical().divergence_kind == "exact"
    assert Poisson().divergence_kind == "exact"
    assert Own().divergence_kind == "second-order"
    # The law is another one, so the closed form of its ancestor is not its own.
    assert Copied().divergence_kind == "second-order"


def test_shares_of_correct_labels():
    h = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert Categorical().correct(h, torch.tensor([1, 1])).tolist() == [1.0, 0.0]
    assert Bernoulli().correct(h, torch.tensor([[1.0, 1.0], [1.0, 1.0]])).tolist() == [1.0, 0.5]
    assert Gaussian().correct(h, h) is None
