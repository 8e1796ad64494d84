"""The variational length: exact where q is the posterior, never below the exact length."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_evidence import (
    GENERAL,
    LOGISTIC,
    TABLE,
    Regression,
    general,
    linear,
    logistic_data,
    logistic_map,
)
from numpy.polynomial.hermite_e import hermegauss

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, PriorError
from lightlike.length.eigenbasis import eigenbasis
from lightlike.length.gaussian import expand, in_prior_units, razor_under, scaled_by
from lightlike.length.posteriors import Laplace, MeanField, Screen, squared_columns
from lightlike.length.priors import Isotropic, PerLayer, PerParameter
from lightlike.length.variational import regressed
from oracles.networks import fill, mlp, normal

SMALL = [row for row in TABLE if row[0] <= 50]
METHODS = ["gram", "metric"]


@pytest.mark.parametrize("row", SMALL, ids=lambda r: f"N{r[0]}-D{r[1]}-d{r[2]}")
def test_the_laplace_posterior_of_a_linear_model_pays_the_exact_evidence(row):
    r, variance, exact = Regression.seeded(*row[:6]), row[4], row[6]
    for name, theta in r.points(variance).items():
        F = ll.fisher(r.model(theta), r.data, r.likelihood)
        whole = {"posterior": "screen", "directions": r.D}
        if name not in ("map", "far"):
            continue
        for options in ({}, whole):
            length = ll.lengths.variational(F, prior=Isotropic(variance), draws=16, **options)
            assert length.total == pytest.approx(exact, rel=1e-9), name
            assert length.stderr < 1e-9
        m = r.posterior_mean(variance)
        assert length.displacement == pytest.approx(m @ m / (2 * variance), rel=1e-8)


@pytest.mark.parametrize("case", GENERAL)
def test_unequal_variances_and_held_parameters(case):
    r, mean = general()
    variance, exact, _ = GENERAL[case]
    prior = PerParameter(
        torch.tensor(variance, dtype=torch.float64), {"weight": torch.as_tensor(mean)[None]}
    )
    theta = 5 * np.random.default_rng(5).standard_normal(5)
    F = ll.fisher(r.model(theta), r.data, r.likelihood)
    length = ll.lengths.variational(F, prior=prior, draws=16)
    assert length.total == pytest.approx(exact, rel=1e-9)
    assert length.name == "variational"


@pytest.mark.parametrize("method", METHODS)
def test_parts_in_the_radical_cost_nothing_however_large(method):
    r = Regression.seeded(20, 40, 7, 0.1, 0.5, 3)
    points = r.points(0.5)
    theta = points["ml"] + 1e6 * (points["other ml"] - points["ml"])
    F = ll.fisher(r.model(theta), r.data, r.likelihood)
    F._decompositions["auto", None] = F.decomposition(method)
    length = ll.lengths.variational(F, prior=Isotropic(0.5), draws=16)
    assert length.total == pytest.approx(r.evidence(0.5), rel=1e-8)


def test_a_mean_field_pays_for_the_correlations():
    """½ (Σ log P_jj − log det P) more than the exact evidence, P the posterior's precision."""
    g = np.random.default_rng(0)
    root = np.linalg.cholesky(0.1 * np.eye(8) + 0.9 * np.ones((8, 8)))
    X = g.standard_normal((60, 8)) @ root.T
    r = Regression(X, X @ g.standard_normal(8) + g.standard_normal(60), 0.7)
    P = X.T @ X / 0.7 + np.eye(8) / 1.5
    excess = 0.5 * (np.log(np.diag(P)).sum() - np.linalg.slogdet(P)[1])
    assert excess > 3
    F = ll.fisher(r.model(np.ones(8)), r.data, r.likelihood)
    length = ll.lengths.variational(F, prior=Isotropic(1.5), posterior="mean_field", draws=16)
    assert length.total == pytest.approx(r.evidence(1.5) + excess, rel=1e-9)


def test_every_direction_of_the_screen_pays_its_own_way():
    """Leaving direction k to the prior costs KL(prior ‖ posterior) along it."""
    r = Regression.seeded(50, 5, 5, 0.25, 1.0, 0)
    lam, V = np.linalg.eigh(r.X.T @ r.X / r.noise)
    lam, V = lam[::-1], V[:, ::-1]
    m = V.T @ r.posterior_mean(1.0)
    kl = 0.5 * (lam - np.log1p(lam) + (1 + lam) * m**2)
    F = ll.fisher(r.model(np.zeros(5)), r.data, r.likelihood)
    for k in range(1, 6):
        length = ll.lengths.variational(
            F, prior=Isotropic(), posterior="screen", directions=k, draws=16
        )
        assert length.total == pytest.approx(r.evidence(1.0) + kl[k:].sum(), rel=1e-9)


