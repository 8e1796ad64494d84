"""What a spectrum answers before its eigenvalues are known, against what it answers after."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lightlike as ll
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.operator import Cost, ExplicitFactor
from lightlike.spectrum.routes import routes

SHAPES = {"wide": (30, 70), "tall": (70, 30), "square": (40, 40)}


def factor(singular, shape, seed=0):
    random = np.random.default_rng(seed)
    left, right = (np.linalg.qr(random.standard_normal((n, len(singular))))[0] for n in shape)
    return ExplicitFactor(torch.as_tensor((left * np.asarray(singular)) @ right.T))


def lazy(singular, shape, method, seed=0, precision=None):
    rows, columns = shape
    found = {r.method: r for r in routes(rows, columns, Cost(1.0, 1.0))}
    decomposition = Decomposition(factor(singular, shape, seed), found[method], 1e9)
    if precision is not None:
        decomposition.precision = precision
    return decomposition.spectrum


def sums(spectrum):
    return {
        "trace": spectrum.trace,
        "participation": spectrum.participation_ratio(),
        **{f"logdet {c:g}": spectrum.logdet(c) for c in (0.0, 1e-3, 1.0, 100.0, 1e5)},
        **{f"gamma {t:g}": spectrum.effective_dimension(t) for t in (1e-4, 1e-2, 1.0, 1e3)},
    }


@pytest.mark.parametrize("method", ["gram", "metric"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_do_not_need_eigenvalues(shape, method):
    values = np.linspace(1, 3, 25)
    spectrum = lazy(np.sqrt(values), SHAPES[shape], method)
    assert spectrum.trace == pytest.approx(values.sum(), rel=1e-13)
    assert spectrum.participation_ratio() == pytest.approx(
        values.sum() ** 2 / (values**2).sum(), rel=1e-12
    )
    assert spectrum.logdet(10.0) == pytest.approx(np.log1p(10 * values).sum(), rel=1e-12)
    assert spectrum.effective_dimension(0.5) == pytest.approx(
        (values / (values + 0.5)).sum(), rel=1e-12
    )
    assert [spectrum.above(t) for t in (1e-9, 0.99, 2.04, 3.5)] == [25, 25, 12, 0]
    assert spectrum.shape == SHAPES[shape]
    assert (spectrum.kind, spectrum.method) == ("exact", method)
    assert not spectrum.known
    assert len(spectrum) == 25
    assert spectrum.known


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 25), st.integers(0, 20), st.integers(0, 20), st.floats(0, 13),
    st.integers(0, 10**6), st.sampled_from(["gram", "metric", "svd"]),
)  # fmt: skip
def test_before_and_after_agree(rank, extra_rows, extra_columns, depth, seed, method):
    singular = np.sort(10 ** -np.random.default_rng(seed).uniform(0, depth, rank))[::-1]
    shape = max(rank + extra_rows, 1), max(rank + extra_columns, 1)
    spectrum = lazy(singular, shape, method, seed)
    before = {}
    for name in sums(lazy(singular, shape, method, seed)):  # a fresh one for every question
        before[name] = sums(lazy(singular, shape, method, seed))[name]
    bounds = [0.0, *(float(t) for t in np.sqrt(singular[:-1] * singular[1:]) ** 2), 2.0]
    counts = [lazy(singular, shape, method, seed).count(t) for t in bounds]
    spectrum.values  # noqa: B018 — now they are known
    after = sums(spectrum)
    for name, value in before.items():
        assert value == pytest.approx(after[name], rel=1e-9, abs=1e-300), name
    for t, count in zip(bounds, counts, strict=True):
        known = spectrum.count(t)
        assert max(count.lower, known.lower) <= min(count.upper, known.upper)
        if count.lower == count.upper and known.lower == known.upper:
            assert count.value == known.value == (singular**2 > t).sum()


class Forbidden:
    """A source that gives a matrix but must not be asked for eigenvalues."""

    shape, precision, method = (3, 5), torch.finfo(torch.float64).eps, "gram"

    def __init__(self, source):
        self.symmetric = source.symmetric

    def solve(self):
        raise AssertionError


def test_nothing_else_is_computed():
    spectrum = ll.Spectrum(Forbidden(lazy([2.0, 1.0, 0.5], (3, 5), "gram")))
    assert spectrum.trace == pytest.approx(5.25)
    assert spectrum.above(0.5) == 2
    assert spectrum.logdet(1.0) == pytest.approx(math.log(5) + math.log(2) + math.log(1.25))
    assert spectrum.participation_ratio() == pytest.approx(5.25**2 / (16 + 1 + 0.0625))
    assert spectrum.effective_dimension(1.0) == pytest.approx(0.8 + 0.5 + 0.2)
    for question in (len, repr, lambda s: s.rank(), lambda s: s.largest, lambda s: s.above(0.0)):
        with pytest.raises(AssertionError):
            question(spectrum)


def test_singular_values_are_taken_where_they_are_asked_for():
    spectrum = lazy([2.0, 1.0], (4, 6), "svd")
    assert spectrum.symmetric is None
    assert spectrum.trace == pytest.approx(5.0)
    assert spectrum.known


def test_the_matrix_is_let_go():
    spectrum = lazy([2.0, 1.0], (4, 6), "gram")
    matrix = weakref.ref(spectrum.symmetric)
    assert len(spectrum) == 2
    gc.collect()
    assert matrix() is None
    assert spectrum.trace == pytest.approx(5.0)


@pytest.mark.parametrize("method", ["gram", "metric"])
def test_entries_of_lower_precision(method):
    """Counts have the bounds of the coarse entries; sums are those of the eigenvalues kept."""
    eps = 2.0**-23
    singular = np.sqrt([1.0, 0.5, 1e-2, 1e-9])
    spectrum = lazy(singular, (6, 9), method, precision=eps)
    assert spectrum.kind == "certified"
    for t, value in ((0.7, 1), (0.1, 2), (1e-3, 3)):
        count = spectrum.count(t)
        assert (count.value, count.lower, count.upper) == (value,) * 3
        assert count.error > 1e-7
    assert not spectrum.known
    close = spectrum.count(1e-2 + 1e-7)
    assert close.lower <= 2 < 3 <= close.upper
    before = sums(lazy(singular, (6, 9), method, precision=eps))
    assert len(spectrum) <= 4
    for name, value in sums(spectrum).items():
        assert before[name] == pytest.approx(value, rel=1e-9), name
    small = spectrum.count(1e-9)
    assert (small.lower, small.upper) == (3, 4)
    assert spectrum.count(1e-14).upper == 6


def test_bounds_of_known_eigenvalues():
    spectrum = lazy([2.0, 1.0, 1e-5], (5, 8), "gram")
    spectrum.values  # noqa: B018
    assert spectrum.known
    for t, expected in ((3.0, (1, 1, 1)), (1e-3, (2, 2, 2)), (5e-11, (3, 3, 3)), (4.1, (0, 0, 0))):
        count = spectrum.count(t)
        assert (count.value, count.lower, count.upper) == expected
    tie = spectrum.count(float(spectrum.eigenvalues[1]))
    assert (tie.lower, tie.upper) == (1, 2)
    hidden = spectrum.count(0.0)
    assert (hidden.value, hidden.lower, hidden.upper) == (3, 3, 5)


def test_spectra_are_compared_by_value():
    one, same, other = (lazy(s, (4, 6), "gram") for s in ([2.0, 1.0], [2.0, 1.0], [2.0, 1.5]))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "spectrum"
    assert one.values != "eigenvalues"
