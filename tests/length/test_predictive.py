import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import lightlike as ll
from lightlike.errors import (
    CapacityError,
    ChoiceError,
    DependencyError,
    ParameterError,
    UndefinedError,
)
from lightlike.length.posterior import laplace_draws, log_likelihoods
from lightlike.length.predictive import loo_of, waic_of
from oracles.reference import jacobians

NOISE, WIDE = 0.3, 1.5


def regression(n=40, size=6):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, size))
    Y = X @ (np.sqrt(WIDE) * rng.standard_normal(size)) + np.sqrt(NOISE) * rng.standard_normal(n)
    model = nn.Linear(size, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.1)
    data = torch.from_numpy(X), torch.from_numpy(Y)[:, None]
    F = ll.fisher(model, data, ll.likelihoods.Gaussian(NOISE))
    covariance = np.linalg.inv(X.T @ X / NOISE + np.eye(size) / WIDE)
    return F, X, Y, covariance, covariance @ X.T @ Y / NOISE


PRIOR = ll.priors.Isotropic(WIDE)


def leave_one_out(X, Y):
    """The exact Σ_i −log p(y_i | all others) of Bayesian linear regression."""
    total = 0.0
    for i in range(len(Y)):
        k = np.arange(len(Y)) != i
        P = np.linalg.inv(X[k].T @ X[k] / NOISE + np.eye(X.shape[1]) / WIDE)
        mean, variance = X[i] @ P @ X[k].T @ Y[k] / NOISE, NOISE + X[i] @ P @ X[i]
        total -= stats.norm.logpdf(Y[i], mean, math.sqrt(variance))
    return total


def gathered(F, **options):
    return torch.cat(list(laplace_draws(F, **options))).numpy()


@pytest.mark.parametrize(("n", "size"), [(40, 6), (5, 30)])
def test_draws_have_the_covariance(n, size):
    F, _, _, covariance, _ = regression(n, size)
    S = 2000
    z = gathered(F, prior=PRIOR, draws=S, seed=1) - F.problem.theta.numpy()
    precision = np.linalg.inv(covariance)
    # χ² with D degrees, in every direction at once.
    square = np.einsum("si,ij,sj->s", z, precision, z)
    assert stats.kstest(square, stats.chi2(size).cdf).pvalue > 1e-3
    white = z @ np.linalg.cholesky(precision)
    spread = white.T @ white / S - np.eye(size)
    assert np.abs(spread).max() < 5.5 * math.sqrt(2 / S)
    assert np.abs(white.mean(0)).max() < 4.5 / math.sqrt(S)


@pytest.mark.parametrize(("n", "size"), [(40, 6), (5, 30)])
def test_centre_of_the_expansion_is_the_posterior_mean(n, size):
    F, _, _, _, mean = regression(n, size)
    here = gathered(F, prior=PRIOR, draws=40, seed=3)
    there = gathered(F, prior=PRIOR, draws=40, seed=3, centre="expansion")
    assert np.abs(there - here - (mean - F.problem.theta.numpy())).max() < 1e-11


def test_priors_of_other_kinds():
    F, X, *_ = regression()
    variance = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.1, 1.0]).double()
    z = gathered(F, prior=ll.priors.PerParameter(variance, mean=0.4), draws=2000)
    assert (z[:, 1] == 0.4).all()
    kept = [0, 2, 3, 4, 5]
    precision = X[:, kept].T @ X[:, kept] / NOISE + np.diag(1 / variance[kept].numpy())
    white = (z[:, kept] - 0.1) @ np.linalg.cholesky(precision)
    assert np.abs(white.T @ white / 2000 - np.eye(5)).max() < 5.5 * math.sqrt(2 / 2000)
    tuned = ll.description_length(F, prior=ll.priors.Isotropic("evidence")).prior["variance"]
    a = gathered(F, prior=ll.priors.Isotropic("evidence"), draws=5)
    assert np.allclose(a, gathered(F, prior=ll.priors.Isotropic(tuned), draws=5), atol=1e-12)


def test_log_likelihoods_by_hand():
    F, X, Y, _, _ = regression()
    draws = torch.cat(list(laplace_draws(F, prior=PRIOR, draws=40, seed=2)))
    found = log_likelihoods(F, draws=draws)
    by_hand = stats.norm.logpdf(Y, draws.numpy() @ X.T, math.sqrt(NOISE))
    assert np.allclose(found.numpy(), by_hand, rtol=1e-12)
    assert torch.equal(found, log_likelihoods(F, prior=PRIOR, draws=40, seed=2))


