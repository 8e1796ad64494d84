"""The effective dimension of a region: closed forms, a dense computation, limits, error bars."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.length.region import draw_ball, draw_prior, effective_dimension_of
from lightlike.problem.problem import Problem

G = torch.Generator().manual_seed(0)
X = torch.randn(30, 3, generator=G, dtype=torch.float64)
CLASSES = torch.arange(30) % 3


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def kappa(n, gamma=1.0):
    return gamma * n / (2 * math.pi * math.log(n))


def dense(F, points, n, gamma=1.0):
    """d_{γ,n} from D × D determinants, and its standard error by the jackknife."""
    D, k = F.problem.parameters, kappa(n, gamma)
    matrices = [F.at(point).dense().numpy() for point in points]

    def value(chosen):
        trace = np.mean([np.trace(m) for m in chosen])
        roots = [np.sqrt(np.linalg.det(np.eye(len(m)) + k * D * m / trace)) for m in chosen]
        return 2 * math.log(np.mean(roots)) / math.log(k)

    R = len(matrices)
    without = np.array([value(matrices[:j] + matrices[j + 1 :]) for j in range(R)])
    return value(matrices), math.sqrt((R - 1) * without.var())


@pytest.mark.parametrize(("n", "gamma"), [(30, 1.0), (1000, 1.0), (1000, 0.7), (10**8, 0.7)])
@pytest.mark.parametrize(
    "region", [{}, {"radius": 2.0}, {"prior": ll.priors.Isotropic(4.0)}], ids=str
)
def test_a_constant_metric(n, gamma, region):
    """Linear with Gaussian noise: Σ log(1 + κ D λ/Σλ) / log κ wherever it is taken, without error.

    The metric is I ⊗ (1/N) Σ x̃ x̃ᵀ, whatever the noise variance.
    """
    found = ll.effective_dimension(
        linear(), (X,), ll.likelihoods.Gaussian(0.3), n=n, gamma=gamma, draws=4, **region
    )
    padded = torch.cat([X, torch.ones(30, 1)], 1)
    values = torch.linalg.eigvalsh(padded.T @ padded / 30).repeat(2)
    k = kappa(n, gamma)
    exact = float(torch.log1p(k * 8 * values / values.sum()).sum()) / math.log(k)
    assert found.value == pytest.approx(exact, rel=1e-10)
    assert found.stderr == pytest.approx(0.0, abs=1e-9)
    assert found.effective_draws == pytest.approx(4)
    assert found.largest_rank == 8
    assert found.kappa == pytest.approx(k)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("radius", [0.2, 1.0])
def test_against_dense_determinants(likelihood, radius, untouched):
    model = net()
    with untouched(model, X):
        found = ll.effective_dimension(
            model, (X,), likelihood, radius=radius, n=200, draws=40, seed=5
        )
    F = ll.fisher(model, (X,), likelihood)
    points = draw_ball(F.problem, radius, 40, 5)
    value, jackknife = dense(F, points, 200)
    assert found.value == pytest.approx(value, rel=1e-10)
    assert found.stderr == pytest.approx(jackknife, rel=0.15)
    assert found.stderr > 1e-3
    assert found.kind == "estimated"


def test_it_tends_to_the_largest_rank():
    """D = 24 with four shifts of the logits that change nothing: 20, from above as n grows."""
    found = ll.effective_dimension(net(), (X,), "categorical", radius=0.03, draws=40)
    assert found.largest_rank == 20
    values = [found.at(10**k).value for k in (4, 8, 16, 64, 256)]
    assert all(abs(a - 20) > abs(b - 20) for a, b in pairwise(values))
    assert values[-1] == pytest.approx(20, abs=0.5)


def test_another_n_from_the_same_draws():
    first = ll.effective_dimension(net(), (X,), "categorical", radius=0.5, draws=20, seed=3)
    direct = ll.effective_dimension(
        net(), (X,), "categorical", radius=0.5, draws=20, seed=3, n=10**4, gamma=0.5
    )
    again = first.at(10**4, 0.5)
    assert again == direct
    assert again.value != first.value
    assert again.to_dict()["value"] == again.value


def test_the_ball_and_the_prior():
    """Uniform: |θ − θ̂|^D is uniform on [0, r^D], directions have mean 0; the prior's moments."""
    problem = Problem(linear(), (X,), "gaussian")
    away = draw_ball(problem, 3.0, 4000, 0) - problem.theta
    radii = away.norm(dim=1)
    assert float(radii.max()) <= 3.0
    assert float((radii / 3.0).pow(8).mean()) == pytest.approx(0.5, abs=0.02)
    assert float(away.mean(0).abs().max()) < 0.08
    points = draw_prior(problem, ll.priors.Isotropic(4.0, mean=1.0), 4000, 0)
    assert float(points.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(points.std()) == pytest.approx(2.0, rel=0.02)


def test_the_default_region_shrinks_with_n():
    found = ll.effective_dimension(linear(), (X,), "gaussian", draws=3)
    assert found.region == {"name": "ball", "radius": 1 / math.sqrt(30)}
    assert found.observations == 30
    assert "of D = 8 (estimated at n = 30; largest rank 8, 3 effective draws)" in str(found)


def test_heavy_tails_are_refused():
    """One draw with e^20 times the weight of the others: its mean is that draw."""
    small, large = torch.full((4,), 1e-6), torch.full((20,), 1.0)
    spectra = (*[small.double()] * 30, large.double())
    with pytest.raises(ll.errors.SamplingError, match=r"rests on 1\.0 of 31 draws"):
        effective_dimension_of(spectra, 20, 10**6, 1.0, {})


def test_a_metric_that_is_zero():
    """Outputs that do not depend on θ to first order anywhere."""

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x + 0.0 * self.w.sum()

    with pytest.raises(ll.errors.SamplingError, match="zero at all 5 draws"):
        ll.effective_dimension(Flat(), (X,), "gaussian", draws=5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 5}, "above 1"),
        ({"n": 1}, "above 1"),
        ({"n": 1000, "gamma": 0.01}, "above 1"),
        ({"gamma": 1.5}, "gamma"),
        ({"gamma": 0.0}, "gamma"),
        ({"radius": 0.0}, "radius"),
        ({"radius": math.inf}, "radius"),
        ({"radius": 1.0, "prior": ll.priors.Isotropic()}, "radius"),
        ({"draws": 1}, "draws"),
        ({"prior": "normal"}, "prior"),
    ],
)
def test_choices(options, said):
    with pytest.raises(ll.errors.ChoiceError, match=said):
        ll.effective_dimension(linear(), (X,), "gaussian", **options)


def test_a_prior_to_be_fitted_is_no_region():
    with pytest.raises(ll.errors.PriorError, match="fitted"):
        ll.effective_dimension(
            linear(), (X, X[:, :2]), "gaussian", prior=ll.priors.Isotropic("evidence")
        )


@pytest.mark.slow
def test_the_error_bars_cover():
    """Against the mean over many draws, 95 % lie within two standard errors, roughly."""
    options = {"radius": 1.0, "n": 200}
    truth = ll.effective_dimension(net(), (X,), "categorical", draws=2000, seed=99, **options)
    found = [
        ll.effective_dimension(net(), (X,), "categorical", draws=40, seed=s, **options)
        for s in range(40)
    ]
    scores = np.array([(f.value - truth.value) / math.hypot(f.stderr, truth.stderr) for f in found])
    assert (np.abs(scores) < 2).mean() >= 0.85
    assert abs(scores.mean()) < 0.6
