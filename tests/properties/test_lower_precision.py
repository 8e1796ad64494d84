"""Float32 against float64 over random networks: every bound covers, and none is absurd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import nn

import lightlike as ll
from lightlike.metric.rounding import PROBES, SAFETY, norm_bounds, signs
from lightlike.spectrum.rounding import Rounding, logdet_error
from oracles import networks as nets
from oracles.reference import whitened

ROUTES = ["gram", "metric", "svd"]


@st.composite
def questions(draw):
    """A network of any of several kinds, data and a likelihood; some data lie far from zero."""
    kind = draw(st.sampled_from(["mlp", "norm", "conv", "reused", "language", "raw"]))
    n, seed = draw(st.integers(2, 24)), draw(st.integers(0, 10**6))
    likelihood = draw(st.sampled_from(["categorical", "gaussian", "bernoulli"]))
    offset = draw(st.sampled_from([0.0, 0.0, 30.0, 1000.0]))
    activation = draw(st.sampled_from(list(nets.ACTIVATIONS)))
    wide = draw(st.sampled_from([3, 20, 200]))
    x = nets.normal(n, wide, seed=seed) + offset
    if kind == "mlp":
        model = nets.mlp([wide, 9, 7, 4], activation)
    elif kind == "norm":
        model = nn.Sequential(
            nn.LayerNorm(wide), nets.mlp([wide, 8, 8, 3], "tanh", norm=nn.LayerNorm)
        )
    elif kind == "reused":
        model = nets.reused(wide, 6, 3, activation, 3)
    elif kind == "raw":
        model = nets.raw(wide, 5, 3)
    elif kind == "conv":
        x = nets.normal(n, 2, 5, 5, seed=seed) + offset
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.Flatten(),
            nn.Linear(48, 3),
        )  # fmt: skip
    else:
        likelihood = "categorical"
        x = torch.randint(7, (max(2, n // 4), 5), generator=nets.generator(seed))
        model = nets.language_model(7, 6, 5, 2, nets.Attention, tied=False)
    return nets.fill(model, seed), x, likelihood


@settings(deadline=None, max_examples=60)
@given(questions(), st.sampled_from(ROUTES))
def test_eigenvalues_agree_with_float64_within_their_errors(question, route):
    model, x, likelihood = question
    found = ll.spectrum(ll.fisher(model, (x,), likelihood, dtype="float32"), route)
    # The naive oracle loses what saturated outputs leave: it serves where they are not.
    A = ll.fisher(model, (x,), likelihood).root.dense().numpy()
    if float(x.double().abs().max()) < 10:
        oracle = whitened(model, [(x, None)], likelihood)
        assert np.linalg.norm(oracle) == pytest.approx(np.linalg.norm(A), rel=1e-9)
    expected = np.linalg.svd(A, compute_uv=False) ** 2
    values, errors = found.eigenvalues.numpy(), found.errors.numpy()
    assert (found.kind, found.precision) == ("certified", torch.finfo(torch.float32).eps)
    assert (np.abs(values - expected[: len(values)]) <= errors).all()
    # Below the floor there is nothing larger than what the bound leaves open.
    rest = expected[len(values) :]
    assert not len(rest) or rest[0] <= found.floor + found.values.error(found.floor)
    lower, upper = found.rank_bounds
    assert lower <= np.linalg.matrix_rank(A) <= upper
    d = ll.dimension(ll.fisher(model, (x,), likelihood, dtype="float32"), route)
    assert (d.kind, d.lower) == ("certified", lower)


@settings(deadline=None, max_examples=40)
@given(questions(), st.sampled_from(ROUTES), st.sampled_from([0.01, 1.0, 100.0]))
def test_the_length_agrees_with_float64_within_its_errors(question, route, variance):
    model, x, likelihood = question
    y = ll.likelihoods.NAMED[likelihood]().sample(
        torch.zeros(*_observations(model, x)), nets.generator(1)
    )
    y = y.view(x.shape) if x.ndim == 2 and not x.is_floating_point() else y
    options = {"method": route, "prior": ll.priors.Isotropic(variance), "progress": False}
    one = ll.measure(model, (x, y), likelihood, dtype="float32", **options).length
    two = ll.measure(model, (x, y), likelihood, **options).length
    assert one.fit == two.fit  # float64 in both
    slack = 1e-9 * max(1.0, two.complexity)
    assert abs(one.complexity - two.complexity) <= one.complexity_error + slack
    slack = 1e-9 * max(1.0, abs(two.displacement))
    assert abs(one.displacement - two.displacement) <= one.displacement_error + slack
    assert (two.error, two.kind, one.kind) == (0.0, "exact", "certified")
    assert one.to("bits").error == pytest.approx(one.error / math.log(2))


def _observations(model, x):
    out = nets_output(model, x)
    return out.reshape(-1, out.shape[-1]).shape


def nets_output(model, x):
    with torch.no_grad():
        return model(x.float() if x.is_floating_point() else x)


@pytest.mark.parametrize("route", ["gram", "svd"])
@pytest.mark.parametrize("case", ["small", "large sums", "far"])
def test_the_bound_is_not_absurd(route, case):
    widths, n, offset = {
        "small": ([6, 16, 16, 4], 40, 0.0),
        "large sums": ([2000, 16, 4], 60, 1.0),
        "far": ([40, 16, 4], 60, 300.0),
    }[case]
    ratios = []
    for seed in range(6):
        model = nets.fill(nets.mlp(widths, "tanh"), seed)
        x = nets.normal(n, widths[0], seed=seed) + offset
        one, two = (
            ll.spectrum(ll.fisher(model, (x,), "categorical", dtype=dtype), route)
            for dtype in ("float32", "float64")
        )
        k = min(len(one), len(two))
        seen = float((one.eigenvalues[:k] - two.eigenvalues[:k]).abs().max())
        ratios.append(float(one.errors[0]) / seen)
    assert min(ratios) >= 1.0
    assert np.median(ratios) <= 150.0


def test_cancellation_ahead_of_a_normalisation_is_found():
    """No formula in eps alone could know: the loss is in the inputs' distance from zero."""
    model = nets.fill(
        nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), 0
    )
    near, far = nets.normal(30, 8), nets.normal(30, 8) + 1e4
    floors = []
    for x in (near, far):
        one, two = (
            ll.spectrum(ll.fisher(model, (x,), "categorical", dtype=dtype), "gram")
            for dtype in ("float32", "float64")
        )
        k = min(len(one), len(two))
        assert bool(((one.eigenvalues - two.eigenvalues[:k]).abs() <= one.errors).all())
        floors.append(float(one.errors[0]) / one.largest)
    assert floors[1] > 300 * floors[0]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0.0, 3.0))