@pytest.mark.parametrize("name", ["categorical", "gaussian", "poisson", "bernoulli"])
def test_linearised_outputs(name):
    """Against h + J δ with naive Jacobians, row by row."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    x = torch.randn(9, 2, dtype=torch.float64)
    kind = getattr(ll.likelihoods, name.capitalize())()
    y = kind.sample(model(x).detach(), torch.Generator().manual_seed(0))
    F = ll.fisher(model, [(x[:4], y[:4]), (x[4:], y[4:])], name)
    draws = torch.cat(list(laplace_draws(F, draws=6)))
    h, J = jacobians(model, [(x, y)])
    delta = (draws - F.problem.theta).numpy()
    found = log_likelihoods(F, draws=6, linearised=True)
    assert found.shape == (6, 9)
    for s in range(6):
        moved = torch.from_numpy(h + J @ delta[s])
        assert torch.allclose(found[s], -kind.nll(moved, y), rtol=1e-9, atol=1e-9)
    assert torch.equal(found, log_likelihoods(F, draws=draws, linearised=True))
    assert ll.lengths.waic(F, draws=6, linearised=True).total == waic_of(found).total


def test_a_linear_model_is_its_linearisation():
    F, *_ = regression()
    a, b = (log_likelihoods(F, prior=PRIOR, draws=9, linearised=flag) for flag in (False, True))
    assert torch.allclose(a, b, rtol=1e-11)


def by_hand_waic(log_likelihood):
    """Observation by observation, with plain Python sums."""
    total = []
    for column in log_likelihood.T.tolist():
        S = len(column)
        top = max(column)
        lppd = top + math.log(math.fsum(math.exp(v - top) for v in column) / S)
        mean = math.fsum(column) / S
        total.append(math.fsum((v - mean) ** 2 for v in column) / (S - 1) - lppd)
    return total


def exact_draws(seed, S):
    """Log-likelihoods at draws from the exact posterior, without any network."""
    _, X, Y, covariance, mean = regression()
    rng = np.random.default_rng(seed)
    theta = mean + rng.standard_normal((S, 6)) @ np.linalg.cholesky(covariance).T
    return torch.from_numpy(stats.norm.logpdf(Y, theta @ X.T, math.sqrt(NOISE)))


def test_waic_by_hand():
    found = exact_draws(0, 300)
    length = waic_of(found, 1.0)
    each = by_hand_waic(found)
    assert length.total == pytest.approx(math.fsum(each), rel=1e-12)
    assert np.allclose(length.pointwise.numpy(), each, rtol=1e-10)
    assert length.stderr == pytest.approx(math.sqrt(40) * np.std(each, ddof=1), rel=1e-12)
    assert length.kind == "estimated"
    bits = length.to("bits")
    for name in ("total", "stderr", "monte_carlo_stderr"):
        assert getattr(bits, name) == pytest.approx(getattr(length, name) / math.log(2))
    assert torch.allclose(bits.pointwise, length.pointwise / math.log(2))
    assert length.to_dict()["effective_parameters"] == length.effective_parameters


def test_both_against_the_exact_answer():
    """Leave-one-out is known in closed form; WAIC is close to it."""
    arviz = pytest.importorskip("arviz_stats.base").array_stats
    _, X, Y, _, _ = regression()
    exact = leave_one_out(X, Y)
    assert exact == pytest.approx(41.48148123394807, rel=1e-12)
    found = exact_draws(1, 4000)
    loo, waic = loo_of(found), waic_of(found)
    assert abs(loo.total - exact) < 4 * loo.monte_carlo_stderr
    assert abs(waic.total - exact) < 1.0
    assert 0 < loo.effective_parameters < 10
    values, k, p = arviz.loo(found.T.numpy()[:, None, :])
    assert loo.total == pytest.approx(-values.sum(), rel=1e-10)
    assert json.loads(json.dumps(loo.to_dict(), allow_nan=False))["total"] == loo.total
    assert np.allclose(loo.pareto_k.numpy(), k)
    assert loo.effective_parameters == pytest.approx(p.sum(), rel=1e-8)


@pytest.mark.parametrize("which", [waic_of, loo_of])
def test_monte_carlo_error_covers(which):
    """Of totals from independent sets of draws."""
    pytest.importorskip("arviz_stats")
    found = [which(exact_draws(seed, 250)) for seed in range(20)]
    totals = np.array([length.total for length in found])
    claimed = np.mean([length.monte_carlo_stderr for length in found])
    assert 0.55 < totals.std(ddof=1) / claimed < 1.7


def test_from_a_network():
    pytest.importorskip("arviz_stats")
    F, X, Y, *_ = regression()
    options = {"prior": PRIOR, "draws": 80, "centre": "expansion"}
    loo, waic = ll.lengths.loo(F, **options), ll.lengths.waic(F, **options)
    assert abs(loo.total - leave_one_out(X, Y)) < 5 * loo.monte_carlo_stderr
    assert loo.fit == waic.fit == pytest.approx(float(F.problem.survey.nll.sum()))
    again = ll.lengths.waic(F, **options)
    assert again.total == waic.total
    assert ll.lengths.waic(F, seed=1, **options).total != waic.total
    own = torch.cat(list(laplace_draws(F, **options)))
    assert ll.lengths.waic(F, draws=own).total == waic.total


def test_what_cannot_be_trusted_is_flagged():
    """One observation that the others do not expect carries all the weight."""
    pytest.importorskip("arviz_stats")
    found = exact_draws(0, 500)
    before = loo_of(found)
    limit = 1 - 1 / math.log10(500)
    bad = int((before.pareto_k > limit).sum())
    assert bool(before.warnings) == bool(bad)
    generator = torch.Generator().manual_seed(0)
    found[:, 7] = -20 * torch.randn(500, generator=generator, dtype=torch.float64).square()
    loo, waic = loo_of(found), waic_of(found)
    assert float(loo.pareto_k[7]) > 0.7
    assert "Pareto k exceeds" in loo.warnings[0]
    assert f"for {bad + 1} of 40" in loo.warnings[0]
    assert limit < 0.7
    assert "use LOO" in waic.warnings[0]
    # Ratios beyond float64 are no reason for a warning of NumPy's.
    found[:, 3] = torch.linspace(-3000, 0, 500, dtype=torch.float64)
    assert float(loo_of(found).pareto_k[3]) > 0.7


def test_observations_that_no_draw_disputes():
    pytest.importorskip("arviz_stats")
    found = exact_draws(0, 200)
    found[:, 5] = -0.25
    loo = loo_of(found)
    assert float(loo.pointwise[5]) == pytest.approx(0.25, rel=1e-12)
    assert math.isfinite(loo.total)
    still = loo_of(torch.full((30, 4), -1.5, dtype=torch.float64))
    assert still.to_dict()["pareto_k"] == [None] * 4
    assert still.total == pytest.approx(6.0)
    assert still.monte_carlo_stderr == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(UndefinedError, match="more draws"):
        loo_of(exact_draws(0, 20))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base", None)
    F, *_ = regression(5, 2)
    with pytest.raises(DependencyError, match="pip install 'lightlike\\[bayes\\]'"):
        ll.lengths.loo(F, draws=3)
    assert math.isfinite(ll.lengths.waic(F, draws=3).total)


def test_mistakes():
    F, X, *_ = regression(5, 3)
    for draws in (1, 0, 2.5, True, "many"):
        with pytest.raises(ChoiceError):
            ll.lengths.waic(F, draws=draws)
    for shape in ((4,), (4, 2), (1, 3)):
        with pytest.raises(ParameterError, match="draws have shape"):
            ll.lengths.waic(F, draws=torch.zeros(shape))
    with pytest.raises(ChoiceError, match="'expansion'"):
        ll.lengths.waic(F, draws=3, centre="mean")
    with pytest.raises(UndefinedError, match="needs labels"):
        ll.lengths.waic(ll.fisher(nn.Linear(3, 1), (torch.from_numpy(X),), "gaussian"))
    with pytest.raises(CapacityError, match="rounding"):
        ll.lengths.waic(F, prior=ll.priors.Isotropic(1e14), draws=3)
    with pytest.raises(ChoiceError, match="relative_efficiency"):
        loo_of(torch.zeros(3, 2), 0.0, relative_efficiency=0.0)


def test_everything_is_left_as_it_was(untouched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3))
    x, y = torch.randn(9, 2), torch.randint(3, (9,))
    with untouched(model, x, y):
        ll.lengths.waic(ll.fisher(model, (x, y), "categorical"), draws=4)