def exact_bound(Z, y, m, C, variance):
    """E_q[NLL] + KL for logistic regression by Gauss–Hermite quadrature over z_iᵀθ."""
    nodes, weights = hermegauss(120)
    weights = weights / weights.sum()
    mean, sd = Z @ m, np.sqrt(np.einsum("ni,ij,nj->n", Z, C, Z))
    h = mean[:, None] + sd[:, None] * nodes
    loss = ((np.logaddexp(0, h) - y[:, None] * h) @ weights).sum()
    d = len(m)
    kl = np.trace(C) / variance + m @ m / variance - d
    return loss + 0.5 * (kl + d * math.log(variance) - np.linalg.slogdet(C)[1])


@pytest.mark.parametrize("inputs", [1, 2])
def test_logistic_regression_against_quadrature(inputs):
    gaps = {}
    for N in (10, 100, 1000):
        Z, y = logistic_data(N, inputs)
        theta = logistic_map(Z, y, 4.0)
        p = 1 / (1 + np.exp(-Z @ theta))
        P = Z.T @ (Z * (p * (1 - p))[:, None]) + np.eye(inputs) / 4
        F = ll.fisher(
            linear(theta[None]), (torch.as_tensor(Z), torch.as_tensor(y)[:, None]), "bernoulli"
        )
        for kind, C in (
            ("laplace", np.linalg.inv(P)),
            ("mean_field", np.diag(1 / np.diag(P))),
        ):
            expected = exact_bound(Z, y, theta, C, 4.0)
            length = ll.lengths.variational(F, prior=Isotropic(4.0), posterior=kind, draws=40)
            assert abs(length.total - expected) < 4.5 * length.stderr + 1e-9
            assert length.stderr < 0.1
            exact = LOGISTIC[inputs][N][0]
            assert expected > exact
            assert length.total > exact - 4.5 * length.stderr
            if kind == "laplace":
                gaps[N] = expected - exact
    # KL(q ‖ posterior) of Laplace's q decays as 1/N, as Laplace's own error does.
    assert gaps[100] / gaps[1000] == pytest.approx(10, rel=0.25)


def parts(method, prior, seed=0):
    model, x = fill(mlp([3, 4, 3], "tanh"), seed), normal(6 if method == "gram" else 40, 3)
    F = ll.fisher(model, (x, torch.arange(len(x)) % 3), "categorical")
    decomposition, expansion = F.decomposition(method), expand(F.problem)
    resolved, n = prior.resolve(F.problem), len(x)
    razor = razor_under(F.problem, resolved, decomposition, expansion)
    root, scaled, scale = scaled_by(resolved, decomposition, n)
    z, b = in_prior_units(F.problem, resolved, expansion.gradient)
    B = math.sqrt(n) * root.dense()
    shifted = scaled.explicit.shifted(scale)
    q = Laplace(root, shifted, scaled.left, 2 * razor.complexity, razor.effective_dimension, z, b)
    screen = Screen(eigenbasis(scaled, root, scale / n).top(4), float(B.square().sum()), q.mean)
    field = MeanField(n * squared_columns(root), q.mean)
    return {"laplace": q, "screen": screen, "mean_field": field}, B, z, b


