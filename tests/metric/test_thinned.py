"""Samples of columns against rows written down naively, of which the same columns are taken."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, EstimateError
from lightlike.metric.contractions.lanes import Lanes
from lightlike.metric.strata import draw_strata, lanes_of, stratum_size
from lightlike.metric.triangle import Triangle
from oracles import networks as nets
from oracles.reference import whitened

X = nets.normal(7, 6, seed=1)
IMAGES = nets.normal(5, 4, 6, 6, seed=2)
TOKENS = torch.randint(16, (5, 4), generator=nets.generator(3))
OPTIONS = ll.Columns(share=0.25, replicates=4)


def convolutions(groups):
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=groups), nn.BatchNorm2d(8), nn.Tanh(),
        nn.ConvTranspose2d(8, 8, 2), nn.GroupNorm(2, 8), nn.Tanh(), nn.Flatten(), nn.Linear(200, 3),
    )  # fmt: skip


def product(width):
    """Weights (in, out) with a bias, as GPT-2 has them."""
    return nets.Call(
        lambda self, x: torch.tanh(torch.addmm(self.b, x, self.w)) @ self.v,
        w=nn.Parameter(torch.zeros(6, width)), b=nn.Parameter(torch.zeros(width)),
        v=nn.Parameter(torch.zeros(width, 3)),
    )  # fmt: skip


def language_model(layer, tied):
    return nets.language_model(16, 8, 4, 2, layer, tied)


CASES = {
    "mlp": (nets.mlp([6, 12, 9, 3], "tanh"), X, "gaussian"),
    "categorical": (nets.mlp([6, 16, 4], "relu"), X, "categorical"),
    "convolutions": (convolutions(1), IMAGES, "gaussian"),
    "grouped convolutions": (convolutions(2), IMAGES, "gaussian"),
    "products": (product(10), X, "gaussian"),
    "attention": (language_model(nets.Attention, False), TOKENS, "categorical"),
    "tied table": (language_model(nets.Attention, True), TOKENS, "categorical"),
    "encoder": (language_model(nets.encoder, False), TOKENS, "categorical"),
    "recurrent": (nets.Recurrent(nn.LSTM, 6, 5, 2, True), nets.normal(3, 4, 6), "gaussian"),
    "reused": (nets.reused(6, 8, 3, "tanh", 2), X, "gaussian"),
    "two names": (nets.two_names(6, 8, 3, "tanh"), X, "gaussian"),
    "detached": (nets.detached(6, 8, 3), X, "gaussian"),
}


def same(kept, factor, lanes):
    """Whether entries are those of the lanes' columns, but for the order of sums."""
    expected = factor.dense()[..., lanes.columns()]
    return torch.allclose(kept.dense(), expected, rtol=1e-12, atol=1e-14)


def naive(rows, thinned, scale, left_out=None):
    """Log det(I + scale · G) with a weight for every column, none from the library's matrices."""
    size, count = rows.shape[1], thinned.options.replicates
    weights = np.zeros(size)
    least = min((s.share for s in thinned.strata if not s.whole), default=1.0)
    v = math.sqrt(1 - least)
    for stratum in thinned.strata:
        groups = stratum.places or (torch.arange(stratum.lanes.kept),)
        numbers = stratum.unit.gather(torch.arange(size)[:, None])[:, 0]
        for r, places in enumerate(groups):
            lanes = stratum.lanes.only(stratum.lanes.index[places])
            factor = 1.0
            if left_out is not None and not stratum.whole:
                factor = 1 - v if r == left_out else 1 + v / (count - 1)
            weights[numbers[lanes.columns()]] = factor / stratum.share
    kept = rows * np.sqrt(weights)
    return np.linalg.slogdet(np.eye(len(rows)) + scale * kept @ kept.T)[1]


