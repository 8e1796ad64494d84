"""What sketches say of the Fisher matrix: unbiased, with errors that cover, or from below."""

import gc
import math
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

import lightlike as ll
from lightlike.errors import ChoiceError
from lightlike.metric.sketch import SketchedFisher
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.routes import Route
from oracles import networks as nets
from oracles.reference import whitened

X = nets.normal(6, 3, seed=1)
LONG = nets.normal(24, 3, seed=1)
SCALE = 50.0
V = nets.normal(32, seed=8)
# Independent repetitions, and how many make one estimate in the tests of coverage.
MANY, GROUP = 1000, 5


def small(seed=0):
    return nets.fill(nets.mlp([3, 3, 5], "tanh"), seed)


@pytest.fixture(scope="module")
def exact():
    A = whitened(small(), [(X, None)], "categorical")
    return A.T @ A


@pytest.fixture(scope="module")
def fisher():
    return ll.fisher(small(), (X,), "categorical")


@pytest.fixture(scope="module")
def sampled():
    """Of every repetition: trace, ‖Î‖²_F, log det, an entry of a product and of the diagonal."""
    F = ll.fisher(small(), (LONG,), "categorical")
    many = F.sketch(ll.Sketch(draws=3, repetitions=MANY), seed=1)
    dense = [root.dense() for root in many.roots()]
    return {
        "trace": [s.trace for s in many.spectra],
        "squared norm": many.squared_norms,
        "logdet": [s.logdet(SCALE) for s in many.spectra],
        "product": [float((S.T @ (S @ V))[3]) for S in dense],
        "diagonal": [float(S[:, 20].square().sum()) for S in dense],
    }


def truths():
    A = whitened(small(), [(LONG, None)], "categorical")
    exact = A.T @ A
    return {
        "trace": np.trace(exact),
        "squared norm": (exact**2).sum(),
        "product": (exact @ V.numpy())[3],
        "diagonal": exact[20, 20],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trace", "squared norm", "product", "diagonal"])
def test_unbiased_estimates_have_the_exact_mean(sampled, name):
    values = np.array(sampled[name])
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - truths()[name]) < 4 * error
    assert error < 0.05 * abs(truths()[name])


