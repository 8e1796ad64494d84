"""λ̂ against known learning coefficients, and what it refuses to say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from singular_models import (
    Crossing,
    ReducedRank,
    aoyagi_watanabe,
    noiseless,
    slope_of_crossing,
    slope_of_one_hidden_unit,
    slope_of_product,
    slope_of_regression,
)
from torch import nn

import lightlike as ll
from lightlike.length.coefficient import Diagnostics
from lightlike.length.singular import Settings, check

G = torch.Generator().manual_seed(0)
X = torch.randn(100, 3, generator=G, dtype=torch.float64)
Y = X @ torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
Y = Y + 0.7 * torch.randn(100, 1, generator=G, dtype=torch.float64)


NOISE = ll.likelihoods.Gaussian(0.5)


def regression(away=0.0):
    """A linear model at the maximum of the likelihood, or away from it."""
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(X, Y).solution.T + away)
    return model


def measure(model=None, data=(X, Y), likelihood=NOISE, **options):
    given = {"draws": 150, "burn_in": 100, "chains": 16, "sampler": "mala"} | options
    return ll.learning_coefficient(model or regression(), data, likelihood, **given)


def known(model, width, t, **options):
    """λ̂ of a noiseless problem at n β = t."""
    data = noiseless(model, width)
    given = {"draws": 120, "burn_in": 120, "chains": 32, "steps": 12} | options
    return ll.learning_coefficient(model, data, "gaussian", temperature=t / len(data[0]), **given)


def test_a_regular_model(untouched):
    """Exactly ½ Σ β g/(β g + γ), and the tempered loss beside it."""
    model = regression()
    with untouched(model, X, Y):
        found = measure(model)
    beta = 1 / math.log(100)
    exact = slope_of_regression(X.T @ X / 0.5, beta, 1.0)
    assert exact == pytest.approx(1.5, rel=0.05)
    # A quadratic loss leaves no noise.
    assert found.value == pytest.approx(exact, abs=1e-9)
    assert 0 < found.stderr < 1e-9
    assert found.regular
    assert found.rank_bound == 1.5
    assert f"± {found.stderr:.2g} (estimated, at most 1.5 by the rank; R̂ = 1.0" in str(found)
    assert found.kind == "estimated"
    (d,) = found.diagnostics
    assert d.temperature == pytest.approx(beta)
    assert d.together
    assert d.rhat < 1.05
    assert np.mean(d.chain_means) == pytest.approx(found.value)
    assert len(d.acceptance) == 16
    assert found.wbic == pytest.approx(found.nll + math.log(100) * found.value)
    assert found.wbic_stderr == pytest.approx(math.log(100) * found.stderr)


def test_the_difference_needs_no_minimum():
    """Away from θ̂: refused against the loss there, the same λ by two temperatures."""
    model = regression(0.3)
    with pytest.raises(ll.errors.SamplingError, match="Train on, or use method='difference'"):
        measure(model)
    found = measure(model, method="difference", localisation=1e-6, rank=False)
    # A quadratic loss leaves no noise; γ = 1e-6 lowers the value by 6e-8.
    assert abs(found.value - 1.5) < 3 * found.stderr + 1e-6
    assert found.wbic is None
    assert found.rank_bound is None
    assert [d.temperature * math.log(100) for d in found.diagnostics] == pytest.approx([0.5, 2])


def test_the_length():
    found = measure(draws=100, rank=False)
    length = ll.lengths.singular(found, multiplicity=2)
    log = math.log(100)
    assert length.fit == pytest.approx(float(ll.description_length(
        ll.fisher(regression(), (X, Y), ll.likelihoods.Gaussian(0.5))).fit))  # fmt: skip
    assert length.penalty == pytest.approx(found.value * log)
    assert length.multiplicity_term == pytest.approx(-math.log(log))
    assert length.total == pytest.approx(length.fit + found.value * log - math.log(log))
    assert length.stderr == pytest.approx(found.stderr * log)
    bits = length.to("bits")
    assert bits.total == pytest.approx(length.total / math.log(2))
    assert bits.to("nats").stderr == pytest.approx(length.stderr)
    assert length.to_dict()["total"] == length.total
    assert found.to_dict()["diagnostics"][0]["rhat"] == found.diagnostics[0].rhat
    with pytest.raises(ll.errors.ChoiceError, match="multiplicity"):
        found.length(0)
    with pytest.raises(ll.errors.ChoiceError, match="units"):
        length.to("bytes")


def test_seeds_and_settings():
    model = regression()
    first, again, other = (
        measure(model, draws=100, burn_in=40, rank=False, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first.diagnostics[0].rhat != other.diagnostics[0].rhat
    with torch.inference_mode():
        assert measure(model, draws=100, burn_in=40, rank=False, seed=1) == first
    fixed = measure(model, draws=100, burn_in=40, rank=False, step_size=0.9)
    assert fixed.diagnostics[0].step_size == 0.9


@pytest.mark.parametrize(
    ("powers", "draws"), [((1, 1), 120), pytest.param((1, 2), 800, marks=pytest.mark.slow)]
)
def test_a_normal_crossing(powers, draws):
    """The slope of the free energy at n β = 100 by quadrature: 0.34 and 0.20, where D/2 = 1."""
    found = known(Crossing(*powers), 1, 100.0, draws=draws)
    exact = slope_of_crossing(powers, 100.0)
    assert abs(found.value - exact) < 3 * found.stderr
    assert found.stderr < 0.1 * exact
    assert found.rank_bound == 0.5  # at a draw, not at the origin, where the rank is 0


def test_the_references_agree():
    """Quadrature, Tricomi's function and the limit, for y = a b x and wider."""
    assert slope_of_crossing((1, 1), 1e3) == pytest.approx(
        slope_of_one_hidden_unit(1, 1, 1e3), rel=1e-6
    )
    assert slope_of_one_hidden_unit(3, 2, 1e8) == pytest.approx(
        aoyagi_watanabe(3, 1, 2, 0)[0], rel=1e-3
    )


