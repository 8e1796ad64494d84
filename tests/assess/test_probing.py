"""Measurements by stochastic quadrature: what they claim, against exact ones."""

import json

import pytest
import torch

import lightlike as ll
from lightlike.errors import ChoiceError, PriorError, UndefinedError
from oracles import networks as nets

X = nets.normal(60, 5, seed=1)
Y = torch.arange(60) % 4
OPTIONS = ll.Quadrature(probes=30, deflate=8)


def network(seed=0):
    return nets.fill(nets.mlp([5, 9, 4], "tanh"), seed)


def measured(method="auto", **options):
    return ll.measure(network(), (X, Y), "categorical", method=method, progress=False, **options)


@pytest.fixture(scope="module")
def exact():
    return measured()


@pytest.fixture(scope="module")
def estimated():
    return measured(OPTIONS, seed=5)


def test_numbers(estimated, exact):
    length = estimated.length
    assert length.fit == exact.length.fit
    assert abs(length.total - exact.length.total) < 4 * length.stderr + length.error
    assert 0 < length.stderr < 0.05 * exact.length.complexity
    record = estimated.record["quadrature"]
    for name, truth in [
        ("complexity", exact.length.complexity),
        ("effective_dimension", exact.length.effective_dimension),
        ("trace", exact.spectrum.trace),
        ("squared_norm", float(exact.spectrum.eigenvalues.square().sum())),
    ]:
        found = record["estimates"][name]
        assert found["lower"] - 4 * found["stderr"] <= truth <= found["upper"] + 4 * found["stderr"]
        assert 0 < found["top_share"] < 1
    assert record["products"] > 2 * OPTIONS.probes
    held = estimated.spectrum.eigenvalues
    assert torch.allclose(held, exact.spectrum.eigenvalues[: len(held)], rtol=1e-6)
    assert len(held) == record["leading"] == 8


def test_layers(estimated, exact):
    for mine, theirs in zip(estimated.layers, exact.layers, strict=True):
        error = estimated.record["quadrature"]["layer_traces"][mine.name]["stderr"]
        assert (mine.name, mine.parameters, mine.dimension) == (
            theirs.name,
            theirs.parameters,
            None,
        )
        assert abs(mine.trace - theirs.trace) < 5 * error
        assert error < 0.05 * theirs.trace
    asked = measured(ll.Quadrature(probes=4), layers=True)
    assert [int(a.dimension) for a in asked.layers] == [int(b.dimension) for b in exact.layers]


def test_the_dimension_has_bounds_only(estimated, exact):
    d = estimated.dimension
    assert d.kind == "certified"
    assert (
        8 <= d.lower <= int(exact.dimension) < d.upper == min(estimated.rows, estimated.parameters)
    )
    assert estimated.criteria["bic_dimension"] is None
    assert estimated.criteria["bic"] == exact.criteria["bic"]
    with pytest.raises(UndefinedError, match="slq"):
        estimated.spectrum.participation_ratio()


def test_what_is_said(estimated):
    text = str(estimated)
    assert f"± {estimated.length.stderr:.2g}" in text
    assert "by quadrature" in text
    assert "dimension and spectrum terms —" in text
    assert "leading eigenvectors make up" in text
    assert "dimension — of" in text
    assert "8 largest" in text
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("note"))
    few = measured(ll.Quadrature(probes=30, steps=2, deflate=0))
    assert "(quadrature)" in str(few)
    assert any("raise Quadrature(steps=...)" in note for note in few.warnings)


def test_files_and_pages(estimated, tmp_path):
    estimated.save(tmp_path / "a.safetensors")
    loaded = ll.load(tmp_path / "a.safetensors")
    assert str(loaded) == str(estimated)
    assert loaded.length == estimated.length
    assert json.loads(json.dumps(loaded.to_dict())) == estimated.to_dict()
    page = ll.report(loaded, tmp_path / "a.html").read_text()
    assert "½ log det" in page
    assert "leading" in page


