"""Measurements from leading eigenvalues: certain bounds, against exact measurements."""

import json

import pytest
import torch

import lightlike as ll
from lightlike.assess.parts import METHODS
from lightlike.errors import ChoiceError, MissingError, PriorError, UndefinedError
from oracles import networks as nets
from oracles.reference import whitened

X = nets.normal(60, 5, seed=1)
Y = torch.arange(60) % 4


def network(seed=0):
    return nets.fill(nets.mlp([5, 9, 4], "tanh"), seed)


def measured(method="auto", **options):
    return ll.measure(network(), (X, Y), "categorical", method=method, progress=False, **options)


@pytest.fixture(scope="module")
def exact():
    return measured()


@pytest.fixture(scope="module")
def found():
    return measured("lanczos", seed=5)


@pytest.mark.parametrize("count", [1, 7, 40, 200])
@pytest.mark.parametrize("prior", [
    ll.priors.Isotropic(3.0), ll.priors.PerLayer({"0": 0.3, ".*": 2.0}),
])  # fmt: skip
def test_the_bounds_hold(count, prior):
    mine, truth = measured(ll.Lanczos(count=count), prior=prior), measured(prior=prior)
    # By the way of the root, without any of this: ½ log det from numpy alone.
    A = torch.from_numpy(whitened(network(), [(X, None)], "categorical"))
    variance = prior.resolve(ll.fisher(network(), (X, Y), "categorical").problem).variance
    naive = 0.5 * float(torch.logdet(torch.eye(94) + 60 * (variance * (A.T @ A))))
    slack = 1e-9 * naive
    bounds = mine.record["lanczos"]["bounds"]
    for name, value in [
        ("complexity", naive),
        ("complexity", truth.length.complexity),
        ("effective_dimension", truth.length.effective_dimension),
    ]:
        assert bounds[name]["lower"] - slack <= value <= bounds[name]["upper"] + slack
    assert abs(mine.length.total - truth.length.total) <= mine.length.error + slack
    assert mine.length.fit == truth.length.fit
    held = mine.spectrum.eigenvalues
    assert len(held) == min(count, int(truth.dimension))
    off = (held - truth.spectrum.eigenvalues[: len(held)]).abs()
    assert (off <= mine.spectrum.errors + 1e-14).all()
    assert mine.spectrum.trace == pytest.approx(float(A.square().sum()), rel=1e-12)


def test_what_it_claims(found, exact):
    assert found.length.kind == found.spectrum.kind == "certified"
    assert (found.length.stderr, found.dimension.kind) == (0.0, "certified")
    assert (found.dimension.lower, found.dimension.upper) == (20, 94)
    assert found.criteria["bic_dimension"] is None
    assert found.criteria["bic"] == exact.criteria["bic"]
    assert found.record["lanczos"]["products"] > 40
    with pytest.raises(UndefinedError, match="lanczos"):
        found.spectrum.participation_ratio()


def test_layers(found, exact):
    for mine, theirs in zip(found.layers, exact.layers, strict=True):
        assert (mine.name, mine.parameters) == (theirs.name, theirs.parameters)
        assert mine.trace == pytest.approx(theirs.trace, rel=1e-12)
        assert mine.dimension is None
    asked = measured(ll.Lanczos(count=2), layers=True)
    assert [int(a.dimension) for a in asked.layers] == [int(b.dimension) for b in exact.layers]


def test_what_is_said(found):
    text = str(found)
    assert f"± {found.length.error:.2g} (bounds)" in text
    assert "20 to 94" in text
    assert "at most 74 null directions" in text
    assert "Complexity is certain between" in text
    assert all(len(line) <= 110 for line in text.splitlines() if not line.startswith("note"))
    low, high = (
        found.record["lanczos"]["bounds"]["effective_dimension"][side]
        for side in ("lower", "upper")
    )
    assert f"MacKay {found.length.effective_dimension:.1f} ± {0.5 * (high - low):.2g}" in text
    few = measured(ll.Lanczos(count=1))
    assert any("Lanczos(count=...)" in note for note in few.warnings)


def test_files_and_pages(found, tmp_path):
    found.save(tmp_path / "a.safetensors")
    loaded = ll.load(tmp_path / "a.safetensors")
    assert str(loaded) == str(found)
    assert loaded.length == found.length
    assert loaded.spectrum.values == found.spectrum.values
    assert json.loads(json.dumps(loaded.to_dict())) == found.to_dict()
    page = ll.report(loaded, tmp_path / "a.html").read_text()
    assert "The 20 largest only." in page
    with pytest.raises(MissingError, match="largest eigenvalues"):
        ll.reanalyse(loaded, prior=2.0)


