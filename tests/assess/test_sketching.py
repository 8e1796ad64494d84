"""Sketched measurements: what they claim, against exact ones of networks small enough."""

import json
import math
import re
from collections import Counter
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, PriorError
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.sketched import sketched_razor
from oracles import networks as nets

X = nets.normal(30, 4, seed=1)
Y = torch.arange(30) % 8
SKETCH = ll.Sketch(draws=3, repetitions=4)


def net(seed=0, widths=(4, 5, 8)):
    return nets.fill(nets.mlp(list(widths), "tanh"), seed)


def measured(method="auto", **options):
    return ll.measure(net(), (X, Y), "categorical", method=method, progress=False, **options)


@pytest.fixture(scope="module")
def exact():
    return measured()


@pytest.fixture(scope="module")
def estimated():
    return measured(ll.Sketch(draws=3, repetitions=40), seed=5, layers=True)


def test_kinds_are_said(estimated, exact):
    assert exact.length.kind == exact.spectrum.kind == "exact"
    assert (exact.length.stderr, "sketch" in exact.record) == (0.0, False)
    assert estimated.spectrum.kind == estimated.length.kind == "estimated"
    assert estimated.spectrum.method == estimated.record["method"] == "sketch"
    assert estimated.length.stderr > 0
    assert estimated.rows == exact.rows == 30 * 7
    assert estimated.record["seed"] == 5
    assert {k: estimated.record["sketch"][k] for k in ("draws", "rank", "repetitions")} == {
        "draws": 3, "rank": 7, "repetitions": 40,
    }  # fmt: skip
    text = str(estimated)
    assert "estimated by sketch" in text
    assert f"± {estimated.length.stderr:.2g}" in text
    assert "lower bounds in expectation" in text
    assert "±" not in str(exact)


def test_the_dimension_is_bounded(estimated, exact):
    d = estimated.dimension
    assert d.lower <= int(exact.dimension) <= d.upper == min(exact.rows, exact.parameters)
    assert int(exact.dimension) == d.lower
    assert d.kind == "certified"


def test_the_terms_are_below_the_exact_ones_and_near(estimated, exact):
    """Far from an optimum: the complexity is concave in the matrix, the displacement exact."""
    n = 40
    estimates = estimated.record["sketch"]["estimates"]
    for name, truth in [("complexity", exact.length.complexity), ("total", exact.length.total)]:
        found = estimates[name]
        assert found["bias"] == "below"
        assert found["value"] + 4 * found["stderr"] < truth
        # Extrapolation takes most of what is missing away.
        left = truth - found["value"] - estimates["complexity_missing"]["value"]
        assert abs(left) < 0.6 * (truth - found["value"])
    assert estimated.length.fit == exact.length.fit
    left = exact.length.displacement - estimated.length.displacement
    assert -1e-9 < left <= estimated.record["sketch"]["displacement_error"] + 1e-9 < 2e-3
    assert estimated.length.complexity == pytest.approx(estimates["complexity"]["value"])
    assert estimated.length.dimension == int(estimated.dimension)
    assert estimated.length.total == pytest.approx(estimates["total"]["value"])
    assert estimated.length.stderr == pytest.approx(estimates["total"]["stderr"])
    trace = estimates["trace"]
    assert abs(trace["value"] - exact.spectrum.trace) < 4 * trace["stderr"]
    norm = estimates["squared_norm"]
    truth = float(exact.spectrum.eigenvalues.square().sum())
    assert abs(norm["value"] - truth) < 4 * norm["stderr"]
    assert norm["degrees"] == n - 1


def test_layers_are_estimated_too(estimated, exact):
    assert sum(layer.trace for layer in estimated.layers) == pytest.approx(estimated.spectrum.trace)
    for found, truth in zip(estimated.layers, exact.layers, strict=True):
        assert found.name == truth.name
        assert found.trace == pytest.approx(truth.trace, rel=0.2)
        assert found.dimension.lower <= int(truth.dimension) <= found.dimension.upper
        assert found.dimension.upper == min(exact.rows, truth.parameters)


