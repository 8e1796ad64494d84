"""Lengths and dimensions that need no eigenvalues, on random networks.

Against the same questions asked once the eigenvalues are known, and against A from numpy.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.length.displacement import by_rows, by_singular_vectors
from lightlike.length.gaussian import expand
from lightlike.length.priors import Isotropic, PerParameter
from lightlike.spectrum.symmetric import SymmetricMatrix
from oracles import networks as nets
from oracles.reference import whitened

TERMS = (
    "fit", "displacement", "complexity", "total", "dimension", "dimension_term", "spectrum_term",
    "effective_dimension", "tuning_cost", "kind",
)  # fmt: skip

NETWORKS = {
    "mlp": lambda n, h, m, act: nets.mlp([n, h, m], act),
    "normalised": lambda n, h, m, act: nets.mlp([n, h, h, m], act, norm=nn.LayerNorm),
    "reused": lambda n, h, m, act: nets.reused(n, h, m, act, 2),
    "tied": lambda n, h, m, act: nets.two_names(n, h, m, act),
    "raw": lambda n, h, m, _: nets.raw(n, h, m),
    "dead": lambda n, h, m, _: silent(nets.mlp([n, h, m], "relu")),
}

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def silent(model):
    """Half of the hidden units never act."""
    model[0].register_forward_hook(lambda _, __, out: out - 1e3 * (torch.arange(out.shape[-1]) % 2))
    return model


@st.composite
def problems(draw):
    """A network, inputs, labels and the name of their likelihood; K below and above D."""
    kind = draw(st.sampled_from(list(NETWORKS)))
    n, h, m = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(2, 4))
    size, seed = draw(st.integers(1, 40)), draw(st.integers(0, 2**20))
    model = nets.fill(NETWORKS[kind](n, h, m, draw(st.sampled_from(list(nets.ACTIVATIONS)))), seed)
    x = nets.normal(size, n, seed=seed + 1)
    likelihood = draw(st.sampled_from(["categorical", "gaussian", "bernoulli", "poisson"]))
    y = nets.normal(size, m, seed=seed + 2)
    labels = {
        "categorical": y.argmax(1),
        "gaussian": y,
        "bernoulli": (y > 0).double(),
        "poisson": y.abs().floor(),
    }[likelihood]
    return model.double(), x, labels, likelihood


def prior(kind, variance, size):
    if kind == "isotropic":
        return Isotropic(variance)
    spread = torch.linspace(-1, 1, size, dtype=torch.float64).exp() * variance
    if kind == "held":
        spread[:: max(2, size // 3)] = 0.0
    return PerParameter(spread)


@SETTINGS
@given(
    problems(), st.sampled_from(["isotropic", "per parameter", "held"]),
    st.sampled_from([1e-6, 1e-2, 1.0, 1e3, 1e8]),
)  # fmt: skip
def test_lengths_are_the_same_with_and_without_eigenvalues(problem, kind, variance):
    model, x, y, likelihood = problem
    F = ll.fisher(model, (x, y), likelihood)
    given_prior = prior(kind, variance, F.shape[0])
    lazy = ll.description_length(F, prior=given_prior)
    spectrum = F.decomposition().spectrum
    total = lazy.total
    if kind == "isotropic" and variance <= 1.0:
        moderate = 1e-2 < len(x) * variance * spectrum.trace < 1e4
        assert not (spectrum.known and moderate), "eigenvalues were not needed"
    eager = ll.measure(
        model, (x, y), likelihood, prior=given_prior, progress=False, layers=False
    ).length
    known = ll.fisher(model, (x, y), likelihood)
    assert len(ll.spectrum(known)) >= 0  # now the eigenvalues are known
    second = ll.description_length(known, prior=given_prior)
    scale = abs(lazy.fit) + abs(lazy.displacement) + lazy.complexity
    for other in (eager, second):
        assert total == pytest.approx(other.total, rel=1e-9, abs=1e-12 * scale)
        for name in TERMS:
            mine, theirs = getattr(lazy, name), getattr(other, name)
            if isinstance(mine, float):
                # A displacement of the size of rounding in its two halves has no more digits.
                theirs = pytest.approx(theirs, rel=1e-9, abs=1e-12 * scale)
            assert mine == theirs, name


@SETTINGS
@given(problems(), st.sampled_from([1e-4, 1e-2, 1.0, 1e2]))
def test_the_complexity_is_that_of_the_naive_jacobian(problem, variance):
    model, x, y, likelihood = problem
    A = whitened(model, [(x, None)], likelihood)
    F = ll.fisher(model, (x, y), likelihood)
    length = ll.description_length(F, prior=Isotropic(variance))
    n = len(x)
    expected = 0.5 * np.linalg.slogdet(np.eye(len(A)) + n * variance * (A @ A.T))[1]
    assert length.complexity == pytest.approx(expected, rel=1e-9, abs=1e-13 * len(A))
    inverse = np.linalg.inv(np.eye(len(A)) + n * variance * (A @ A.T))
    gamma = len(A) - np.trace(inverse)
    assert length.effective_dimension == pytest.approx(gamma, rel=1e-8, abs=1e-12 * len(A))


@SETTINGS
@given(problems())
def test_significant_dimensions_are_those_of_the_naive_jacobian(problem):
    model, x, _, likelihood = problem
    values = np.linalg.svd(whitened(model, [(x, None)], likelihood), compute_uv=False) ** 2
    distinct = values[values > 1e-11 * values[0]]
    bounds = np.sqrt(distinct[:-1] * distinct[1:]).tolist()
    wide = [t for t, a, b in zip(bounds, distinct, distinct[1:], strict=False) if a > 1.001 * b]
    F = ll.fisher(model, (x,), likelihood)
    for t in [*wide, 0.3 * float(distinct[-1]), 2 * float(values[0])]:
        lazy = ll.dimension(F, above=t)
        expected = int((values > t).sum())
        assert (int(lazy), lazy.lower, lazy.upper, lazy.kind) == (expected,) * 3 + ("exact",)
        assert (lazy.above, lazy.bound) == (t, "data" if len(values) < F.shape[0] else lazy.bound)
    spectrum = ll.spectrum(F)
    for t in wide:
        assert ll.dimension(F, above=t).value == spectrum.above(t) == int((values > t).sum())
    trace, squares = values.sum(), (values**2).sum()
    assert spectrum.participation_ratio() == pytest.approx(trace**2 / squares, rel=1e-9)


@SETTINGS
@given(problems(), st.sampled_from([1e-4, 1e-2, 1.0, 1e2, 1e4]))
def test_the_displacement_from_rows_alone_is_within_its_error(problem, variance):
    model, x, y, likelihood = problem
    F = ll.fisher(model, (x, y), likelihood)
    n, root = len(x), F.root.scaled(torch.full(F.shape[:1], variance**0.5, dtype=torch.float64))
    z = F.problem.theta / variance**0.5
    b = variance**0.5 * expand(F.problem).gradient
    shifted = SymmetricMatrix(root.gram()).shifted(float(n))
    both = torch.stack([z, b], 1)
    pushed = root.mv(both)
    value, error = by_rows(shifted, both, pushed, shifted.solve(pushed), n)
    expected = by_singular_vectors(root, z, b, n)[0]
    # The reference has rounding of its own where b lies outside the rows of B by a little.
    assert abs(value - expected) <= error + 1e-13 * float(b @ b) + 1e-13 * abs(expected)


@pytest.mark.parametrize("above", [-1.0, float("nan"), float("inf")])
def test_bounds_that_are_none(above):
    with pytest.raises(ll.errors.ChoiceError, match="above="):
        ll.dimension(torch.eye(3), above=above)


def test_a_significant_dimension_counts_as_a_number():
    d = ll.dimension(torch.diag(torch.tensor([4.0, 1.0, 1e-3])), above=0.5)
    assert isinstance(d, ll.SignificantDimension)
    assert int(d) == 2
    assert [*range(3)][d] == 2
    tie = ll.dimension(torch.eye(3), above=1.0)
    assert (tie.lower, tie.upper, tie.kind) == (0, 3, "certified")


def test_empirical_bayes_reports_the_terms_of_the_eigenvalues():
    model = nets.fill(nets.mlp([3, 4, 3], "tanh"), 3).double()
    x = nets.normal(30, 3)
    y = nets.normal(30, 3, seed=1).argmax(1)
    evidence = Isotropic("evidence")
    lazy = ll.description_length(ll.fisher(model, (x, y), "categorical"), prior=evidence)
    eager = ll.measure(model, (x, y), "categorical", prior=evidence, progress=False).length
    assert lazy.prior["variance"] == pytest.approx(eager.prior["variance"], rel=1e-6)
    same = ll.description_length(
        ll.fisher(model, (x, y), "categorical"), prior=Isotropic(lazy.prior["variance"])
    )
    assert lazy.total == pytest.approx(same.total, rel=1e-12)
    assert lazy.tuning_cost > same.tuning_cost == 0.0
    assert "dimension_term" in repr(lazy)


@pytest.mark.parametrize("method", ["gram", "metric", "svd"])
@pytest.mark.parametrize("m", [2, 40])
def test_a_known_trace_takes_no_rows(monkeypatch, method, m):
    model, x = nets.fill(nets.mlp([3, 5, m], "tanh"), 0), nets.normal(7, 3, seed=1)
    F = ll.fisher(model, (x,), "categorical")
    truth = (whitened(model.double(), [(x, None)], "categorical") ** 2).sum()
    kept = F.decomposition(method)
    assert kept.trace is None
    assert F.trace() == pytest.approx(truth, rel=1e-12)
    if method == "svd":
        len(kept.spectrum)
    else:
        assert kept.spectrum.trace == kept.trace
        assert not kept.spectrum.known
    assert kept.trace == pytest.approx(truth, rel=1e-12)
    monkeypatch.setattr(type(F.root), "slabs", lambda *_: pytest.fail("rows were written out"))
    assert F.trace() == kept.trace
