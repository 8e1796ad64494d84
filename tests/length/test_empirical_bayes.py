import math

import numpy as np
import pytest
import torch
from linear_evidence import Regression, linear, logistic_data
from scipy.optimize import minimize_scalar

import lightlike as ll
from lightlike.errors import PriorError
from lightlike.length.priors import Isotropic

CASES = [(50, 5, 5), (50, 5, 3), (20, 40, 20), (20, 40, 7), (30, 30, 12)]


def problem(N, D, rank):
    r = Regression.seeded(N, D, rank, 0.25, 0.5, 8)
    return r, 0.1 * np.random.default_rng(2).standard_normal(D)


def best(r, mean):
    found = minimize_scalar(
        lambda t: r.evidence(math.exp(t), mean),
        bounds=(-12, 12), method="bounded", options={"xatol": 1e-11},
    )  # fmt: skip
    return math.exp(found.x), found.fun


@pytest.mark.parametrize("method", ["gram", "metric", "svd"])
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_fitted_variance_minimises_the_exact_evidence(shape, method):
    r, mean = problem(*shape)
    variance, minimum = best(r, mean)
    prior = Isotropic("evidence", mean={"weight": torch.as_tensor(mean)[None]})
    g = np.random.default_rng(4)
    points = {
        "map": r.posterior_mean(variance, mean),
        "ml": np.linalg.pinv(r.X, rcond=1e-9) @ r.Y,
        "far": 10 * g.standard_normal(r.D),
        "very far": 1e4 * g.standard_normal(r.D),
    }
    for name, theta in points.items():
        length = r.length(theta, prior, method)
        fitted = length.prior["variance"]
        assert fitted == pytest.approx(variance, rel=1e-6), name
        tolerance = 1e-9 * abs(minimum) + 1e-14 * abs(length.fit)
        assert length.total == pytest.approx(minimum, rel=0, abs=tolerance), name
        m = r.posterior_mean(fitted, mean) - mean
        assert m @ m / length.effective_dimension == pytest.approx(fitted, rel=1e-6), name


def test_the_tuned_number_is_reported_beside_the_total():
    r, _ = problem(50, 5, 5)
    length = r.length(np.zeros(5), Isotropic("evidence"))
    assert length.tuning_cost == pytest.approx(0.5 * math.log(50))
    assert length.total == length.fit + length.displacement + length.complexity
    assert length.prior["fitted_by"] == "evidence"
    same = r.length(np.zeros(5), Isotropic(length.prior["variance"]))
    assert same.total == pytest.approx(length.total, rel=1e-12)
    assert same.tuning_cost == 0
    assert "fitted_by" not in same.prior
    assert length.to("bits").tuning_cost == pytest.approx(0.5 * math.log2(50))


def test_fitted_on_a_network_it_is_no_longer_than_any_other():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)
    ).double()
    x = torch.randn(20, 3).double()
    F = ll.fisher(model, (x, (x[:, 0] > 0).long()), "categorical")
    fitted = ll.description_length(F, prior=Isotropic("evidence"))
    for factor in (0.01, 0.5, 0.9, 1.1, 2.0, 100.0):
        prior = Isotropic(fitted.prior["variance"] * factor)
        assert ll.description_length(F, prior=prior).total > fitted.total


def test_it_needs_labels():
    Z, _ = logistic_data(20)
    with pytest.raises(PriorError, match="needs labels"):
        ll.measure(
            linear(np.ones((1, 2))), (torch.as_tensor(Z),), "bernoulli",
            prior=Isotropic("evidence"), progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "towards"), [(0.0, "0"), (1e-3, "0"), (1e8, "infinity")], ids=str
)
def test_evidence_without_a_maximum(offset, towards):
    """Labels that the mean explains better than noise would call for variance 0."""
    g = np.random.default_rng(0)
    X = g.standard_normal((30, 4))
    mean = np.ones(4)
    r = Regression(X, X @ (mean + offset), 0.5)
    with pytest.raises(PriorError, match=f"no maximum: it grows .* goes to {towards}"):
        r.length(mean, Isotropic("evidence", mean=1.0))