def test_without_labels_the_error_is_that_of_the_complexity():
    m = ll.measure(net(), (X,), "categorical", method=SKETCH, progress=False)
    assert m.length.total is None
    assert m.length.stderr == m.record["sketch"]["estimates"]["complexity"]["stderr"]
    assert "total" not in m.record["sketch"]["estimates"]


def test_a_seed_gives_the_same_numbers_again():
    same, other = measured(SKETCH, seed=3), measured(SKETCH, seed=4)
    again = ll.measure(
        net(), [(X[i : i + 7], Y[i : i + 7]) for i in range(0, 30, 7)], "categorical",
        method=SKETCH, seed=3, progress=False,
    )  # fmt: skip
    torch.testing.assert_close(same.spectrum.eigenvalues, again.spectrum.eigenvalues, rtol=1e-9,
                               atol=1e-12)  # fmt: skip
    assert same.length.total == pytest.approx(again.length.total, rel=1e-10)
    assert same.length.total != pytest.approx(other.length.total, rel=1e-6)


def test_it_is_saved_and_loaded(tmp_path):
    m = measured(SKETCH, out=tmp_path / "m.safetensors")
    back = ll.load(tmp_path / "m.safetensors")
    assert back.to_dict() == m.to_dict()
    assert (back.length, back.spectrum.kind) == (m.length, "estimated")
    assert json.loads(json.dumps(m.to_dict()))["record"]["sketch"]["draws"] == 3


def test_saturation_is_noticed_when_the_second_half_of_the_draws_adds_nothing():
    full = measured(ll.Sketch(draws=6))
    assert full.record["sketch"]["saturated"]
    assert any("with probability one" in w for w in full.warnings)
    few = ll.measure(net(), (X[:6], Y[:6]), "categorical", method=SKETCH, progress=False)
    assert not few.record["sketch"]["saturated"]
    assert few.dimension.lower == 18
    assert any("more draws may find more" in w for w in few.warnings)
    coins = measured(ll.Sketch(draws=6, distribution="rademacher"))
    assert not coins.record["sketch"]["saturated"]


@pytest.mark.parametrize("prior", [
    ll.priors.Isotropic(0.3, mean=0.1),
    ll.priors.PerParameter(torch.linspace(0, 2, 73)),
])  # fmt: skip
def test_any_prior_gives_a_lower_bound(prior):
    truth = measured(prior=prior)
    found = measured(ll.Sketch(draws=3, repetitions=20), prior=prior)
    for name in ("complexity", "total"):
        estimate = found.record["sketch"]["estimates"][name]
        assert estimate["value"] - 4 * estimate["stderr"] < getattr(truth.length, name)
    assert found.length.prior == truth.length.prior


def test_the_fitted_variance_is_the_first_sketchs_best():
    prior = ll.priors.Isotropic("evidence")
    F = ll.fisher(net(), (X, Y), "categorical")
    sketched, expansion = F.sketch(SKETCH), expand(F.problem)
    found = sketched_razor(prior, sketched, expansion)
    best = found.prior.variance
    assert all(razor.prior["variance"] == best for razor in found.razors)

    def first(variance):
        one = []

        def razor(d):
            if not one:
                problem = d.factor.problem
                one.append(gaussian_razor(problem, ll.priors.Isotropic(variance), d, expansion))

        F.sketch(SKETCH).visit(razor)
        return one[0].total

    for factor in (0.5, 0.9, 1.1, 2.0):
        assert first(best * factor) > first(best)
    assert found.length.tuning_cost == pytest.approx(0.5 * math.log(30))


def test_a_sketch_without_a_best_variance_says_why():
    model, x = net(widths=(4, 8, 20)), nets.normal(40, 4, seed=2)
    case = (model, (x, torch.arange(40) % 20), "categorical")
    prior = ll.priors.Isotropic("evidence")
    with pytest.raises(PriorError, match=r"no maximum.*misses a part of the gradient"):
        ll.measure(*case, prior=prior, method=ll.Sketch(draws=1), progress=False)
    with pytest.raises(PriorError, match="needs labels"):
        ll.measure(model, (x,), "categorical", prior=prior, method=SKETCH, progress=False)


