"""A prior with numbers to be fitted is the prior with the fitted numbers, wherever one goes in."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import lightlike as ll
from lightlike.errors import PriorError
from lightlike.length.posterior import laplace_draws
from lightlike.length.priors import Isotropic, PerLayer, Prior

NOISE = 0.3


class Two(nn.Module):
    """Linear regression whose weights belong to two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Linear(3, 1, bias=False).double() for _ in range(2))
        with torch.no_grad():
            self.a.weight.fill_(0.3)
            self.b.weight.fill_(-0.2)

    def forward(self, x):
        return self.a(x[:, :3]) + self.b(x[:, 3:])


def regression():
    g = np.random.default_rng(2)
    X = g.standard_normal((40, 6))
    theta = np.concatenate([3.0 * g.standard_normal(3), 0.3 * g.standard_normal(3)])
    Y = X @ theta + np.sqrt(NOISE) * g.standard_normal(40)
    F = ll.fisher(
        Two(), (torch.from_numpy(X), torch.from_numpy(Y)[:, None]), ll.likelihoods.Gaussian(NOISE)
    )
    return F, X, Y


def fitted(X, Y):
    """The two variances of the largest evidence, from the N × N density itself."""

    def evidence(log):
        C = NOISE * np.eye(len(Y)) + (X * np.exp(log).repeat(3)) @ X.T
        return 0.5 * (np.linalg.slogdet(C)[1] + Y @ np.linalg.solve(C, Y))

    options = {"xatol": 1e-10, "fatol": 1e-12}
    return np.exp(minimize(evidence, [0.0, 0.0], method="Nelder-Mead", options=options).x)


def test_draws_under_variances_of_layers_that_are_fitted():
    F, X, Y = regression()
    a, b = fitted(X, Y)
    assert max(a / b, b / a) > 3
    numbers = PerLayer({"a": float(a), "b": float(b)})
    for centre in ("point", "expansion"):
        found, expected = (
            torch.cat(list(laplace_draws(F, prior=prior, draws=9, centre=centre)))
            for prior in (PerLayer("evidence"), numbers)
        )
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    mean = found.mean(0).numpy()
    P = X.T @ X / NOISE + np.diag(1 / np.array([a, b]).repeat(3))
    assert np.abs(mean - np.linalg.solve(P, X.T @ Y / NOISE)).max() < 0.2


def test_waic_and_loo_fit_the_prior():
    F, X, Y = regression()
    a, b = fitted(X, Y)
    numbers = PerLayer({"a": float(a), "b": float(b)})
    options = {"draws": 60, "centre": "expansion"}
    found = ll.lengths.waic(F, prior=PerLayer("evidence"), **options).total
    assert found == pytest.approx(ll.lengths.waic(F, prior=numbers, **options).total, rel=1e-5)
    assert abs(found - ll.lengths.waic(F, **options).total) > 1e-3
    pytest.importorskip("arviz_stats")
    names = ["waic", "loo", "waic_linearised", "loo_linearised"]
    one, two = (
        ll.lengths.table(F, prior=prior, include=names, draws=60)
        for prior in (PerLayer("evidence"), numbers)
    )
    for name in names:
        assert one[name].total == pytest.approx(two[name].total, rel=1e-5), name
    loo = ll.lengths.loo(F, prior=PerLayer("evidence"), draws=60)
    assert loo.total == pytest.approx(two["loo"].total, rel=1e-5)


def test_without_labels_nothing_is_fitted():
    F = ll.fisher(Two(), (torch.randn(9, 6).double(),), "gaussian")
    for prior in (PerLayer("evidence"), Isotropic("evidence")):
        with pytest.raises(PriorError, match="needs labels"):
            list(laplace_draws(F, prior=prior, draws=2))


def test_a_region_is_not_fitted():
    F, X, Y = regression()
    data = torch.from_numpy(X), torch.from_numpy(Y)[:, None]
    for prior in (PerLayer("evidence"), PerLayer({"a": 1.0, "b": "evidence"})):
        with pytest.raises(PriorError, match="to be fitted to the data"):
            ll.effective_dimension(F.problem.evaluator.model, data, "gaussian", prior=prior)


class Own(Prior):
    """A prior of one's own with unequal variances, and a claim that they are to be fitted."""

    by_evidence = True

    def variances(self, selection, like):
        return torch.linspace(0.5, 1.0, selection.size).to(like)

    def describe(self):
        return {"name": "own"}


@pytest.mark.parametrize(
    "ask",
    [
        ll.description_length,
        ll.lengths.waic,
        ll.lengths.variational,
        ll.lengths.noise_variance,
        lambda F, prior: ll.lengths.interpolating(F, prior=prior, epsilon=1.0),
    ],
)
def test_a_prior_that_nothing_can_fit_is_refused(ask):
    F, *_ = regression()
    with pytest.raises(PriorError, match="evidence fits a Own is not known"):
        ask(F, prior=Own())


@pytest.mark.parametrize(
    ("prior", "said"),
    [(PerLayer("evidence"), "not fitted to sketches"), (Own(), "is not known")],
)
def test_sketches_fit_one_variance_only(prior, said):
    data = torch.randn(9, 3).double(), torch.arange(9) % 4
    with pytest.raises(PriorError, match=said):
        ll.measure(
            nn.Linear(3, 4).double(), data, "categorical", prior=prior, progress=False,
            method=ll.Sketch(draws=2, repetitions=2),
        )  # fmt: skip