def test_the_bias_of_stochastic_gradients():
    """With one batch the walk is q ← (1 − ½ ε H) q + √ε z, of covariance (H − ¼ ε H²)⁻¹.

    H = s (β G + γ) s for G = xᵀx/s² and the units s. At ε = 0.8 that is off by a quarter.
    """
    pytest.importorskip("posteriors")
    found = measure(sampler="sgld", step_size=0.8, chains=64, rank=False)
    beta, G = 1 / math.log(100), X.T @ X / 0.5
    s = (1.0 + beta * G.diagonal()).rsqrt()
    H = s[:, None] * (beta * G + torch.eye(3)) * s
    inside = s[:, None] * torch.linalg.inv(H - 0.2 * H @ H) * s
    biased = float(0.5 * beta * (G @ inside).trace())
    assert biased > 1.2 * slope_of_regression(G, beta, 1.0)
    assert abs(found.value - biased) < 3 * found.stderr
    assert found.stderr < 0.03
    assert found.bias == "unknown"
    assert "(estimated, unknown bias;" in str(found)
    assert found.diagnostics[0].acceptance == ()


def test_stochastic_gradients_of_ragged_batches(untouched):
    """Each batch stands for its share of the data."""
    pytest.importorskip("posteriors")
    model = regression()
    data = [(X[:40], Y[:40]), (X[40:90], Y[40:90]), (X[90:], Y[90:])]
    with untouched(model):
        first, again = (
            measure(model, data, sampler="sgld", step_size=0.3, chains=64, rank=False, burn_in=50)
            for _ in range(2)
        )
    exact = slope_of_regression(X.T @ X / 0.5, 1 / math.log(100), 1.0)
    assert first == again
    assert first.value == pytest.approx(exact, rel=0.25)


def diagnostics(loss, lowest=-math.inf, beta=0.5):
    return Diagnostics(beta, 1.0, loss, 0.1, lowest, 1.0, 500.0, (0.8,), (1.0,), 0.5, 0, True)


def test_negative_estimates_are_refused():
    settings = Settings(method="difference")
    check(-0.1, 0.1, 10.0, [diagnostics(10.0)], settings)
    with pytest.raises(ll.errors.SamplingError, match="negative"):
        check(-0.5, 0.1, 10.0, [diagnostics(10.0)], settings)


def test_chains_that_stay_where_they_started_are_refused():
    with pytest.raises(ll.errors.SamplingError, match="disagree"):
        measure(step_size=1e-5, burn_in=0)


def test_a_walk_that_diverges_is_refused():
    """A step size at which an uncorrected walk explodes: no number comes back."""
    pytest.importorskip("posteriors")
    with pytest.raises(ll.errors.SamplingError, match="disagree"):
        measure(sampler="sgld", step_size=50.0, draws=100, burn_in=100)


