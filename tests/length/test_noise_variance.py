"""The noise variance by the evidence, against the exact evidence of linear regression."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from linear_evidence import Regression, linear
from scipy.optimize import minimize, minimize_scalar
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, EstimateError
from lightlike.length.priors import Isotropic, PerParameter
from oracles.networks import fill, mlp, normal

CASES = {
    "tall": (50, 5, 5, 0.25, 1.0, 0),
    "rank-deficient": (50, 5, 3, 0.25, 2.0, 1),
    "wide": (60, 80, 20, 0.1, 0.5, 3),
}


def exact(r, log_noise, variance, mean=0.0):
    return Regression(r.X, r.Y, math.exp(log_noise)).evidence(variance, mean)


@pytest.mark.parametrize(("case", "start"), [*zip(CASES, (0.01, 2.0, 100.0), strict=True)])
def test_it_maximises_the_exact_evidence(case, start):
    r = Regression.seeded(*CASES[case])
    g = np.random.default_rng(0)
    spread, mean = g.uniform(0.2, 3.0, r.D), g.standard_normal(r.D)
    spread[0] = 0.0  # held at its mean
    priors = [
        (Isotropic(0.7), 0.7, 0.0),
        (
            PerParameter(torch.as_tensor(spread), {"weight": torch.as_tensor(mean)[None]}),
            spread,
            mean,
        ),
    ]
    for prior, variance, at in priors:
        best = minimize_scalar(
            partial(exact, r, variance=variance, mean=at),
            bounds=(-12, 8), method="bounded", options={"xatol": 1e-11},
        )  # fmt: skip
        for theta in (g.standard_normal(r.D), np.linalg.pinv(r.X) @ r.Y):
            F = ll.fisher(r.model(theta), r.data, ll.likelihoods.Gaussian(start))
            found = ll.lengths.noise_variance(F, prior=prior)
            assert found.variance == pytest.approx(math.exp(best.x), rel=1e-6)
            assert found.length.total == pytest.approx(best.fun, rel=1e-9)
            assert found.length.tuning_cost == pytest.approx(0.5 * math.log(r.N))
            assert found.fisher.problem.likelihood.variance == found.variance == float(found)
            assert found.length.prior["noise_variance"] == found.variance
            assert F.problem.likelihood.variance == start
            length = ll.description_length(found.fisher, prior=prior)
            assert length.total == pytest.approx(found.length.total, rel=1e-12)


@pytest.mark.parametrize("case", ["tall", "rank-deficient"])
def test_together_with_the_variance_of_the_prior(case):
    r = Regression.seeded(*CASES[case])
    best = minimize(
        lambda t: exact(r, t[0], math.exp(t[1])), [0.0, 0.0], method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000},
    )  # fmt: skip
    F = ll.fisher(r.model(np.zeros(r.D)), r.data, "gaussian")
    found = ll.lengths.noise_variance(F, prior=Isotropic("evidence"))
    assert found.variance == pytest.approx(math.exp(best.x[0]), rel=1e-5)
    assert found.length.prior["variance"] == pytest.approx(math.exp(best.x[1]), rel=1e-5)
    assert found.length.total == pytest.approx(best.fun, rel=1e-9)
    assert found.length.tuning_cost == pytest.approx(math.log(r.N))


def test_several_outputs():
    g = np.random.default_rng(3)
    X, Y = g.standard_normal((25, 4)), g.standard_normal((25, 3))

    def evidence(t):
        return sum(Regression(X, y, math.exp(t)).evidence(0.7) for y in Y.T)

    best = minimize_scalar(evidence, bounds=(-5, 5), method="bounded", options={"xatol": 1e-11})
    F = ll.fisher(linear(np.ones((3, 4))), (torch.as_tensor(X), torch.as_tensor(Y)), "gaussian")
    found = ll.lengths.noise_variance(F, prior=Isotropic(0.7))
    assert found.variance == pytest.approx(math.exp(best.x), rel=1e-6)
    assert found.length.total == pytest.approx(best.fun, rel=1e-9)


def test_on_a_network_no_other_variance_is_shorter():
    model, x = fill(mlp([3, 5, 2], "tanh"), 0), normal(30, 3)
    y = model.double()(x).detach() + 0.2 * normal(30, 2, seed=5)
    F = ll.fisher(model, (x, y), "gaussian")
    found = ll.lengths.noise_variance(F, prior=Isotropic(0.5))
    for factor in (0.5, 0.99, 1.01, 2.0):
        other = F.problem.under(ll.likelihoods.Gaussian(factor * found.variance))
        length = ll.description_length(ll.Fisher(ll.Root(other)), prior=Isotropic(0.5))
        assert length.total > found.length.total


def test_a_problem_under_another_likelihood_is_the_one_made_with_it():
    model, x, y = fill(mlp([3, 5, 2], "tanh"), 0), normal(9, 3), normal(9, 2, seed=1)
    made = ll.fisher(model, (x, y), ll.likelihoods.Gaussian(0.3))
    F = ll.fisher(model, (x, y), "gaussian")
    before = F.problem.survey.nll
    changed = F.problem.under(ll.likelihoods.Gaussian(0.3))
    assert torch.equal(changed.survey.nll, made.problem.survey.nll)
    assert torch.equal(ll.Root(changed).dense(), made.root.dense())
    assert torch.equal(F.problem.survey.nll, before)
    single = ll.fisher(model, (x, y), "gaussian", dtype="float32").problem
    again = single.under(ll.likelihoods.Gaussian(0.3))
    assert torch.equal(again.reference.survey.nll, made.problem.survey.nll)
    with pytest.raises(ChoiceError):
        F.problem.under("normal")


def test_what_has_no_noise_variance():
    x, labels = normal(9, 3), torch.arange(9) % 2
    net = nn.Linear(3, 2)
    with pytest.raises(ChoiceError, match="Gaussian"):
        ll.lengths.noise_variance(ll.fisher(net, (x, labels), "categorical"), prior=Isotropic())
    with pytest.raises(DataError, match="there are none"):
        ll.lengths.noise_variance(ll.fisher(net, (x,), "gaussian"), prior=Isotropic())
    with pytest.raises(ChoiceError, match="in float64 only"):
        ll.lengths.noise_variance(
            ll.fisher(net, (x, x[:, :2]), "gaussian", dtype="float32"), prior=Isotropic()
        )
    r = Regression.seeded(5, 8, 8, 0.1, 1.0, 0)
    small = Regression(r.X, 1e-9 * r.Y, 1.0)
    fitted = small.model(np.linalg.pinv(small.X) @ small.Y)
    with pytest.raises(EstimateError, match="noise variance goes to 0"):
        ll.lengths.noise_variance(ll.fisher(fitted, small.data, "gaussian"), prior=Isotropic(1e30))