def test_the_same_seed_the_same_bits(untouched):
    model = network()
    with untouched(model, X, Y):
        a, b = (
            ll.measure(model, (X, Y), "categorical", method="slq", progress=False, prior=prior)
            for prior in (ll.priors.Isotropic(), None)
        )
    assert a.length == b.length
    assert torch.equal(a.spectrum.eigenvalues, b.spectrum.eigenvalues)
    assert a.length != measured("slq", seed=1).length


def test_unequal_variances(exact):
    prior = ll.priors.PerLayer({"0": 0.3, ".*": 2.0})
    found, truth = measured(OPTIONS, prior=prior), measured(prior=prior)
    assert (
        abs(found.length.total - truth.length.total) < 4 * found.length.stderr + found.length.error
    )
    # The spectrum is that of Î, not in prior units.
    assert found.spectrum.largest == pytest.approx(exact.spectrum.largest, rel=1e-9)


def test_without_labels():
    model = network()
    found = ll.measure(model, (X,), "categorical", method="slq", progress=False)
    assert found.length.total is None
    assert f"± {found.length.stderr:.2g}" in str(found)


def test_what_is_refused():
    with pytest.raises(ChoiceError, match="float64"):
        measured("slq", dtype="float32")
    with pytest.raises(PriorError, match="not fitted"):
        measured("slq", prior=ll.priors.PerLayer("evidence"))
    with pytest.raises(ChoiceError, match="method"):
        measured("guess")


def test_where_the_model_cannot_be_differentiated_twice():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (1 - x.tanh().square())

    class Squash(torch.nn.Module):
        def forward(self, x):
            return Once.apply(x)

    model = network()
    model[1] = Squash()
    plain, found = (
        ll.measure(m, (X, Y), "categorical", method="slq", progress=False)
        for m in (network(), model)
    )
    assert found.record["quadrature"]["way"] != plain.record["quadrature"]["way"]
    assert found.length.total == pytest.approx(plain.length.total, rel=1e-9)


def test_plans():
    plan = ll.plan(network(), (X, Y), "categorical", method=ll.Quadrature(probes=7))
    assert (plan.method, plan.exact) == ("slq", False)
    assert "7 random probes" in str(plan)
    assert "estimated" in str(plan)


def test_densities_of_fisher_matrices_and_others(exact):
    F = ll.fisher(network(), (X,), "categorical")
    found = ll.density(F, OPTIONS, seed=2)
    c = float(F.problem.survey.observations)
    truth = exact.spectrum.logdet(c)
    estimate = found.logdet(c)
    assert abs(estimate.value - truth) < 4 * estimate.stderr + estimate.bracket
    assert estimate.bracket < 0.1 * estimate.stderr
    dense = ll.density(F.dense(), OPTIONS, scale=c, seed=2)
    assert dense.logdet(c).value == pytest.approx(estimate.value, rel=1e-9)


def test_distinct_eigenvalues_without_a_basis(exact):
    """Those of a spectrum without repeated ones are its largest, and the plan has fewer vectors."""
    options = ll.Quadrature(probes=4, distinct=5)
    found = measured(options, seed=5)
    held = found.spectrum.eigenvalues
    assert torch.allclose(held, exact.spectrum.eigenvalues[:5], atol=1e-8)
    assert found.spectrum.eigenvalues.shape == (5,)
    assert found.spectrum.kind == "estimated"
    assert max(found.spectrum.errors) <= 1e-4 * float(held[0])
    assert found.dimension.lower <= int(exact.dimension)
    assert abs(found.length.total - exact.length.total) < 4 * found.length.stderr + 1e-3
    assert "see a repeated one once" in str(found)
    assert found.record["quadrature"]["found"] == 5
    lean, full = (
        ll.plan(network(), (X, Y), "categorical", method=method).memory
        for method in (options, ll.Quadrature(probes=4))
    )
    assert lean < full
