import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.special import gammaln
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, UndefinedError
from lightlike.length.nml import log_multinomial_complexity, nml_of_labels

# Exact values in 30-digit arithmetic: {(K, n): log C}.
EXACT = {
    (2, 1): 0.69314718055995, (2, 10): 1.5390617303283, (2, 100): 2.5809711382282,
    (2, 1000): 3.6964311909901, (2, 10000): 4.8362749376262, (3, 10): 2.6851374084922,
    (3, 100): 4.7292441533311, (3, 1000): 6.9472675005333, (3, 10000): 9.2228615658093,
    (5, 10): 4.4639369781525, (5, 100): 8.4223050587634, (5, 1000): 12.815728557112,
    (10, 10): 7.5952965311669, (10, 100): 15.963324224454, (10, 1000): 25.667004075633,
    (10, 10000): 35.818888776091,
}  # fmt: skip
# Asymptotic razor less exact: its known gaps at small n.
GAPS = {
    (2, 1): -0.46736, (2, 10): -0.16198, (2, 100): -0.052595, (2, 1000): -0.016762,
    (3, 10): -0.38255, (3, 1000): -0.039512, (5, 100): -0.31058, (10, 10): -2.9585,
    (10, 10000): -0.097208,
}  # fmt: skip


@pytest.mark.parametrize(("categories", "n"), EXACT)
def test_known_values(categories, n):
    found = log_multinomial_complexity(n, categories)
    assert found == pytest.approx(EXACT[categories, n], rel=1e-13)


def rissanen_complexity(n, k):
    return (
        (k - 1) / 2 * math.log(n / (2 * math.pi)) + k / 2 * math.log(math.pi) - math.lgamma(k / 2)
    )


@pytest.mark.parametrize(("categories", "n"), GAPS)
def test_gap_to_the_asymptotic_razor(categories, n):
    gap = rissanen_complexity(n, categories) - log_multinomial_complexity(n, categories)
    assert gap == pytest.approx(GAPS[categories, n], rel=1e-4)


def expansion(n, k):
    """Szpankowski's expansion of log C, to O(n^−3/2)."""
    ratio = math.exp(math.lgamma(k / 2) - math.lgamma((k - 1) / 2))
    return (
        (k - 1) / 2 * math.log(n / 2) + 0.5 * math.log(math.pi) - math.lgamma(k / 2)
        + math.sqrt(2) * k * ratio / (3 * math.sqrt(n))
        + ((3 + k * (k - 2) * (2 * k + 1)) / 36 - ratio**2 * k**2 / 9) / n
    )  # fmt: skip


@pytest.mark.parametrize("categories", [2, 3, 7])
def test_a_million_observations(categories):
    assert log_multinomial_complexity(10**6, categories) == pytest.approx(
        expansion(10**6, categories), abs=1e-6 * categories**3 * 1e-2
    )


def test_categories_without_end_do_not_overflow():
    n, k = 1000, 5000
    found = log_multinomial_complexity(n, k)
    # Between one observation's worth of categories each, and all sequences at probability one.
    assert math.log(k) < found < n * math.log(k)
    assert found > log_multinomial_complexity(n, k - 1)


def compositions(n, k):
    for cut in itertools.combinations(range(n + k - 1), k - 1):
        edges = (-1, *cut, n + k - 1)
        yield [b - a - 1 for a, b in itertools.pairwise(edges)]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 4))
def test_the_code_is_complete(n, k):
    """Over all sequences, each counted by its counts, Σ e^{−L} = 1."""
    total = 0.0
    for counts in compositions(n, k):
        sequences = gammaln(n + 1) - gammaln(np.array(counts) + 1.0).sum()
        total += math.exp(sequences - ll.lengths.nml(counts).total)
    assert total == pytest.approx(1.0, abs=1e-12)


def test_one_data_set_four_codes():
    length = ll.lengths.nml([14, 6])
    assert length.fit == pytest.approx(12.2172860411, abs=1e-10)
    assert length.total == pytest.approx(14.05681683597, abs=1e-11)
    assert length.kind == "exact"
    assert length.stderr == 0.0
    assert length.observations == 20
    kt = math.log(math.pi) + math.lgamma(21) - math.lgamma(14.5) - math.lgamma(6.5)
    assert kt == pytest.approx(13.95501844506, abs=1e-11)
    assert kt < length.total


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, torch.DoubleTensor])
def test_counts_in_any_form(form):
    assert ll.lengths.nml(form([3, 3, 6])).total == ll.lengths.nml([3, 3, 6]).total