def test_few_independent_draws_are_refused():
    with pytest.raises(ll.errors.SamplingError, match=r"disagree|worth"):
        measure(draws=10, burn_in=50, chains=2)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "nuts"},
        {"step_size": "large"},
        {"step_size": -1.0},
        {"temperature": 0.0},
        {"localisation": math.inf},
        {"method": "wbic"},
        {"chains": 1},
        {"draws": 4},
        {"steps": 0, "sampler": "hmc"},
    ],
)
def test_unknown_choices(options):
    with pytest.raises(ll.errors.ChoiceError, match=next(iter(options))):
        measure(**options)


def test_one_observation_has_no_default_temperature():
    with pytest.raises(ll.errors.ChoiceError, match="temperature"):
        measure(data=(X[:1], Y[:1]), rank=False)


def test_no_room_for_the_rank(monkeypatch):
    """The error for the rank names the way out, and the way out works."""

    def full(_spectrum):
        raise ll.errors.CapacityError("Nothing fits.", "It is large.", "Buy memory.")

    monkeypatch.setattr("lightlike.assess.singular.dimension_of", full)
    with pytest.raises(ll.errors.CapacityError, match=r"Buy memory\. Or pass rank=False"):
        measure()
    assert measure(draws=100, rank=False).rank_bound is None


@pytest.mark.slow
def test_the_error_bars_cover():
    """Against the exact slope at a regular point that is not quadratic: z over 20 seeds."""
    exact = slope_of_product(100.0)
    found = [
        known(ReducedRank(1, 1, 1, 1), 1, 100.0, draws=300, rank=False, chains=16, seed=s)
        for s in range(20)
    ]
    scores = np.array([(f.value - exact) / f.stderr for f in found])
    assert (np.abs(scores) < 2).mean() >= 0.85
    assert abs(scores.mean()) < 0.6
    assert scores.std() < 1.35


REDUCED_RANK = [
    ((2, 2, 2, 0), 1e4),
    ((3, 2, 3, 0), 1e4),
    ((2, 6, 2, 0), 1e3),
    ((1, 1, 1, 1), 1e3),
    ((2, 1, 2, 1), 1e3),
    ((2, 3, 2, 1), 1e3),
    ((2, 2, 2, 2), 1e3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "t"), REDUCED_RANK)
def test_reduced_rank_regression(case, t):
    """Aoyagi & Watanabe's λ, within 10 % and two standard errors plus 3 % for finite n."""
    exact, multiplicity = aoyagi_watanabe(*case)
    assert multiplicity == 1
    found = known(ReducedRank(*case), case[0], t, chains=32, draws=500, burn_in=400, steps=40)
    assert abs(found.value - exact) < 0.1 * exact
    assert abs(found.value - exact) < 2 * found.stderr + 0.03 * exact
    assert exact <= found.rank_bound


@pytest.mark.slow
@pytest.mark.parametrize(("M", "N"), [(1, 1), (2, 1), (3, 3)])
def test_one_hidden_unit_at_finite_n(M, N):
    """The slope at n β = 10³ itself, which for m = 2 is still far from λ."""
    exact = slope_of_one_hidden_unit(M, N, 1e3)
    found = known(ReducedRank(M, 1, N, 0), M, 1e3, chains=32, draws=500, burn_in=400, steps=40)
    assert abs(found.value - exact) < 3 * found.stderr
    assert found.stderr < 0.05 * exact


def test_the_interval_has_what_finite_data_hide():
    """y = a b x: λ = ½ with m = 2 lies outside two standard errors of the slope at n β = 10³."""
    found = replace(
        measure(draws=100, rank=False),
        value=slope_of_one_hidden_unit(1, 1, 1e3),
        stderr=0.01,
        observations=1000,
        diagnostics=(diagnostics(0.0, beta=1.0),),
    )
    low, high = found.interval()
    assert low == pytest.approx(found.value - 0.02)
    assert high == pytest.approx(found.value + 0.02)
    assert high < 0.5 < found.interval(multiplicity=2)[1]
    assert found.interval(multiplicity=2)[1] - high == pytest.approx(1 / math.log(1e3))
    assert replace(found, rank_bound=0.5).interval(multiplicity=3)[1] == 0.5
    assert found.interval(errors=1e3)[0] == 0.0
    for bad in ({"multiplicity": 0}, {"multiplicity": 1.5}, {"errors": -1.0}):
        with pytest.raises(ll.errors.ChoiceError, match=next(iter(bad))):
            found.interval(**bad)
    few = replace(found, observations=1)
    with pytest.raises(ll.errors.ChoiceError, match=r"log\(n β\) ≤ 0"):
        few.interval(multiplicity=2)
