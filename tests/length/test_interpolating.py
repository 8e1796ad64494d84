"""The interpolating razor against quadrature, and in its limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, EstimateError
from lightlike.length.draws import LogMean, prior_draws
from lightlike.length.priors import Isotropic, PerParameter
from oracles.networks import fill, mlp, normal
from oracles.reference import whitened


class Rate(nn.Module):
    """A Bernoulli rate by its logit t."""

    def __init__(self, t):
        super().__init__()
        self.t = nn.Parameter(torch.tensor([t], dtype=torch.float64))

    def forward(self, x):
        return self.t.expand(len(x), 1)


class Logits(nn.Module):
    """Softmax logits without inputs."""

    def __init__(self, t):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(t, dtype=torch.float64))

    def forward(self, x):
        return self.t.expand(len(x), -1)


def rate(n, h, t=None):
    t = math.log(h / (n - h)) if t is None else t
    y = torch.cat([torch.ones(h), torch.zeros(n - h)]).double()[:, None]
    return ll.fisher(Rate(t), (torch.zeros(n, 1), y), "bernoulli")


def information(t):
    return 0.25 / np.cosh(np.clip(t, -300, 300) / 2) ** 2


def log_mean(variance, epsilon):
    """log E √(1 + F/ε) over t ~ N(0, σ²)."""
    s = math.sqrt(variance)
    value = integrate.quad(
        lambda t: math.exp(-t * t / 2 / variance) * math.sqrt(1 + information(t) / epsilon),
        -12 * s, 12 * s, points=[0.0], limit=1000, epsabs=0, epsrel=1e-11,
    )[0]  # fmt: skip
    return math.log(value / math.sqrt(2 * math.pi * variance))


@pytest.mark.parametrize(
    ("variance", "epsilon"), [(1.0, 100.0), (1.0, 1.0), (10.0, 0.01), (1.0, 1e-9), (100.0, 0.001)]
)
def test_the_prior_term_of_a_bernoulli_rate(variance, epsilon):
    F = rate(20, 6)
    length = ll.lengths.interpolating(
        F, prior=Isotropic(variance), epsilon=epsilon, draws=40, seed=1
    )
    here = 0.5 * math.log1p(information(math.log(6 / 14)) / epsilon)
    expected = log_mean(variance, epsilon) - here
    assert abs(length.prior_term - expected) < 4 * length.stderr
    assert 0 < length.stderr < 0.5
    gaussian = ll.description_length(F, prior=Isotropic(variance))
    assert length.total == pytest.approx(gaussian.total + length.prior_term, rel=1e-12)
    assert length.complexity == gaussian.complexity
    assert (length.name, length.kind) == ("interpolating", "estimated")
    assert 5 < length.effective_draws <= 40
    assert length.prior["epsilon"] == epsilon


# ε, 1/σ²; N: −log p by quadrature, and what the razor at the maximum-likelihood point with
# ½ θ²/σ² written out is off by (h/N = 0.3).
TABLE = {
    (0.01, 0.1): {20: 13.7571621934, 200: 124.8430015132, 2000: 1225.5479025620},
    (1.0, 1.0): {20: 13.3440837905, 200: 124.4045926490, 2000: 1225.1066579756},
}


@pytest.mark.parametrize("case", TABLE)
def test_the_length_of_bernoulli_labels_as_their_number_grows(case):
    grows(case, (20, 200))


@pytest.mark.slow
@pytest.mark.parametrize("case", TABLE)
def test_the_length_of_many_bernoulli_labels(case):
    grows(case, (2000,))


def grows(case, sizes):
    epsilon, precision = case
    for n in sizes:
        exact = TABLE[case][n]
        F = rate(n, 3 * n // 10)
        length = ll.lengths.interpolating(
            F, prior=Isotropic(1 / precision), epsilon=epsilon, draws=30
        )
        # Laplace's error is O(1/N): within 2/N nats here.
        assert abs(length.total - exact) < 4 * length.stderr + 2 / n


@pytest.mark.slow
def test_jeffreys_prior_is_the_limit():
    """ε → 0, then σ → ∞: the log normaliser of √F dt tends to log π, the length to the razor's."""
    n, h, variance, epsilon = 100, 30, 300.0, 1e-12
    F = rate(n, h)
    length = ll.lengths.interpolating(F, prior=Isotropic(variance), epsilon=epsilon, draws=400)
    t = math.log(h / (n - h))
    flat = length.prior_term + 0.5 * math.log(information(t))
    flat += 0.5 * math.log(2 * math.pi * variance)
    # ∫ √F dt = π; under √F/π the variance of t is π², which exp(−t²/2σ²) cuts.
    assert abs(flat - math.log(math.pi) + math.pi**2 / (2 * variance)) < 4 * length.stderr + 1e-3
    # Rissanen's stochastic complexity, NLL + ½ log(N/2π) + log ∫ √F.
    jeffreys = length.fit + 0.5 * math.log(n / (2 * math.pi)) + math.log(math.pi)
    assert abs(length.total - jeffreys) < 4 * length.stderr + 0.05
    assert length.stderr < 0.15


