"""Stochastic quadrature against exact spectra and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike import store
from lightlike.errors import ChoiceError, EstimateError
from lightlike.spectrum.quadrature import Quadrature, as_quadrature, quadrature
from oracles.matrices import planted, toeplitz


def shannon(g, c):
    """∫ log(1 + gλ) of Marchenko and Pastur's law of ratio c (Tulino & Verdú 2004)."""
    root = [math.sqrt(g * (1 + s * math.sqrt(c)) ** 2 + 1) for s in (1, -1)]
    Q = (root[0] - root[1]) ** 2
    return math.log(1 + g - Q / 4) + math.log(1 + g * c - Q / 4) / c - Q / (4 * c * g)


def wishart(n, d, seed=0):
    X = torch.as_tensor(np.random.default_rng(seed).standard_normal((n, d)))
    return X.T @ X / n


@pytest.mark.parametrize(("n", "d", "g"), [(400, 200, 50.0), (100, 200, 10.0)])
def test_marchenko_and_pastur(n, d, g):
    """The razor complexity of random features tends to (D/2) V(N σ²)."""
    found = quadrature(wishart(n, d), Quadrature(probes=30, deflate=0), scale=g, seed=3)
    limit = d * shannon(g, d / n)
    complexity = found.logdet(g)
    assert abs(complexity.value - limit) < 4 * complexity.stderr + complexity.bracket + 2.0
    assert complexity.stderr < 0.02 * limit
    assert found.steps[1] < 60


def test_second_differences():
    """Eigenvalues 2 − 2 cos(kπ/(n + 1)): det(I + cT) is a Chebyshev polynomial."""
    n, c = 150, 3.0
    x = 1 + 1 / (2 * c)
    # det = cⁿ U_n(x), U_n(cosh t) = sinh((n + 1) t)/sinh t.
    t = math.acosh(x)
    truth = n * math.log(c) + (n + 1) * t - math.log(2 * math.sinh(t))
    found = quadrature(toeplitz(n), Quadrature(probes=40, deflate=0), scale=c, seed=1).logdet(c)
    assert abs(found.value - truth) < 4 * found.stderr + found.bracket
    low, high = found.interval(0.9999)
    assert low < truth < high


@settings(max_examples=15, deadline=None)
@given(
    values=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=14),
    deflate=st.integers(0, 6),
    seed=st.integers(0, 10**6),
)
def test_any_spectrum(values, deflate, seed):
    F = planted(values, seed % 97)
    exact = torch.as_tensor(np.linalg.eigvalsh(F.numpy())).clamp_min(0)
    found = quadrature(F, Quadrature(probes=60, deflate=deflate), scale=10.0, seed=seed)
    quantities = [
        (found.logdet(10.0), torch.log1p(10 * exact)),
        (found.effective_dimension(0.1), exact / (exact + 0.1)),
        (found.trace, exact),
        (found.squared_norm, exact.square()),
        (found.sum(torch.cos), torch.cos(exact)),
    ]
    for estimate, true in quantities:
        low, high = estimate.interval(1 - 1e-6)
        assert low - 1e-7 <= float(true.sum()) <= high + 1e-7
    assert found.least_rank <= int((exact > 0).sum())
    assert found.mass + len(found.leading) == len(values)


def test_taking_out_any_vectors_biases_nothing():
    """Neither invariant nor leading: the mean over many probes is the sum all the same."""
    F = planted([8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.0, 0.0, 0.0])
    any_vectors = torch.randn(10, 3, generator=torch.Generator().manual_seed(5)).double()
    found = quadrature(F, Quadrature(probes=600, block=200), scale=10.0, vectors=any_vectors)
    exact = torch.linalg.eigvalsh(F).clamp_min(0)
    assert not bool((found.residuals < 0.1).any())
    for estimate, true in [
        (found.logdet(10.0), torch.log1p(10 * exact)),
        (found.trace, exact),
        (found.effective_dimension(0.3), exact / (exact + 0.3)),
    ]:
        assert estimate.bracket < 1.0
        assert estimate.lower - 4 * estimate.stderr < float(true.sum())
        assert estimate.upper + 4 * estimate.stderr > float(true.sum())
    trace = found.trace
    assert trace.bracket == 0.0
    assert 0 < trace.stderr < 0.03 * trace.value


def test_counts_are_enclosed():
    F = planted([*np.linspace(1.0, 2.0, 12), *np.linspace(0.0, 0.2, 48)])
    options = Quadrature(probes=40, deflate=12, steps=48)
    found = quadrature(F, options, above=0.6)
    count = found.above(0.6)
    assert count.value == pytest.approx(12, abs=1e-6)
    assert count.interval(0.9)[1] < 12.001
    inside = found.above(0.1)
    assert inside.lower - 4 * inside.stderr < 36 < inside.upper + 4 * inside.stderr
    assert found.cumulative(0.6).value == pytest.approx(0.8, abs=1e-7)
    assert (found.above(3.0).value, found.cumulative(3.0).value) == pytest.approx((0.0, 1.0))
    wide = quadrature(F, Quadrature(probes=40, deflate=0, steps=4)).above(0.1)
    assert wide.bracket > inside.bracket  # few steps leave more open, and say so


@pytest.mark.parametrize("size", [1, 3, 40])
def test_a_multiple_of_the_identity_takes_one_step(size):
    found = quadrature(2.0 * torch.eye(size, dtype=torch.float64), scale=4.0)
    assert found.logdet(4.0).interval(0.99) == pytest.approx((size * math.log(9.0),) * 2, abs=1e-5)
    assert found.steps == ((1, 1) if size > 1 else (0, 0))


