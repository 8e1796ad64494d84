"""Measurements from a sample of columns: what they claim, against exact ones."""

import json
import math

import pytest
import torch

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, PriorError
from lightlike.present.reproducing import _call
from lightlike.runfile.settings import method_of
from oracles import networks as nets

X = nets.normal(60, 5, seed=1)
Y = torch.arange(60) % 4
OPTIONS = ll.Columns(share=0.3, replicates=8)


def network(seed=0):
    return nets.fill(nets.mlp([5, 64, 64, 4], "tanh"), seed, 0.4)


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
    assert (length.fit, length.kind) == (exact.length.fit, "estimated")
    assert abs(length.total - exact.length.total) < 4 * length.stderr + length.error
    assert abs(length.displacement - exact.length.displacement) <= length.displacement_error + 1e-9
    assert 0 < length.stderr < 0.1 * exact.length.complexity
    record = estimated.record["columns"]
    for name, truth in [("complexity", exact.length.complexity), ("trace", exact.spectrum.trace)]:
        found = record["estimates"][name]
        assert abs(found["value"] - truth) < 4 * found["stderr"]
    assert record["complexity_plain"] < record["estimates"]["complexity"]["value"]
    assert math.isclose(length.effective_dimension, exact.length.effective_dimension, rel_tol=0.1)
    assert (length.dimension, length.dimension_term) == (None, None)
    assert 0.25 < record["kept"] / record["columns"] < 0.5


def test_rank_is_certain_from_below(estimated, exact):
    found = estimated.dimension
    assert found.lower <= exact.dimension.value <= found.upper == min(180, exact.parameters)
    assert estimated.criteria["bic_dimension"] is None or found.kind == "exact"
    assert estimated.spectrum.kind == "estimated"


def test_layers(estimated, exact):
    for mine, theirs in zip(estimated.layers, exact.layers, strict=True):
        error = estimated.record["columns"]["layer_traces"][mine.name]["stderr"]
        assert (mine.name, mine.parameters) == (theirs.name, theirs.parameters)
        assert abs(mine.trace - theirs.trace) <= 4 * error + 1e-9 * theirs.trace
    ranked = measured(OPTIONS, layers=True)
    assert [a.dimension.value for a in ranked.layers] == [
        b.dimension.value for b in measured(layers=True).layers
    ]


@pytest.mark.parametrize("prior", [None, ll.priors.PerLayer({"0": 0.3, "2": 0.01, "4": 2.0})])
def test_all_columns_are_the_exact_razor(prior):
    mine, theirs = measured(ll.Columns(share=1.0), prior=prior), measured(prior=prior)
    assert math.isclose(mine.length.complexity, theirs.length.complexity, rel_tol=1e-10)
    assert mine.length.stderr == 0.0
    assert abs(mine.length.total - theirs.length.total) <= mine.length.error + 1e-9
    assert mine.length.kind == "certified"
    assert int(mine.dimension) == int(theirs.dimension)


def test_prior_of_each_parameter(exact):
    prior = ll.priors.PerLayer({"0": 0.3, "2": 0.01, "4": 2.0})
    mine, theirs = measured(OPTIONS, prior=prior).length, measured(prior=prior).length
    assert abs(mine.complexity - theirs.complexity) < 4 * mine.stderr
    assert abs(mine.displacement - theirs.displacement) <= mine.displacement_error + 1e-9
    assert mine.complexity != exact.length.complexity


def test_seeds_saving_and_words(estimated, tmp_path):
    again = measured(OPTIONS, seed=5)
    assert again.length.to_dict() == estimated.length.to_dict()
    assert measured(OPTIONS, seed=6).length.complexity != estimated.length.complexity
    estimated.save(tmp_path / "m.safetensors")
    back = ll.load(tmp_path / "m.safetensors")
    assert back.length.to_dict() == estimated.length.to_dict()
    json.dumps(back.to_dict(), allow_nan=False)
    text = str(estimated)
    assert "±" in text
    assert "in whole output units, 8 replicates" in text
    assert ll.compare({"a": estimated, "b": measured(OPTIONS, seed=6)}).to_dict()


def test_without_labels():
    found = ll.measure(network(), (X,), "categorical", method="columns", progress=False)
    assert found.length.total is None
    assert found.length.stderr > 0


def test_plan():
    given = network(), (X, Y), "categorical"
    found = ll.plan(*given, method=OPTIONS)
    assert (found.method, found.exact) == ("columns", False)
    assert "columns, by 9 Gram matrices of 180 × 180" in found.reason
    assert "estimated" in str(found)
    fewer = ll.plan(*given, method=ll.Columns(0.05, 4))
    assert fewer.memory < found.memory
    assert ll.plan(*given).method == "gram"
    with pytest.raises(CapacityError, match="smaller share"):
        ll.plan(*given, method="columns", memory="1 kB")


def test_what_makes_no_sense():
    with pytest.raises(PriorError, match="not fitted to a sample"):
        measured("columns", prior=ll.priors.Isotropic("evidence"))
    with pytest.raises(ChoiceError, match="computes in float64"):
        measured("columns", dtype="float32")
    with pytest.raises(ChoiceError, match="'columns'"):
        measured("column")


def test_run_files_and_reports_name_it(estimated):
    assert method_of({"share": 0.3, "replicates": 8}) == OPTIONS
    assert "method=ll.Columns(share=0.3, replicates=8)" in _call(estimated)