def test_the_gaussian_prior_is_the_limit():
    F = rate(20, 6)
    gaussian = ll.description_length(F, prior=Isotropic(2.0)).total
    for epsilon in (1e3, 1e9):
        length = ll.lengths.interpolating(F, prior=Isotropic(2.0), epsilon=epsilon, draws=10)
        assert abs(length.total - gaussian) <= 0.25 / epsilon
        assert length.stderr <= 0.25 / epsilon


def test_null_directions_are_no_trouble():
    """Softmax logits of two classes: the exact length with ε = 1/σ² = 1 is 13.4819151725."""
    labels = torch.cat([torch.zeros(14), torch.ones(6)]).long()
    t = math.log(14 / 6) / 2
    F = ll.fisher(Logits([t, -t]), (torch.zeros(20, 1), labels), "categorical")
    length = ll.lengths.interpolating(F, prior=Isotropic(1.0), epsilon=1.0, draws=60)
    assert abs(length.total - 13.4819151725) < 4 * length.stderr + 2 / 20
    assert length.dimension == 1


def network(labels=True):
    model, x = fill(mlp([3, 4, 3], "tanh"), 0), normal(10, 3)
    return model, ((x, torch.arange(10) % 3) if labels else (x,))


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_a_network_against_naive_matrices(mean):
    model, data = network()
    F = ll.fisher(model, data, "categorical")
    variance = torch.linspace(0.1, 1.0, 31, dtype=torch.float64)
    variance[[3, 17]] = 0.0
    prior, free = PerParameter(variance, mean), (variance > 0).numpy()

    def half_logdet(theta):
        values = dict(F.problem.selection.split(theta))
        copy = mlp([3, 4, 3], "tanh").double()
        copy.load_state_dict(values)
        A = whitened(copy, [(data[0], None)], "categorical")[:, free]
        return 0.5 * np.linalg.slogdet(np.eye(free.sum()) + A.T @ A / 0.5)[1]

    length = ll.lengths.interpolating(F, prior=prior, epsilon=0.5, draws=12, seed=5)
    logs = [half_logdet(theta) for theta in prior_draws(prior.resolve(F.problem), 12, 5)]
    expected = math.log(np.mean(np.exp(logs))) - half_logdet(F.problem.theta)
    assert length.prior_term == pytest.approx(expected, rel=1e-9)
    spread = np.std(np.exp(logs), ddof=1) / np.mean(np.exp(logs)) / math.sqrt(12)
    assert length.stderr == pytest.approx(spread, rel=1e-9)
    weights = np.exp(logs)
    assert length.effective_draws == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_repeatable_and_without_trace(untouched):
    model, data = network()
    with untouched(model, *data):
        F = ll.fisher(model, data, "categorical")
        one, two, three = (
            ll.lengths.interpolating(F, prior=Isotropic(), epsilon=1.0, draws=10, seed=s)
            for s in (1, 1, 2)
        )
    assert one.prior_term == pytest.approx(two.prior_term, rel=1e-13)
    assert one.stderr == two.stderr
    assert one.prior_term != three.prior_term