def test_the_same_seed_the_same_bits(untouched):
    model = network()
    with untouched(model, X, Y):
        a, b = (
            ll.measure(model, (X, Y), "categorical", method="lanczos", progress=False)
            for _ in range(2)
        )
    assert a.length == b.length
    assert torch.equal(a.spectrum.eigenvalues, b.spectrum.eigenvalues)


def test_without_labels(found):
    bare = ll.measure(network(), (X,), "categorical", method="lanczos", seed=5, progress=False)
    assert bare.length.total is None
    assert bare.length.complexity == pytest.approx(found.length.complexity, rel=1e-12)
    assert "(bounds)" in str(bare)


def test_a_comparison_does_not_see_what_bounds_leave_open():
    few = ll.Lanczos(count=2)
    a, b = measured(few), ll.measure(network(1), (X, Y), "categorical", method=few, progress=False)
    found = ll.compare({"a": a, "b": b})
    open_ends = a.length.error**2 + b.length.error**2
    apart = 60 * float((a.nll - b.nll).var(correction=1))
    assert found.entries[1].stderr == pytest.approx((open_ends + apart) ** 0.5, rel=1e-9)


def test_what_is_refused():
    with pytest.raises(ChoiceError, match="float64"):
        measured("lanczos", dtype="float32")
    with pytest.raises(PriorError, match="not fitted"):
        measured("lanczos", prior=ll.priors.Isotropic("evidence"))
    for bad in ({"count": 0}, {"tolerance": 1.0}, {"block": True}, {"chance": 0}, {"maximum": 0}):
        with pytest.raises(ChoiceError, match=next(iter(bad))):
            ll.Lanczos(**bad)


@pytest.mark.parametrize("call", [
    lambda: measured("guess"),
    lambda: measured(3),
    lambda: ll.plan(network(), (X, Y), "categorical", method="guess"),
])  # fmt: skip
def test_an_unknown_method_is_answered_by_all_there_are(call):
    with pytest.raises(ChoiceError) as caught:
        call()
    for name in ("auto", "gram", "metric", "svd", "lanczos", "slq", "kronecker", "sketch"):
        assert repr(name) in str(caught.value)


def test_plans():
    plan = ll.plan(network(), (X, Y), "categorical", method=ll.Lanczos(count=7))
    assert (plan.method, plan.exact) == ("lanczos", False)
    assert "7 largest eigenvalues" in str(plan)
    assert "certain bounds" in str(plan)


def fisher():
    return ll.fisher(network(), (X, Y), "categorical")


def test_spectrum_and_dimension_by_leading_eigenvalues(exact):
    F, options = fisher(), ll.Lanczos(count=12)
    s = ll.spectrum(F, options)
    assert torch.equal(s.eigenvalues, ll.spectrum(F, "lanczos", count=12).eigenvalues)
    assert torch.allclose(s.eigenvalues, exact.spectrum.eigenvalues[:12], rtol=1e-6)
    d = ll.dimension(F, options)
    assert (d.lower, d.upper, d.kind) == (12, 94, "certified")
    above = 0.5 * float(exact.spectrum.eigenvalues[4:6].sum())
    assert int(ll.dimension(F, options, above=above)) == 5
    with pytest.raises(ChoiceError, match="count"):
        ll.spectrum(F, options, count=3)


@pytest.mark.parametrize("method", ["slq", ll.Quadrature(probes=4)])
@pytest.mark.parametrize("question", [ll.spectrum, ll.dimension])
def test_quadrature_is_no_spectrum(question, method):
    with pytest.raises(ChoiceError, match=r"'lanczos'.*lightlike\.density.*'slq'"):
        question(fisher(), method)


def test_each_kind_of_matrix_lists_its_own_methods():
    F = fisher()
    for matrix, names in [
        (F, {"auto", "gram", "metric", "svd", "lanczos", "sketch"}),
        (F.root, {"auto", "gram", "metric", "svd", "lanczos"}),
        (F.dense(), {"auto", "metric", "lanczos"}),
    ]:
        for method in ("guess", 3, None):
            with pytest.raises(ChoiceError) as caught:
                ll.spectrum(matrix, method)
            choices = str(caught.value).split("Use one of: ")[1]
            assert {name for name in METHODS if repr(name) in choices} == names
    with pytest.raises(ChoiceError, match="'svd'") as caught:
        F.decomposition("guess")
    assert "sketch" not in str(caught.value)