@pytest.mark.parametrize("name", CASES)
def test_against_naive_rows(name):
    model, x, likelihood = CASES[name]
    nets.fill(model, 0).eval()
    batches = [(part, None) for part in x.split(3)]
    rows = whitened(model, batches, likelihood)
    F = ll.fisher(model, [part[:1] for part in batches], likelihood)
    weights = torch.linspace(0.5, 1.5, F.shape[0], dtype=torch.float64)
    for root, plain in ((F.root, rows), (F.root.scaled(weights), rows * weights.numpy())):
        thinned = ll.Fisher(root).columns(OPTIONS, seed=1)
        assert not thinned.exact
        found = thinned.logdets(30.0)
        expected = [naive(plain, thinned, 30.0, r) for r in (None, *range(OPTIONS.replicates))]
        assert np.allclose(found, expected, rtol=1e-10, atol=1e-10)
        whole = ll.Fisher(root).columns(ll.Columns(share=1.0))
        exact = np.linalg.slogdet(np.eye(len(rows)) + 30 * plain @ plain.T)[1]
        assert whole.exact
        assert whole.logdet(30.0).stderr == 0.0
        assert math.isclose(whole.logdet(30.0).value, exact, rel_tol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_factors_keep_lanes(name):
    """Before and after positions are left out; what is kept is what is written out."""
    model, x, likelihood = CASES[name]
    nets.fill(model, 0).eval()
    F = ll.fisher(model, [(x[:2],), (x[2:],)], likelihood)
    for block in F.root.blocks("Rows"):
        for unit, factor in block.factors.items():
            lanes = lanes_of(unit)
            assert lanes.columns().tolist() == list(range(unit.width))
            some = lanes.only(lanes.index[lanes.index % 3 != 1])
            weights = torch.linspace(1.0, 2.0, unit.width, dtype=torch.float64)
            for form in (factor, factor.settled(), factor.scaled(weights)):
                kept = form.keep(some)
                assert same(kept, form, some)
                again = some.among(torch.arange(0, some.kept, 2))
                assert same(kept.keep(again), kept, again)
            assert same(factor.pick(some.columns()), factor, some)


@given(
    count=st.integers(1, 400), share=st.floats(0.001, 1.0), replicates=st.integers(4, 12),
    axis=st.integers(0, 1), across=st.integers(1, 5), bias=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_lanes_and_sizes(count, share, replicates, axis, across, bias):
    rows, cols = (count, across) if axis == 0 else (across, count)
    lanes = Lanes(rows, cols, axis, bias, torch.arange(count))
    each = [lanes.only(lanes.index[i : i + 1]).columns() for i in range(count)]
    assert torch.cat(each).sort().values.tolist() == list(range(lanes.width))
    kept = stratum_size(count, ll.Columns(share, replicates))
    assert kept == count or kept % replicates == 0
    assert share * count - 1e-6 <= kept <= count


def test_replicates_part_the_sample():
    F = ll.fisher(nets.fill(nets.mlp([6, 40, 3], "tanh"), 0), (X,), "gaussian")
    for seed in range(5):
        first, last = draw_strata(F.root.units, ll.Columns(0.3, 4), seed, F.device)
        assert last.whole  # 3 output units
        assert first.lanes.kept == 12
        assert torch.cat(first.places).sort().values.tolist() == list(range(12))
        assert [len(places) for places in first.places] == [3] * 4


def test_batches_seeds_and_generators():
    model = nets.fill(nets.mlp([6, 24, 3], "tanh"), 0)
    before = torch.random.get_rng_state()
    whole, cut, other = (
        ll.fisher(model, data, "gaussian").columns(OPTIONS, seed=seed).logdets(20.0)
        for data, seed in (((X,), 4), ([(X[:2],), (X[2:],)], 4), ((X,), 5))
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.allclose(whole, cut, rtol=1e-12)
    assert not np.allclose(whole, other, rtol=1e-6)


def test_several_passes():
    """Units that do not fit side by side take a pass each, with the same result."""
    F = ll.fisher(nets.fill(nets.mlp([6, 64, 64, 3], "tanh"), 0), (X,), "gaussian")
    once = F.columns(OPTIONS)
    few = once.thinning.fixed + 1.05 * max(once.thinning.size([u]) for u in F.root.units)
    often = F.columns(OPTIONS, memory=few)
    assert len(often.passes) > len(once.passes) == 1
    assert often.thinning.memory <= few
    assert np.allclose(once.logdets(9.0), often.logdets(9.0), rtol=1e-12)
    with pytest.raises(CapacityError, match="fewer replicates"):
        F.columns(OPTIONS, memory=0.5 * few)


def test_means_over_seeds():
    """Trace and layers' traces are unbiased; of log det the correction takes most of the bias."""
    F = ll.fisher(nets.fill(nets.mlp([6, 48, 32, 3], "tanh"), 0, 0.5), (X,), "gaussian")
    s, c, seeds = ll.spectrum(F), 7.0, 80
    samples = [F.columns(ll.Columns(0.25, 4), seed=seed) for seed in range(seeds)]
    dimension = s.effective_dimension(1 / c)
    found = {
        "trace": ([t.trace() for t in samples], s.trace),
        "layer": (
            [t.layer_traces()["2"] for t in samples], ll.Fisher(F.root.of_layer("2")).trace(),
        ),
        "logdet": ([t.logdet(c) for t in samples], s.logdet(c)),
        "effective dimension": ([t.effective_dimension(1 / c) for t in samples], dimension),
    }  # fmt: skip
    for name, (estimates, exact) in found.items():
        values = torch.tensor([e.value for e in estimates])
        stderr = torch.tensor([e.stderr for e in estimates])
        error = float(values.std()) / math.sqrt(seeds)
        assert abs(float(values.mean()) - exact) < 2.5 * error, name
        # What each says of its own error is what they scatter by.
        assert 0.7 < float(stderr.square().mean().sqrt() / values.std()) < 1.5, name
    plain = torch.tensor([t.logdets(c)[0] for t in samples]).mean()
    corrected = torch.tensor([t.logdet(c).value for t in samples]).mean()
    assert plain < s.logdet(c)
    assert abs(corrected - s.logdet(c)) < 0.5 * abs(plain - s.logdet(c))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.125, 0.3])
def test_intervals_cover(share):
    F = ll.fisher(nets.fill(nets.mlp([6, 96, 96, 3], "tanh"), 0, 0.5), (nets.normal(30, 6),),
                  "gaussian")  # fmt: skip
    exact, seeds, inside = ll.spectrum(F).logdet(30.0), 200, 0
    for seed in range(seeds):
        low, high = F.columns(ll.Columns(share, 8), seed=seed).logdet(30.0).interval(0.9)
        inside += low <= exact <= high
    assert 0.84 <= inside / seeds <= 0.97


def test_rank_is_a_lower_bound():
    F = ll.fisher(nets.fill(nets.mlp([6, 12, 3], "tanh"), 0), (nets.normal(60, 6),), "gaussian")
    rank = int(ll.dimension(F))
    for seed in range(3):
        found = F.columns(OPTIONS, seed=seed).spectrum
        assert found.rank_bounds[1] == min(F.root.shape)
        assert 0 < found.rank_bounds[0] <= rank
        assert found.kind == "estimated"
    assert F.columns(ll.Columns(share=1.0)).spectrum.rank_bounds == ll.spectrum(F).rank_bounds


@pytest.mark.parametrize("size", [1, 512, 700])
def test_triangle(size):
    random = torch.randn(size, size, generator=nets.generator(0), dtype=torch.float64)
    matrix, u = random + random.T, torch.linspace(-1, 1, size, dtype=torch.float64)
    triangle = Triangle(size, torch.device("cpu"))
    for upper in (matrix, torch.full_like(matrix, math.nan)):
        triangle.add(matrix.tril() + upper.triu(1))
    out = torch.zeros_like(matrix)
    triangle.onto(out, 0.5)
    assert torch.equal(out.tril(), matrix.tril())
    assert math.isclose(triangle.trace(), 2 * float(matrix.trace()), rel_tol=1e-12)
    assert math.isclose(triangle.form(u), 2 * float(u @ matrix @ u), rel_tol=1e-10, abs_tol=1e-10)
    assert sum(panel.nbytes for panel in triangle.panels) <= Triangle.nbytes(size) + 8 * size


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"share": 1.5}, {"share": math.nan}, {"share": "all"},
              {"replicates": 3}, {"replicates": 4.5}, {"replicates": True}],
)  # fmt: skip
def test_options_out_of_range(wrong):
    with pytest.raises(ChoiceError):
        ll.Columns(**wrong)


def test_what_float64_cannot_tell():
    twice = torch.cat([X, X])
    F = ll.fisher(nets.fill(nets.mlp([6, 40, 3], "tanh"), 0), (twice,), "gaussian")
    with pytest.raises(EstimateError, match="smaller prior variance"):
        F.columns(OPTIONS).logdet(1e20)
    with pytest.raises(ChoiceError, match="scale"):
        F.columns(OPTIONS).logdet(-1.0)
    low = ll.fisher(nets.mlp([6, 8, 3], "tanh").eval(), (X,), "gaussian", dtype="float32")
    with pytest.raises(ChoiceError, match="computes in float64"):
        low.columns(OPTIONS)