def test_without_labels_there_is_no_total():
    model, data = network(labels=False)
    F = ll.fisher(model, data, "categorical")
    length = ll.lengths.interpolating(F, prior=Isotropic(), epsilon=1.0, draws=10)
    assert length.total is None
    assert length.prior_term != 0
    assert length.to("bits").prior_term == pytest.approx(length.prior_term / math.log(2))
    assert length.per_observation().prior_term == pytest.approx(length.prior_term / 10)


def test_the_prior_may_be_fitted():
    F = rate(200, 20)
    length = ll.lengths.interpolating(F, prior=Isotropic("evidence"), epsilon=10.0, draws=10)
    fitted = ll.description_length(F, prior=Isotropic("evidence"))
    assert length.prior["variance"] == fitted.prior["variance"]
    assert length.tuning_cost == fitted.tuning_cost > 0


@pytest.mark.parametrize("epsilon", [0, 0.0, -1.0, math.inf, math.nan, "1", None])
def test_epsilon_is_positive(epsilon):
    with pytest.raises(ChoiceError, match="epsilon"):
        ll.lengths.interpolating(rate(20, 6), prior=Isotropic(), epsilon=epsilon)


@pytest.mark.parametrize("draws", [0, 1, -3, 2.0, True, "many"])
def test_two_draws_or_more(draws):
    with pytest.raises(ChoiceError, match="draws"):
        ll.lengths.interpolating(rate(20, 6), prior=Isotropic(), epsilon=1.0, draws=draws)


def test_float32_is_refused():
    model, data = network()
    F = ll.fisher(model, data, "categorical", dtype="float32")
    with pytest.raises(ChoiceError, match="in float64 only"):
        ll.lengths.interpolating(F, prior=Isotropic(), epsilon=1.0)


def test_a_mean_of_a_few_rare_draws_is_no_number():
    few = r"Of 60 draws from the prior, [\d.]+ are all that counts"
    with pytest.raises(EstimateError, match=few) as caught:
        ll.lengths.interpolating(rate(20, 6), prior=Isotropic(1e5), epsilon=1e-12, draws=60)
    assert "larger epsilon" in caught.value.remedy
    with pytest.raises(EstimateError, match="Of 4 draws"):
        ll.lengths.interpolating(rate(20, 6), prior=Isotropic(), epsilon=1.0, draws=4)


def test_a_mean_that_no_draw_has_seen_is_no_number():
    """Draws near t = 0, a few in a thousand, make up all of the mean: sixty draws miss them."""
    with pytest.raises(EstimateError, match="At θ̂, a likely point of the prior"):
        ll.lengths.interpolating(rate(20, 6), prior=Isotropic(1e8), epsilon=1e-12, draws=60)
    # There θ̂ is no likely point of the prior, and what is around it does not matter.
    with_mean = Isotropic(1.0, mean=100.0)
    length = ll.lengths.interpolating(rate(20, 6), prior=with_mean, epsilon=1e-12, draws=60)
    assert length.prior_term < -10


@settings(max_examples=50, deadline=None)
@given(logs=st.lists(st.floats(-5, 5), min_size=2, max_size=40), shift=st.floats(-1e4, 1e4))
def test_log_mean(logs, shift):
    found = LogMean.of(torch.tensor(logs, dtype=torch.float64) + shift)
    w = np.exp(logs)
    assert found.value - shift == pytest.approx(math.log(w.mean()), abs=1e-9)
    assert found.stderr == pytest.approx(w.std(ddof=1) / w.mean() / math.sqrt(len(w)), abs=1e-9)
    assert 1 - 1e-12 <= found.effective <= len(w) * (1 + 1e-12)


def test_the_standard_error_covers():
    truth, found = log_mean(1.0, 0.05), []
    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        t = torch.randn(100, generator=g, dtype=torch.float64).numpy()
        estimate = LogMean.of(torch.from_numpy(0.5 * np.log1p(information(t) / 0.05)))
        found.append((estimate.value - truth) / estimate.stderr)
    assert abs(np.mean(found)) < 0.25
    assert 0.85 < np.std(found) < 1.2
    assert 0.92 < np.mean(np.abs(found) < 1.96) < 0.98