VARIANCE = torch.linspace(0.2, 2.0, 31, dtype=torch.float64)
PRIORS = {"isotropic": Isotropic(0.7, mean=0.1), "unequal": PerParameter(VARIANCE, 0.1)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", PRIORS)
def test_posteriors_are_those_of_explicit_matrices(case, method):
    found, B, z, b = parts(method, PRIORS[case])
    H, eye = B.T @ B, torch.eye(31, dtype=torch.float64)
    C = torch.linalg.inv(eye + H)
    mean = z - C @ (b + z)
    values, V = torch.linalg.eigh(H)
    V, h = V[:, -4:], values[-4:]
    covariances = {
        "laplace": C,
        "screen": eye - (V * (h / (1 + h))) @ V.T,
        "mean_field": torch.diag(1 / (1 + H.diagonal())),
    }
    means = {"laplace": mean, "screen": V @ (V.T @ mean), "mean_field": mean}
    for name, q in found.items():
        cov = covariances[name]
        torch.testing.assert_close(q.mean, means[name], rtol=1e-8, atol=1e-10)
        width = 0.5 * float(cov.trace() - 31 - torch.logdet(cov))
        assert q.width == pytest.approx(width, rel=1e-9)
        assert q.spread == pytest.approx(float((H @ cov).trace()), rel=1e-9)
        n = 5_000
        y = q.deviations(n, torch.Generator().manual_seed(0))
        assert y.shape == (31, n)
        # Entries of a sample covariance have variance (c_ii c_jj + c_ij²)/n.
        diagonal = cov.diagonal()
        sd = ((diagonal[:, None] * diagonal + cov.square()) / n).sqrt()
        assert float(((y @ y.T / n - cov) / sd).abs().max()) < 5
        assert float((y.mean(1) / (diagonal / n).sqrt()).abs().max()) < 5


def trained(labels=True):
    model, x = fill(mlp([3, 4, 3], "tanh"), 0), normal(30, 3)
    y = torch.argmax(model.double()(x), -1)
    return ll.fisher(model, (x, y) if labels else (x,), "categorical")


def test_different_posteriors_of_a_network():
    F = trained()
    lengths = {
        kind: ll.lengths.variational(F, prior=Isotropic(0.5), posterior=kind, draws=100)
        for kind in ("laplace", "mean_field", "screen")
    }
    for kind, length in lengths.items():
        assert length.total == length.fit + length.displacement + length.complexity
        assert length.complexity > 0
        assert 0 < length.stderr < 4
        assert length.kind == "estimated"
        assert length.effective_draws == 50
        assert length.prior["posterior"] == kind
        assert "never below" in length.validity
    razor = ll.description_length(F, prior=Isotropic(0.5))
    assert lengths["laplace"].tuning_cost == razor.tuning_cost == 0


def test_never_below_the_exact_length_of_a_network():
    """−log p by plain averaging over the prior: in four parameters it is good to 0.1 nats."""
    model, x = fill(mlp([1, 1, 1], "tanh"), 3), normal(8, 1)
    y = (x[:, 0] > 0).double()[:, None]
    F = ll.fisher(model, (x, y), "bernoulli")
    draws = torch.randn(50_000, 4, generator=torch.Generator().manual_seed(0)).double()
    w, a, v, c = draws.T
    h = v[:, None] * torch.tanh(w[:, None] * x[:, 0] + a[:, None]) + c[:, None]
    nll = (torch.nn.functional.softplus(h) - y[:, 0] * h).sum(1)
    exact = math.log(len(nll)) - float(torch.logsumexp(-nll, 0))
    for kind in ("laplace", "mean_field", "screen"):
        length = ll.lengths.variational(F, prior=Isotropic(), posterior=kind, draws=40)
        assert length.total > exact - 4 * length.stderr


def test_repeatable_and_without_trace(untouched):
    F = trained()
    model = F.problem.evaluator.model
    with untouched(model):
        one, two, three = (
            ll.lengths.variational(F, prior=Isotropic(), draws=16, seed=s) for s in (1, 1, 2)
        )
    assert one.fit == pytest.approx(two.fit, rel=1e-12)
    assert one.fit != three.fit


def test_the_prior_may_be_fitted():
    r = Regression.seeded(50, 5, 5, 0.25, 1.0, 0)
    F = ll.fisher(r.model(np.zeros(5)), r.data, r.likelihood)
    fitted = ll.description_length(F, prior=Isotropic("evidence"))
    length = ll.lengths.variational(F, prior=Isotropic("evidence"), draws=16)
    assert length.total == pytest.approx(fitted.total, rel=1e-9)
    assert length.prior["variance"] == fitted.prior["variance"]
    assert length.tuning_cost == fitted.tuning_cost > 0


BAD = {
    "posterior": ({"posterior": "full"}, ChoiceError, "'laplace', 'mean_field', 'screen'"),
    "few draws": ({"draws": 14}, ChoiceError, "an even number, 16 or more"),
    "odd draws": ({"draws": 17}, ChoiceError, "an even number, 16 or more"),
    "no directions": ({"posterior": "screen", "directions": 0}, ChoiceError, "directions"),
    "prior": ({"prior": PerLayer({"0": 1.0})}, PriorError, "no variance for parameter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ll.lengths.variational(trained(), **{"prior": Isotropic(), **options})


def test_it_needs_labels_and_float64():
    with pytest.raises(DataError, match="needs labels"):
        ll.lengths.variational(trained(labels=False), prior=Isotropic())
    x = normal(6, 3)
    F = ll.fisher(mlp([3, 2], "tanh"), (x, torch.arange(6) % 2), "categorical", dtype="float32")
    with pytest.raises(ChoiceError, match="in float64 only"):
        ll.lengths.variational(F, prior=Isotropic())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 30), slope=st.floats(-3, 3))
def test_what_a_control_explains_is_left_to_no_chance(seed, n, slope):
    control = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, error = regressed(5.0 + slope * control, control, 0.2)
    assert mean == pytest.approx(5.0 + 0.2 * slope, abs=1e-9)
    assert error < 1e-9
    assert regressed(control, torch.zeros(n, dtype=torch.float64), 0.0)[0] == pytest.approx(
        float(control.mean()), abs=1e-12
    )


def test_the_standard_error_covers():
    g, found = torch.Generator().manual_seed(0), []
    for _ in range(500):
        x = torch.randn(100, generator=g, dtype=torch.float64)
        mean, error = regressed((0.3 * x).exp() + x, x, 0.0)
        found.append((mean - math.exp(0.045), error))
    off, errors = np.array(found).T
    assert abs(off.mean()) < 4 * off.std() / math.sqrt(500)
    assert 0.9 < np.mean(abs(off) < 1.96 * errors) < 0.98
    assert off.std() == pytest.approx(errors.mean(), rel=0.15)