def test_nothing_and_little():
    zero = quadrature(torch.zeros(5, 5, dtype=torch.float64), scale=1.0)
    assert (zero.logdet(1.0).value, zero.trace.value, zero.least_rank) == (0.0, 0.0, 0)
    assert zero.cumulative(0.0).value == 1.0
    low = quadrature(planted([3.0, 2.0, *[0.0] * 30]), Quadrature(deflate=5), scale=1.0)
    assert low.logdet(1.0).value == pytest.approx(math.log(4) + math.log(3))
    assert low.logdet(1.0).stderr < 1e-12
    assert low.logdet(1.0).top_share == pytest.approx(1.0)
    assert low.least_rank == 2


def test_steps_end_where_chance_outweighs_them():
    F = wishart(200, 100)
    for share in (0.3, 0.01):
        found = quadrature(F, Quadrature(probes=10, share=share), scale=100.0, seed=2)
        complexity = found.logdet(100.0)
        assert complexity.bracket < 1.2 * share * complexity.stderr
    few = quadrature(F, Quadrature(probes=10, steps=3), scale=1e4).logdet(1e4)
    assert few.bracket > few.stderr  # and says so where they were not allowed


def test_a_state_goes_on_to_the_same_bits(tmp_path):
    F, options = wishart(60, 40), Quadrature(probes=7, block=2, deflate=3)
    states = []
    whole = quadrature(F, options, scale=10.0, seed=4, keep=states.append)
    assert len(states) == 5
    for index, state in enumerate(states):
        path = tmp_path / f"{index}.safetensors"
        store.write(path, state, {"kind": "state"})
        again = quadrature(F, options, scale=10.0, seed=4, state=store.read(path)[0])
        for mine, theirs in zip(whole.probes, again.probes, strict=True):
            assert torch.equal(mine.alphas, theirs.alphas)
            assert torch.equal(mine.betas, theirs.betas)
        assert whole.logdet(10.0) == again.logdet(10.0)
        assert whole.products == again.products
    with pytest.raises(ChoiceError, match="state"):
        quadrature(F, options, scale=10.0, seed=5, state=states[1])
    with pytest.raises(ChoiceError, match="state"):
        quadrature(F, options, scale=11.0, seed=4, state=states[1])


def test_seeds_and_memory():
    F = wishart(60, 40)
    one, same, other = (quadrature(F, scale=10.0, seed=seed).logdet(10.0) for seed in (1, 1, 2))
    assert one == same
    assert one.value != other.value
    tight = quadrature(F, scale=10.0, seed=1, memory=1).logdet(10.0)
    assert tight.value == pytest.approx(one.value, rel=2e-3)  # steps may differ by block


class Single:
    """Products in float32, which it says."""

    precision = 1.2e-7

    def __init__(self, matrix):
        self.matrix, self.shape = matrix.float(), matrix.shape

    def __matmul__(self, block):
        return self.matrix @ block.float()


def test_products_in_float32():
    F = wishart(60, 40)
    found = quadrature(Single(F), scale=10.0).logdet(10.0)
    assert found.value == pytest.approx(quadrature(F, scale=10.0).logdet(10.0).value, rel=1e-4)


def test_numpy_and_errors():
    F = wishart(30, 20)
    assert quadrature(F.numpy(), scale=1.0).logdet(1.0) == quadrature(F, scale=1.0).logdet(1.0)
    with pytest.raises(ValueError, match="square"):
        quadrature(F[:5])
    with pytest.raises(EstimateError, match="NaN"):
        quadrature(F * math.nan)
    for bad in ({"probes": 1}, {"steps": 1}, {"deflate": -1}, {"share": 0.0}, {"block": 0}):
        with pytest.raises(ChoiceError, match="is not a choice"):
            Quadrature(**bad)
    found = quadrature(F, scale=1.0)
    with pytest.raises(ChoiceError, match="level"):
        found.trace.interval(1.0)
    with pytest.raises(ChoiceError, match="scale"):
        found.logdet(-1.0)
    assert as_quadrature("slq") == Quadrature()
    assert as_quadrature("gram") is None


@pytest.mark.slow
@pytest.mark.parametrize("deflate", [0, 4])
@pytest.mark.parametrize("probes", [4, 16])
def test_intervals_cover(deflate, probes):
    """90 % intervals over 300 seeds, where few eigenvalues count too."""
    spectra = {"wishart": wishart(80, 40), "decaying": planted([2.0**-k for k in range(24)])}
    for name, F in spectra.items():
        exact = torch.linalg.eigvalsh(F).clamp_min(0)
        truths = [float(torch.log1p(50 * exact).sum()), float(exact.sum())]
        hits, errors = [0, 0], [[], []]
        for seed in range(300):
            options = Quadrature(probes=probes, deflate=deflate)
            found = quadrature(F, options, scale=50.0, seed=seed)
            for i, estimate in enumerate((found.logdet(50.0), found.trace)):
                low, high = estimate.interval(0.9)
                hits[i] += low <= truths[i] <= high
                errors[i].append(estimate.value - truths[i])
        for i, hit in enumerate(hits):
            assert 0.84 <= hit / 300 <= 0.97, (name, i)
            spread = np.std(errors[i]) / math.sqrt(300)
            assert abs(np.mean(errors[i])) < 3.5 * spread + 1e-3 * truths[i], (name, i)
