"""A variance fitted to an evidence that probes estimate, against the exact fit."""

import math

import numpy as np
import pytest
import torch
from linear_evidence import Regression, linear

import lightlike as ll
from lightlike.errors import EstimateError, PriorError
from lightlike.length.displacements import Displacements
from lightlike.length.gaussian import expand
from lightlike.length.priors import Isotropic, PerLayer
from lightlike.length.stochastic import stochastic_razor
from lightlike.metric.operator import FisherOperator
from lightlike.spectrum.quadrature import Quadrature
from oracles import networks as nets

X = nets.normal(60, 5, seed=1)
MODEL = nets.fill(nets.mlp([5, 9, 4], "tanh"), 0).double()
# Labels from the model itself: near an optimum, where a best variance exists.
Y = torch.multinomial(MODEL(X).detach().softmax(-1), 1, generator=nets.generator(0))[:, 0]
EVIDENCE = Isotropic("evidence", mean=0.1)
# So many leading eigenvectors that probes see nothing but zeros: no chance is left.
WHOLE = Quadrature(probes=2, deflate=200)


class Dense:
    """Î written out, in the place of products."""

    def __init__(self, F):
        self.matrix, self.shape, self.device = F.dense(), F.shape, F.device
        self.precision, self.problem, self.root = F.root.precision, F.problem, F.root

    def __matmul__(self, v):
        return self.matrix @ v


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(MODEL, (X, Y), "categorical")


@pytest.fixture(scope="module")
def exact(F):
    return ll.description_length(F, prior=EVIDENCE)


def razor(F, options=None, prior=EVIDENCE, **more):
    return stochastic_razor(Dense(F), prior, expand(F.problem), options, **more)


@pytest.mark.parametrize("t", [-9.0, -3.0, 0.0, 2.0, 8.0])
def test_displacements_at_every_variance_from_one_space(F, t):
    expansion, dense = expand(F.problem), F.dense()
    mean = torch.full_like(F.problem.theta, 0.1)
    found = Displacements(Dense(F), mean, expansion.gradient)
    truth = ll.description_length(F, prior=Isotropic(math.exp(t), mean=0.1)).displacement
    widths = []
    while True:
        low, high = found.bounds(t)
        slack = 1e-9 * (abs(truth) + abs(low))
        assert low - slack <= truth <= high + slack
        widths.append(high - low)
        if found.finished:
            break
        found.advance()
    assert widths[-1] < 1e-5
    assert len(widths) < 3 or widths[0] > 100 * widths[-1] or widths[0] < 1e-6
    assert found.at(t).value == found.bounds(t)[0]
    # The second derivative against the solution of the system itself.
    delta, n, eye = F.problem.theta - mean, 60, torch.eye(len(dense), dtype=torch.float64)
    rho = expansion.gradient - n * dense @ delta

    def part(s):
        return -0.5 * float(rho @ torch.linalg.solve(n * dense + math.exp(-s) * eye, rho))

    step = 0.02
    expected = (part(t + step) - 2 * part(t) + part(t - step)) / step**2
    size = float(rho @ rho) * math.exp(t)
    assert found.curvature(t) == pytest.approx(expected, rel=1e-2, abs=1e-9 * size)


def test_without_chance_it_is_the_exact_fit(F, exact):
    found = razor(F, WHOLE)
    assert found.length.stderr < 1e-6
    assert found.fitted.log_stderr < 1e-8
    assert found.prior.variance[0] == pytest.approx(exact.prior["variance"], rel=1e-3)
    assert found.length.total == pytest.approx(exact.total, abs=2e-3)
    assert found.length.complexity == pytest.approx(exact.complexity, rel=1e-3)
    assert found.length.effective_dimension == pytest.approx(exact.effective_dimension, rel=1e-3)
    assert found.length.tuning_cost == pytest.approx(0.5 * math.log(60))
    assert found.length.prior["fitted_by"] == "evidence"


@pytest.mark.parametrize("shape", [(50, 5, 3), (20, 40, 7)], ids=str)
def test_the_evidence_of_linear_models(shape):
    """Where the razor is exact, its least value is that of −log p, whatever θ is."""
    r = Regression.seeded(*shape, 0.25, 0.5, 8)
    grid = np.linspace(-8, 8, 4001)
    least = min((r.evidence(math.exp(t)), t) for t in grid)
    theta = 3 * np.random.default_rng(4).standard_normal(r.D)
    data = torch.as_tensor(r.X), torch.as_tensor(r.Y)[:, None]
    G = ll.fisher(linear(theta[None]), data, ll.likelihoods.Gaussian(0.25))
    found = stochastic_razor(FisherOperator(G), Isotropic("evidence"), expand(G.problem), WHOLE)
    assert found.length.total == pytest.approx(least[0], abs=3e-3)
    assert math.log(found.fitted.value) == pytest.approx(least[1], abs=0.02)