def test_the_plain_squared_norm_is_biased_and_ours_is_not(fisher, exact):
    """‖SᵀS‖²_F itself is too large by far: the correction is what makes it unbiased."""
    many = fisher.sketch(ll.Sketch(draws=2, repetitions=200), seed=5)
    plain = np.array([float(s.eigenvalues.square().sum()) for s in many.spectra])
    assert plain.mean() - 10 * plain.std() / math.sqrt(200) > (exact**2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trace", "squared norm", "product", "diagonal", "logdet"])
def test_standard_errors_cover(sampled, name):
    """Student's 95 % intervals from 5 repetitions each: 90–99 % of 200 cover."""
    values = np.array(sampled[name]).reshape(-1, GROUP)
    truth = truths().get(name, values.mean())
    hits = 0
    for group in values:
        low, high = Estimate.of(list(group)).interval()
        hits += low <= truth <= high
    assert len(values) == 200
    assert 0.90 <= hits / len(values) <= 0.99


def test_estimates_are_means_over_the_sketches(fisher):
    few = fisher.sketch(ll.Sketch(draws=2, repetitions=3), seed=9)
    squares = [S.T @ S for S in (root.dense() for root in few.roots())]
    mean = sum(squares) / 3
    assert float(few.trace()) == pytest.approx(float(mean.trace()), rel=1e-12)
    torch.testing.assert_close(few.diagonal().value, mean.diagonal(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(few @ V, mean @ V, rtol=1e-11, atol=1e-14)
    spread = torch.stack([s @ V for s in squares]).std(0) / math.sqrt(3)
    torch.testing.assert_close(few.product(V).stderr, spread, rtol=1e-9, atol=1e-14)
    found = [
        float(torch.linalg.slogdet(torch.eye(32, dtype=torch.float64) + SCALE * s).logabsdet)
        for s in squares
    ]
    assert float(few.logdet(SCALE)) == pytest.approx(np.mean(found), rel=1e-10)
    assert few.logdet(SCALE).stderr == pytest.approx(stats.sem(found), rel=1e-8)
    values = [torch.linalg.eigvalsh(s) for s in squares]
    gammas = [float((v / (v + 0.1)).sum()) for v in values]
    assert float(few.effective_dimension(0.1)) == pytest.approx(np.mean(gammas), rel=1e-10)
    top = torch.stack(values).mean(0).flip(0)
    torch.testing.assert_close(few.spectrum.eigenvalues[:12], top[:12], rtol=1e-10, atol=1e-14)
    assert few.spectrum.kind == "estimated"
    assert few.spectrum.shape == (24, 32)


@pytest.mark.parametrize("route", ["gram", "metric", "svd"])
def test_every_route_gives_the_same_estimates(fisher, route):
    few = fisher.sketch(ll.Sketch(draws=3, repetitions=2), seed=2)
    other = fisher.sketch(ll.Sketch(draws=3, repetitions=2), seed=2)
    other.route = Route(route, 0.0, 0.0, "")
    assert float(other.trace()) == pytest.approx(float(few.trace()), rel=1e-11)
    assert float(other.squared_norm()) == pytest.approx(float(few.squared_norm()), rel=1e-11)
    assert float(other.logdet(SCALE)) == pytest.approx(float(few.logdet(SCALE)), rel=1e-11)


@pytest.mark.parametrize("route", ["gram", "metric"])
def test_one_matrix_is_held_at_a_time(fisher, route):
    few = fisher.sketch(ll.Sketch(draws=3, repetitions=3), seed=2)
    few.route = Route(route, 0.0, 0.0, "")
    held = []

    def look(decomposition):
        held.append(weakref.ref(decomposition.matrix))
        gc.collect()
        return sum(matrix() is not None for matrix in held)

    assert few.visit(look) == [1, 1, 1]
    gc.collect()
    assert not any(matrix() is not None for matrix in held)
    assert all(s.known for s in few.spectra)


def test_a_count_above_a_bound_is_an_estimate_without_bounds(fisher, exact):
    values = np.linalg.eigvalsh(exact)
    bound = float(values[-1]) / 10
    sketch = ll.Sketch(draws=3, repetitions=20)
    found = ll.dimension(fisher, sketch, above=bound, seed=3)
    dense = [root.dense().numpy() for root in fisher.sketch(sketch, seed=3).roots()]
    mean = np.mean([np.linalg.svd(S, compute_uv=False) ** 2 for S in dense], axis=0)
    truth = int((values > bound).sum())
    assert found.value == (mean > bound).sum() != truth
    assert (found.kind, found.lower, found.upper) == ("estimated", 0, 24)
    plain = ll.dimension(fisher, above=bound)
    assert (plain.kind, plain.value) == ("exact", truth)


def test_the_squared_norm_needs_two_draws(fisher):
    with pytest.raises(ChoiceError, match=r"Sketch\(draws=2\)"):
        fisher.sketch(ll.Sketch(draws=1)).squared_norm()


def test_log_determinants_rise_to_the_exact_one_from_below(fisher, exact):
    """Jensen: E f(mean of r draws) grows with r and is at most f(Î), for concave f."""
    truth = {
        "logdet": np.linalg.slogdet(np.eye(32) + SCALE * exact)[1],
        "gamma": np.trace(exact @ np.linalg.inv(exact + 0.02 * np.eye(32))),
    }
    found = {"logdet": [], "gamma": []}
    for draws in (1, 2, 3):
        few = fisher.sketch(ll.Sketch(draws=draws, repetitions=60), seed=3)
        found["logdet"].append(few.logdet(SCALE))
        found["gamma"].append(few.effective_dimension(0.02))
    for name, estimates in found.items():
        for lower, upper in pairwise(estimates):
            assert upper.value - lower.value > 4 * math.hypot(lower.stderr, upper.stderr)
        assert truth[name] - estimates[-1].value > 4 * estimates[-1].stderr
        assert all(e.bias == "below" for e in estimates)


def test_the_averaged_spectrum_majorises_the_exact_one(fisher, exact):
    """Sums of the k largest are too large (Fan); Schur-concave numbers are too small."""
    found = fisher.sketch(ll.Sketch(draws=2, repetitions=300), seed=4).spectrum
    values = np.linalg.eigvalsh(exact)[::-1]
    sums = np.cumsum(found.eigenvalues.numpy())
    assert (sums[:8] > np.cumsum(values)[:8]).all()
    A = ll.spectrum(fisher)
    for name in ("participation_ratio", "stable_rank", "entropy_dimension"):
        assert getattr(found, name)() < getattr(A, name)()


def linear(widths):
    layers = [torch.nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("draws", [1, 2, 4])
@pytest.mark.parametrize(
    ("make", "N", "full"),
    [
        (lambda: nets.mlp([3, 4, 6], "tanh"), 12, True),
        # A unit that one observation alone switches on shows as many dimensions as it has draws.
        (lambda: nets.mlp([3, 5, 6], "relu"), 14, False),
        (lambda: linear([4, 2, 3, 6]), 10, True),
        (lambda: linear([4, 2, 3, 6]), 3, False),
    ],
)
def test_the_rank_of_a_sketch_bounds_the_rank(make, N, full, draws):
    model = nets.fill(make(), 2)
    n_in = next(model.parameters()).shape[1]
    x = nets.normal(N, n_in, seed=5)
    A = whitened(model, [(x, None)], "categorical")
    true = np.linalg.matrix_rank(A)
    F = ll.fisher(model, (x,), "categorical")
    d = ll.dimension(F, ll.Sketch(draws=draws, repetitions=2), seed=6)
    # As many as draws from any other generator reach: N r, or what the observations span.
    blocks = A.reshape(N, -1, A.shape[1])
    xi = np.random.default_rng(0).standard_normal((N, draws, blocks.shape[1]))
    generic = np.linalg.matrix_rank((xi @ blocks).reshape(-1, A.shape[1]))
    assert d.lower <= true
    assert d.lower == generic
    if full and draws == 4:
        assert d.lower == true
    assert (d.value, d.upper) == (d.lower, min(F.root.shape))
    assert d.kind == ("exact" if d.lower == d.upper else "certified")


def test_seeds_seed():
    F = ll.fisher(small(), (X,), "categorical")
    option = ll.Sketch(draws=2)
    first, again, other = (ll.spectrum(F, option, seed=s).eigenvalues for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_only_a_fisher_matrix_is_sketched():
    with pytest.raises(ChoiceError, match="Fisher matrix"):
        ll.spectrum(torch.eye(3), "sketch")
    F = ll.fisher(small(), (X,), "categorical")
    assert isinstance(F.sketch(), SketchedFisher)
    with pytest.raises(ChoiceError, match="'sketch'"):
        ll.spectrum(F, "skech")


def test_intervals_are_students():
    values = [1.0, 2.0, 4.0, 4.0]
    estimate = Estimate.of(values)
    low, high = stats.t.interval(0.9, 3, np.mean(values), stats.sem(values))
    assert estimate.interval(0.9) == (pytest.approx(low), pytest.approx(high))
    assert float(estimate) == 2.75
    assert estimate.to_dict() == {
        "value": 2.75, "stderr": estimate.stderr, "degrees": 3, "bias": "none",
    }  # fmt: skip