def test_auto_never_sketches():
    case = (net(widths=(4, 20, 40)), (X, torch.arange(30) % 40), "categorical")
    memory = 5 * 10**6
    for call in (ll.plan, ll.measure):
        with pytest.raises(CapacityError, match=r"method='sketch'.*draws? for 39 rows") as caught:
            call(*case, memory=memory)
        draws = int(re.search(r"(\d+) draws? for", str(caught.value))[1])
    assert 1 <= draws <= 8
    m = ll.measure(*case, memory=memory, method="sketch", progress=False)
    assert m.record["sketch"]["draws"] == draws
    p = ll.plan(*case, memory=memory, method="sketch")
    assert (p.method, p.exact) == ("sketch", False)
    assert p.memory <= memory
    assert "estimated" in str(p)
    assert not any(r.exact for r in p.alternatives if r.fits(p.budget))
    roomy = ll.plan(*case)
    assert roomy.exact
    assert "every row whitened" in str(roomy)
    assert all(r.exact or r.method != roomy.method for r in roomy.alternatives)


def test_what_no_sketch_fits_is_refused():
    with pytest.raises(CapacityError, match=r"with draws=1 does not fit in 10 kB"):
        measured("sketch", memory=10**4)
    with pytest.raises(CapacityError) as caught:
        measured(memory=10**4)
    assert "sketch" not in str(caught.value)
    with pytest.raises(ChoiceError, match="no fewer rows"):
        measured(ll.Sketch(draws=7))


def words(most):
    found = re.findall(r"\w+|[^\w\s]", " ".join(topics.values()).lower())
    known = {w: i + 1 for i, (w, _) in enumerate(Counter(found).most_common(most - 1))}
    return torch.tensor([known.get(w, 0) for w in found])


class NextToken(nn.Module):
    """A GRU over embeddings, one distribution over the vocabulary at every position."""

    def __init__(self, vocabulary, width):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x):
        return self.head(self.cell(self.embedding(x))[0])


@pytest.mark.slow
def test_a_language_model_whose_vocabulary_is_too_wide_to_take_whole():
    vocabulary, width, length = 2000, 8, 8
    ids = words(vocabulary)
    count = len(ids) // length - 1
    x = ids[: count * length].view(count, length)
    y = ids[1 : count * length + 1].view(count, length)
    torch.manual_seed(0)
    model = NextToken(vocabulary, width)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        rows = torch.arange(step * 32, (step + 1) * 32) % count
        loss = nn.functional.cross_entropy(model(x[rows]).flatten(0, 1), y[rows].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    case = (model.eval(), (x[:8], y[:8]), "categorical")
    with pytest.raises(CapacityError, match=r"127,936 × 34,432 root.*8 draws for 1,999 rows"):
        ll.measure(*case, memory="1 GB", progress=False)
    sketch = ll.Sketch(draws=2, repetitions=3)
    m = ll.measure(*case, memory="1 GB", method=sketch, progress=False)
    assert (m.rows, m.observations) == (64 * 1999, 64)
    assert m.dimension.lower == 2 * 64
    assert m.dimension.upper == m.parameters == 34432
    assert m.spectrum.kind == "estimated"
    trace = m.record["sketch"]["estimates"]["trace"]
    # tr J_iᵀ Λ_i J_i by one backward pass for every class, of two observations.
    F = ll.fisher(model, (x[:1, :2], y[:1, :2]), "categorical")
    few = F.sketch(ll.Sketch(draws=8, repetitions=8)).trace()
    double = NextToken(vocabulary, width).double().eval()
    double.load_state_dict(model.state_dict())
    h = double(x[:1, :2])[0]
    expected = 0.0
    for o in h:
        p = torch.softmax(o.detach(), -1)
        root = torch.diag(p.sqrt()) - torch.outer(p, p.sqrt())
        g = torch.autograd.grad(
            o, list(double.parameters()), root.T, is_grads_batched=True, retain_graph=True
        )
        expected += sum(float(part.square().sum()) for part in g) / 2
    low, high = few.interval(0.999)
    assert low < expected < high
    assert few.stderr < 0.05 * expected
    assert 0 < trace["stderr"] < 0.1 * trace["value"]
    assert np.isfinite(m.length.total)
    assert m.record["sketch"]["displacement_error"] <= 1e-3