@pytest.mark.parametrize(("control", "seeds"), [
    (None, 40),
    pytest.param(None, 200, marks=pytest.mark.slow),
    pytest.param("blocks", 200, marks=pytest.mark.slow),
])  # fmt: skip
def test_errors_cover_the_fit(F, exact, control, seeds):
    """90 % intervals; over 200 seeds their share has a standard error of 2.1 %, over 40 of 5 %."""
    best = exact.prior["variance"]
    covered, off = [], []
    options = Quadrature(probes=8, deflate=3, control=control)
    for seed in range(seeds):
        found = razor(F, options, seed=seed)
        length, fitted = found.length, found.fitted
        low, high = found.interval(0.9)
        complexity, soft = found.complexity, found.effective_dimension
        apart = {
            "total": low <= exact.total <= high,
            "complexity": bool(np.prod(np.array(complexity.interval(0.9)) - exact.complexity) < 0),
            "gamma": bool(np.prod(np.array(soft.interval(0.9)) - exact.effective_dimension) < 0),
            "variance": abs(math.log(fitted.value / best)) < 1.645 * fitted.log_stderr,
        }
        covered.append(list(apart.values()))
        off.append((length.total - exact.total) / length.stderr)
    assert np.mean(covered, 0) == pytest.approx(0.9, abs=0.9 / seeds**0.5)
    assert np.std(off) == pytest.approx(1.0, abs=2.5 / seeds**0.5)
    assert abs(np.mean(off)) < 3.5 / seeds**0.5


def test_a_state_goes_on_to_the_same_bits(F):
    options = Quadrature(probes=6, block=2)
    states = []
    whole = razor(F, options, keep=states.append)
    again = razor(F, options, state=states[1])
    assert (again.length, again.fitted) == (whole.length, whole.fitted)


def test_steps_suffice_for_a_variance_that_is_large():
    """The first probes serve a variance of 1; of a larger one they are taken again."""
    r = Regression.seeded(60, 50, 50, 0.25, 400.0, 3)
    X = r.X * np.logspace(0, -3, 50)
    data = torch.as_tensor(X), torch.as_tensor(r.Y)[:, None]
    G = ll.fisher(linear(np.ones((1, 50))), data, ll.likelihoods.Gaussian(0.25))
    exact = ll.description_length(G, prior=Isotropic("evidence"))
    assert exact.prior["variance"] > 100
    options, states = Quadrature(probes=8, deflate=0, share=0.01), []
    found = razor(G, options, prior=Isotropic("evidence"), keep=states.append)
    scales = {float(state["targets"][1]) for state in states}
    assert len(scales) == 2
    assert found.complexity.bracket <= 0.01 * found.length.stderr * 1.5
    low, high = found.interval(1 - 1e-6)
    assert low < exact.total < high
    resumed = razor(G, options, prior=Isotropic("evidence"), state=states[-1])
    assert resumed.length == found.length


def test_what_cannot_be_fitted(F):
    with pytest.raises(PriorError, match="PerLayer are not fitted"):
        razor(F, prior=PerLayer("evidence"))
    unlabelled = ll.fisher(MODEL, (X,), "categorical")
    with pytest.raises(PriorError, match="needs labels"):
        razor(unlabelled)
    few = ll.fisher(MODEL, (X[:15], Y[:15]), "categorical")
    with pytest.raises(EstimateError, match="left to chance"):
        razor(few, Quadrature(probes=2, deflate=0), prior=Isotropic("evidence"))


@pytest.mark.parametrize(("offset", "towards"), [(0.0, "0"), (1e8, "infinity")], ids=str)
def test_evidence_without_a_maximum(offset, towards):
    X = np.random.default_rng(0).standard_normal((30, 4))
    data = torch.as_tensor(X), torch.as_tensor(X @ np.full(4, 1 + offset))[:, None]
    G = ll.fisher(linear(np.ones((1, 4))), data, ll.likelihoods.Gaussian(0.5))
    with pytest.raises(PriorError, match=f"no maximum: it grows .* goes to {towards}"):
        razor(G, WHOLE, prior=Isotropic("evidence", mean=1.0))


def test_a_measurement_with_a_fitted_variance(F, exact):
    found = ll.measure(
        MODEL, (X, Y), "categorical", prior=EVIDENCE, method="slq", progress=False, seed=2
    )
    length = found.length
    assert abs(length.total - exact.total) < 4 * length.stderr + length.error
    record = found.record["quadrature"]
    assert record["log_variance_stderr"] == length.prior["log_variance_stderr"] > 0
    assert any("fitted to what the probes saw" in note for note in found.warnings)
    assert "(fitted)" in str(found)
    assert found.spectrum.largest == pytest.approx(ll.spectrum(F).largest, rel=1e-8)