@pytest.mark.parametrize(
    "counts", [[], [0, 0], [1.5, 2], [-1, 3], [[1, 2]], [math.nan, 1], ["a"], [10**9, 10**9]]
)
def test_what_is_no_count(counts):
    with pytest.raises(DataError):
        ll.lengths.nml(counts)


@pytest.mark.parametrize(("n", "k"), [(0, 2), (3, 0), (1.5, 2), (10, True), (10**10, 2)])
def test_what_is_no_size(n, k):
    with pytest.raises(ChoiceError):
        log_multinomial_complexity(n, k)


@pytest.mark.parametrize(
    ("n", "restricted", "whole"),
    [(1, 0.872820936023, 1.22190712342), (10, 2.02411348252, 2.14819743446),
     (100, 3.17540602902, 3.21633407031)],
)  # fmt: skip
def test_gaussian_location(n, restricted, whole):
    y = torch.linspace(-1, 2, n, dtype=torch.float64) if n > 1 else torch.tensor([0.5])
    a = ll.lengths.nml_location(y, radius=3.0)
    b = ll.lengths.nml_location(y, radius=3.0, clipped=True)
    nll = -torch.distributions.Normal(y.double().mean(), 1.0).log_prob(y.double()).sum()
    assert a.fit == pytest.approx(float(nll), rel=1e-12)
    assert a.penalty == pytest.approx(restricted, abs=1e-11)
    assert b.penalty == pytest.approx(whole, abs=1e-11)


@pytest.mark.parametrize(("clipped", "edge"), [(True, 30.0), (False, 1.3)])
def test_location_code_is_complete(clipped, edge):
    def density(y):
        length = ll.lengths.nml_location([y], radius=1.3, variance=0.7, clipped=clipped)
        return math.exp(-length.total)

    mass, _ = integrate.quad(density, -edge, edge, points=[-1.3, 1.3], epsabs=1e-11, limit=200)
    assert mass == pytest.approx(1.0, abs=1e-9)


def test_location_of_vectors_is_a_sum():
    y = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = ll.lengths.nml_location(y, radius=2.0, variance=0.5)
    each = [ll.lengths.nml_location(column, radius=2.0, variance=0.5).total for column in y.T]
    assert both.total == pytest.approx(sum(each), rel=1e-13)


def test_location_mistakes():
    with pytest.raises(UndefinedError, match="outside the bounds"):
        ll.lengths.nml_location([5.0, 6.0], radius=1.0)
    for bad in ({"radius": 0.0}, {"radius": math.inf}, {"radius": 1.0, "variance": -1.0}):
        with pytest.raises(ChoiceError):
            ll.lengths.nml_location([0.1], **bad)
    for data in ([], [math.nan], [[[1.0]]]):
        with pytest.raises(DataError):
            ll.lengths.nml_location(data, radius=1.0)


def labelled(y, likelihood, width):
    x = torch.randn(len(y), 2, generator=torch.Generator().manual_seed(0))
    return ll.fisher(nn.Linear(2, width), [(x[:5], y[:5]), (x[5:], y[5:])], likelihood).problem


def test_labels_of_a_problem():
    y = torch.tensor([0, 2, 1, -100, 2, 2, 0, -100, 1, 0])
    found = nml_of_labels(labelled(y, "categorical", 4))
    assert found.total == pytest.approx(ll.lengths.nml([3, 2, 3, 0]).total, rel=1e-14)
    assert found.observations == 8
    bits = (torch.arange(20).reshape(10, 2) % 3 == 0).float()
    ones = [int(c) for c in bits.sum(0)]
    found = nml_of_labels(labelled(bits, "bernoulli", 2))
    expected = sum(ll.lengths.nml([10 - c, c]).total for c in ones)
    assert found.total == pytest.approx(expected, rel=1e-14)
    with pytest.raises(UndefinedError, match="finite set"):
        nml_of_labels(labelled(bits, "gaussian", 2))
