import math
from itertools import pairwise

import numpy as np
import pytest
import torch
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
from scipy import stats
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError
from lightlike.length.displacement import (
    by_rows,
    by_singular_vectors,
    by_solving,
    displacement_of,
)
from lightlike.length.priors import Isotropic, PerParameter
from lightlike.spectrum.symmetric import SymmetricMatrix

METHODS = ["gram", "metric", "svd"]
POINTS = ["map", "ml", "other ml", "far"]
ROWS = [pytest.param(*row, id=f"N{row[0]}-D{row[1]}-d{row[2]}") for row in TABLE]
CASES = [pytest.param(row[:6], id=f"N{row[0]}-D{row[1]}-d{row[2]}") for row in TABLE]


def random_net(seed=0, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs)).double()


def random_data(N=12, outputs=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, 4, generator=g, dtype=torch.float64)
    return x, torch.randint(outputs, (N,), generator=g)


@pytest.mark.parametrize(("N", "D", "d", "noise", "variance", "seed", "exact", "low", "high"), ROWS)
def test_tabulated_evidence(N, D, d, noise, variance, seed, exact, low, high):
    r = Regression.seeded(N, D, d, noise, variance, seed)
    lengths = {name: r.length(t, Isotropic(variance)) for name, t in r.points(variance).items()}
    for length in lengths.values():
        # The table has ten decimals; a far point's NLL is subtracted again, its rounding stays.
        assert length.total == pytest.approx(exact, abs=2e-10 + 1e-14 * abs(length.fit))
    ml = lengths["ml"]
    assert ml.fit + ml.complexity == pytest.approx(exact + low, abs=1e-7)
    norm = r.points(variance)["ml"]
    assert ml.fit + norm @ norm / (2 * variance) + ml.complexity == pytest.approx(
        exact + high, abs=1e-7
    )
    assert ml.displacement == pytest.approx(-low, abs=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("case", CASES)
def test_exact_for_linear_models_anywhere(case, scale, method):
    r = Regression.seeded(*case)
    expected = r.evidence(scale)
    for name, theta in r.points(scale).items():
        m = r.measure(theta, Isotropic(scale), method=method, layers=False)
        assert m.record["method"] in (method, "svd")
        tolerance = 1e-9 * abs(expected) + 1e-14 * abs(m.length.fit)
        assert m.length.total == pytest.approx(expected, rel=0, abs=tolerance), name
        assert m.length.fit == pytest.approx(r.nll(theta), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_parts_in_the_radical_cost_nothing_however_large(method):
    r = Regression.seeded(20, 40, 7, 0.1, 0.5, 3)
    points = r.points(0.5)
    free = points["other ml"] - points["ml"]
    lengths = [r.length(points["ml"] + c * free, Isotropic(1e-4), method) for c in (0.0, 1.0, 1e4)]
    for length in lengths:
        assert length.total == pytest.approx(r.evidence(1e-4), rel=1e-9)
    assert lengths[1].displacement == pytest.approx(lengths[0].displacement, rel=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(12, 5), (10, 20)])
@pytest.mark.parametrize("scale", [1e-5, 1e5])
@pytest.mark.parametrize("variance", [1e-4, 1e8])
def test_priors_far_from_the_scale_of_the_data(scale, variance, shape, method):
    g = np.random.default_rng(0)
    r = Regression(scale * g.standard_normal(shape), g.standard_normal(shape[0]), 0.3)
    expected = r.precise_evidence(variance)
    ml = np.linalg.pinv(r.X) @ r.Y
    found = r.length(ml, Isotropic(variance), method).total
    assert found == pytest.approx(expected, rel=1e-9)
    for theta in (np.zeros(r.D), g.standard_normal(r.D)):
        length = r.length(theta, Isotropic(variance), method)
        tolerance = 1e-9 * expected + 1e-14 * abs(length.fit)
        assert length.total == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.mark.parametrize("left", [False, True])
def test_both_ways_to_the_displacement(left):
    r = Regression.seeded(20, 40, 20, 0.1, 0.5, 2)
    F = ll.fisher(r.model(np.zeros(40)), r.data, r.likelihood)
    root = F.root
    g = torch.Generator().manual_seed(0)
    z = torch.randn(40, generator=g, dtype=torch.float64)
    b = root.rmv(torch.randn(20, generator=g, dtype=torch.float64))
    H = 20 * root.metric() + torch.eye(40, dtype=torch.float64)
    expected = 0.5 * float(z @ z) - 0.5 * float((b + z) @ torch.linalg.solve(H, b + z))
    shifted = SymmetricMatrix(root.gram() if left else root.metric()).shifted(20.0)
    for stiffness in (1.0, 1e10):  # solved for, or from singular vectors
        found = displacement_of(root, shifted, z, b, stiffness, nll=3.0, left=left, budget=1e9)
        assert found == (pytest.approx(expected, rel=1e-12), 0.0)
    with pytest.raises(CapacityError, match=r"singular vectors of the 20 × 40 root"):
        displacement_of(root, shifted, z, b, 1e15, nll=3.0, left=left, budget=1e3)
    both, rows = torch.stack([z, b], 1), root.mv(torch.stack([z, b], 1))
    solved = shifted.solve(rows) if left else None
    x = torch.linalg.solve(H, b + z)
    sizes = float(x @ x), 20 * float(root.mv(x).square().sum())
    for found in (
        by_solving(root, shifted, both, rows, solved),
        by_singular_vectors(root, z, b, 20),
    ):
        assert found == pytest.approx((expected, *sizes), rel=1e-12)
    if left:
        value, error = by_rows(shifted, both, rows, solved, 20)
        assert abs(value - expected) <= error <= 1e-9 * abs(expected)


@pytest.mark.parametrize("theta", ["map", "random"])
def test_several_outputs(theta):
    g = np.random.default_rng(3)
    N, D, m, noise, variance = 25, 4, 3, 0.4, 0.7
    X, Y = g.standard_normal((N, D)), g.standard_normal((N, m))
    cov = noise * np.eye(N) + variance * X @ X.T
    expected = -sum(stats.multivariate_normal(np.zeros(N), cov).logpdf(y) for y in Y.T)
    W = np.linalg.solve(X.T @ X / noise + np.eye(D) / variance, X.T @ Y / noise).T
    if theta == "random":
        W = g.standard_normal((m, D))
    length = ll.measure(
        linear(W), (torch.as_tensor(X), torch.as_tensor(Y)), ll.likelihoods.Gaussian(noise),
        prior=Isotropic(variance), progress=False,
    ).length  # fmt: skip
    assert length.total == pytest.approx(expected, rel=1e-9)
    lam = np.linalg.eigvalsh(X.T @ X / (N * noise))
    assert length.complexity == pytest.approx(m / 2 * np.log1p(N * variance * lam).sum(), rel=1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", GENERAL)
def test_unequal_variances_and_a_mean(case, method):
    r, mean = general()
    variance, exact, complexity = GENERAL[case]
    assert r.evidence(variance, mean) == pytest.approx(exact, abs=1e-9)
    prior = PerParameter(
        torch.tensor(variance, dtype=torch.float64), {"weight": torch.as_tensor(mean)[None]}
    )
    g = np.random.default_rng(5)
    for theta in (mean, np.linalg.pinv(r.X) @ r.Y, 5 * g.standard_normal(5)):
        length = r.length(theta, prior, method)
        assert length.total == pytest.approx(exact, abs=1e-9)
        assert length.complexity == pytest.approx(complexity, abs=1e-9)
        assert length.fit == pytest.approx(r.nll(theta), rel=1e-12)
        # The bounds of the exact length: no proper prior beats the ML point, and Jensen.
        ml = np.linalg.pinv(r.X) @ r.Y
        spread = np.diag(variance) + np.outer(mean - ml, mean - ml)
        jensen = r.nll(ml) + 0.5 * np.trace(r.X.T @ r.X / r.noise @ spread)
        assert r.nll(ml) <= length.total <= jensen


@pytest.mark.parametrize("method", METHODS)
def test_frozen_by_prior_equals_frozen_in_the_model(method):
    r, mean = general()
    keep = np.array([0, 2, 4])
    theta = np.random.default_rng(0).standard_normal(5)
    variance = torch.tensor(GENERAL["frozen"][0], dtype=torch.float64)
    full = r.length(theta, PerParameter(variance, {"weight": torch.as_tensor(mean)[None]}), method)
    held = np.where(variance.numpy() > 0, 0.0, mean)
    part = Regression(r.X[:, keep], r.Y - r.X @ held, r.noise)
    short = part.length(
        theta[keep],
        PerParameter(variance[keep], {"weight": torch.as_tensor(mean[keep])[None]}),
        method,
    )
    assert full.total == pytest.approx(short.total, rel=1e-12)
    assert full.complexity == pytest.approx(short.complexity, rel=1e-12)
    assert full.effective_dimension == pytest.approx(short.effective_dimension, rel=1e-12)


@pytest.mark.parametrize("variance", [1e-3, 0.7, 50.0])
def test_equal_variances_by_parameter_are_an_isotropic_prior(variance):
    model, data = random_net(), random_data()
    mean = {k: v.detach() + 0.3 for k, v in random_net(seed=5).state_dict().items()}
    names = [n for n, _ in model.named_parameters()]
    lengths = [
        ll.measure(model, data, "categorical", prior=prior, progress=False, layers=False).length
        for prior in (
            Isotropic(variance, mean),
            PerParameter(torch.full((51,), variance, dtype=torch.float64), mean),
            PerParameter(dict.fromkeys(names, variance), mean),
        )
    ]
    for other in lengths[1:]:
        for field in ("fit", "displacement", "complexity", "spectrum_term", "effective_dimension"):
            assert getattr(other, field) == pytest.approx(getattr(lengths[0], field), rel=1e-10)


@pytest.mark.parametrize("variance", [1e-2, 1.0, 1e3])
def test_general_formula_on_a_network(variance):
    """NLL + ½δᵀδ/σ² − ½rᵀ(H + 1/σ²)⁻¹r + ½ log det(I + σ²H), written out."""
    model, (x, y) = random_net(), random_data()
    F = ll.fisher(model, (x, y), "categorical")
    loss = nn.functional.cross_entropy(model(x), y, reduction="sum")
    g = torch.cat([v.reshape(-1) for v in torch.autograd.grad(loss, list(model.parameters()))])
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    eye = torch.eye(len(theta), dtype=torch.float64)
    H = 12 * F.dense()
    r = g + theta / variance
    solved = torch.linalg.solve(H + eye / variance, r)
    expected = {
        "fit": loss.detach(),
        "displacement": 0.5 * theta @ theta / variance - 0.5 * r @ solved,
        "complexity": 0.5 * torch.logdet(eye + variance * H),
    }
    length = ll.description_length(F, prior=Isotropic(variance))
    for field, value in expected.items():
        assert getattr(length, field) == pytest.approx(float(value), rel=1e-9), field
    same = ll.description_length(F, prior=Isotropic(variance), spectrum=ll.spectrum(F, "svd"))
    assert same.total == pytest.approx(length.total, rel=1e-11)


@pytest.mark.parametrize("variance", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian", "poisson"])
def test_identities(likelihood, variance):
    x, y = random_data()
    labels = y if likelihood == "categorical" else torch.rand(12, 3).mul(4).floor().double()
    m = ll.measure(random_net(), (x, labels), likelihood, prior=Isotropic(variance), progress=False)
    length, N = m.length, m.observations
    lam = variance * m.spectrum.eigenvalues
    assert length.total == length.fit + length.displacement + length.complexity
    assert length.complexity == pytest.approx(0.5 * float(torch.log1p(N * lam).sum()), rel=1e-13)
    assert 0 <= length.complexity <= 0.5 * N * variance * m.spectrum.trace * (1 + 1e-12)
    assert length.dimension_term == int(m.dimension) / 2 * math.log(N)
    assert length.spectrum_term == pytest.approx(0.5 * float((lam + 1 / N).log().sum()), rel=1e-9)
    gamma = m.spectrum.effective_dimension(1 / (N * variance))
    assert length.effective_dimension == pytest.approx(gamma, rel=1e-12)
    assert length.stderr == 0
    assert length.kind == "exact"
    # ∂C/∂log N = ½ γ at a fixed spectrum.
    step = 1e-4
    up, down = (0.5 * m.spectrum.logdet(variance * N * math.exp(s)) for s in (step, -step))
    assert (up - down) / (2 * step) == pytest.approx(0.5 * gamma, rel=1e-6)


def test_redundant_softmax_is_logistic_with_twice_the_variance():
    Z, y = logistic_data(50)
    w = logistic_map(Z, y, 2 * 1.7)
    x, labels = torch.as_tensor(Z), torch.as_tensor(y)
    logistic = ll.measure(
        linear(w[None]), (x, labels[:, None]), "bernoulli", prior=Isotropic(3.4), progress=False
    )
    for shift in (0.0, 10.0):  # adding the same to both rows moves along the radical
        W = np.stack([-w / 2, w / 2]) + shift
        softmax = ll.measure(
            linear(W), (x, labels.long()), "categorical", prior=Isotropic(1.7), progress=False
        )
        assert softmax.dimension.value == 2
        assert softmax.length.complexity == pytest.approx(logistic.length.complexity, rel=1e-12)
        if not shift:
            assert softmax.length.total == pytest.approx(29.379616479815, abs=1e-11)
            np.testing.assert_allclose(
                softmax.spectrum.eigenvalues, [0.3973813, 0.2899279], atol=1e-7
            )
    assert logistic.length.total == pytest.approx(29.379616479815, abs=1e-11)


@pytest.mark.parametrize("inputs", LOGISTIC)
def test_logistic_regression_against_quadrature(inputs):
    errors = {}
    for N, (exact, error) in LOGISTIC[inputs].items():
        Z, y = logistic_data(N, inputs)
        model = linear(logistic_map(Z, y, 4.0)[None])
        data = torch.as_tensor(Z), torch.as_tensor(y)[:, None]
        length = ll.measure(
            model, data, "bernoulli", prior=Isotropic(4.0), progress=False, layers=False
        ).length
        errors[N] = length.total - exact
        assert errors[N] == pytest.approx(error, abs=2e-10 + 1e-13 * exact)
    # The error decays as 1/N: over the last two steps a factor 10 each, nearly.
    for a, b in pairwise([100, 1000, 10000]):
        assert errors[a] / errors[b] == pytest.approx(10, rel=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_every_route_gives_the_same_length(method):
    model, data = random_net(), random_data()
    reference = ll.measure(model, data, "categorical", progress=False).length
    length = ll.measure(model, data, "categorical", method=method, progress=False).length
    for field in ("fit", "displacement", "dimension_term", "spectrum_term", "effective_dimension"):
        assert getattr(length, field) == pytest.approx(getattr(reference, field), rel=1e-9)