def test_norms_found_by_signs_bound_the_norms(seed, rows, columns, decay):
    g = np.random.default_rng(seed)
    X = torch.from_numpy(g.standard_normal((rows, columns)))
    X = X * torch.arange(1.0, columns + 1, dtype=torch.float64) ** -decay
    u = torch.from_numpy(2.0 * g.integers(0, 2, (columns, PROBES)) - 1.0)
    largest, total = norm_bounds(X @ u, min(rows, columns))
    assert largest <= total <= SAFETY * 3 * float(X.norm())
    if columns == 1:  # one row's error is found whatever the signs
        assert largest == pytest.approx(SAFETY * float(X.norm()))
        assert total == pytest.approx(SAFETY * float(X.norm()))


def test_norms_found_by_signs_fail_as_seldom_as_is_said():
    """The worst case: all error in one direction, spread evenly over many rows."""
    g = np.random.default_rng(0)
    direction = torch.from_numpy(g.standard_normal((200, 1))) / math.sqrt(200)
    missed, norm = [0, 0], float(direction.norm())
    for _ in range(4000):
        u = torch.from_numpy(2.0 * g.integers(0, 2, (200, PROBES)) - 1.0)
        largest, total = norm_bounds(direction.T @ u, 1 << 20)
        missed[0] += largest < norm
        missed[1] += total < norm
    # P(χ²_8 < 8/9) = 0.0011
    assert missed[1] / 4000 < 0.003
    assert missed[0] / 4000 < 0.01


def test_equal_errors_that_cancel_in_pairs_are_found():
    hadamard = torch.from_numpy(linalg.hadamard(PROBES)).double()
    largest, total = norm_bounds(hadamard, PROBES)
    assert (largest, total) == pytest.approx((SAFETY, SAFETY * PROBES**0.5))


def test_signs_are_signs_and_the_same_every_time():
    u = signs(500, torch.device("cpu"))
    assert torch.equal(u, signs(500, torch.device("cpu")))
    assert torch.equal(u.abs(), torch.ones(500, PROBES, dtype=torch.float64))
    assert float((u.T @ u / 500 - torch.eye(PROBES)).abs().max()) < 0.2


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 1e3]))
def test_log_determinants_stay_within_their_error(seed, scale):
    """Perturbed roots and products, with their true norms as bounds."""
    g = np.random.default_rng(seed)
    A = g.standard_normal((12, 20)) * np.logspace(0, -5, 12)[:, None]
    dA = 10.0 ** g.uniform(-8, -2) * g.standard_normal(A.shape)
    E = 10.0 ** g.uniform(-8, -2) * g.standard_normal((12, 12))
    E = E + E.T
    matrix = (A + dA) @ (A + dA).T + E
    values = np.linalg.eigvalsh(matrix)[::-1]
    norms = [float(np.linalg.norm(m, k)) for k in (2, "fro") for m in (dA, E)]
    bounds = Rounding(norms[0], norms[1], norms[2], norms[3])
    kept = values[values > bounds.floor]
    hidden = float(np.clip(values[len(kept) :], 0.0, None).sum())
    bounds = Rounding(norms[0], norms[1], norms[2], norms[3], hidden)
    found = np.log1p(scale * kept).sum()
    exact = np.log1p(scale * np.linalg.svd(A, compute_uv=False) ** 2).sum()
    missing = 12 - len(kept)
    error = logdet_error(torch.from_numpy(kept.copy()), missing, scale, bounds, 1e-14, bounds.floor)
    assert abs(found - exact) <= error
