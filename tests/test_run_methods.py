"""Options of every route, in a run file as in Python; and what is asked for on the command line."""

import dataclasses
import inspect
import json
import re
import tomllib

import pytest
import torch

import lightlike as ll
from lightlike.arguments import MEASURE_HELP
from lightlike.assess.parts import METHODS as ALL
from lightlike.errors import LightlikeError
from lightlike.runfile import run as run_module
from lightlike.runfile.settings import METHODS, method_of
from lightlike.spectrum.routes import EXACT
from test_cli import FACTORY, refused, run, write_run


@pytest.fixture
def folder(tmp_path, request):
    name = f"methods_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    (tmp_path / "name").write_text(name)
    return tmp_path


def documented(text):
    """The tables of options that a text shows, by the name in them."""
    found = re.findall(r'\{ name = "[a-z]+"[^{}]*\}', text)
    tables = [tomllib.loads("m = " + re.sub(r"\n[# ]*", " ", t))["m"] for t in found]
    return {table["name"]: table for table in tables if table["name"] in METHODS}


def test_every_route_with_options_has_a_name():
    """All classes that `measure` takes as a method, and all names but those of exact routes."""
    assert set(METHODS) == set(ALL) - {*EXACT, "auto"}
    hint = inspect.signature(ll.measure, eval_str=True).parameters["method"].annotation
    assert {str, *METHODS.values()} == set(hint.__args__)


@pytest.mark.parametrize("text", [MEASURE_HELP, run_module.__doc__], ids=["help", "reference"])
def test_what_is_documented_is_all_there_is(text):
    """Each setting of each class is shown, with its default where it has one."""
    shown = documented(text)
    assert set(shown) == set(METHODS)
    for name, table in shown.items():
        entries = {f.name: f.default for f in dataclasses.fields(METHODS[name])}
        assert set(table) - {"name"} == set(entries), name
        made = method_of(table)
        assert type(made) is METHODS[name]
        for key, default in entries.items():
            assert default is None or getattr(made, key) == default, (name, key)


@pytest.mark.parametrize("name", METHODS)
def test_a_name_alone_means_the_defaults(name):
    assert method_of({"name": name}) == METHODS[name]()


@pytest.mark.parametrize(
    ("table", "means"),
    [
        ({"draws": 2}, ll.Sketch(draws=2)),
        ({"probes": 4, "block": 2}, ll.Quadrature(probes=4, block=2)),
        ({"count": 3}, ll.Lanczos(count=3)),
        ({"form": "diagonal"}, ll.Kronecker(form="diagonal")),
    ],
)
def test_a_table_without_a_name_means_the_only_one_that_fits(table, means):
    assert method_of(table) == means


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("method = { block = 2 }", "could mean 'slq' or 'lanczos'"),
        ("method = {}", "could mean 'sketch' or"),
        ('method = { name = "gram" }', "'lanczos'"),
        ('method = { name = "lanczos", probes = 3 }', "unknown setting 'probes'"),
        ('method = { name = "lanczos", count = 0 }', "count=0"),
        ("method = { count = 3, steps = 4 }", "method 'slq' has an unknown setting 'count'"),
        ("projections = 3", "true or false"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, capsys, more, says):
    path = write_run(folder, more=f"{more}\n")
    for command in ("measure", "plan"):
        options = ["-q"] if command == "measure" else []
        assert says in refused(capsys, command, path, *options)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", ["x", -1, [1], {"a": 1}, float("nan")])
def test_settings_of_any_kind_are_taken_or_refused_with_a_reason(name, value):
    """Never by an error that is none of lightlike's."""
    for entry in dataclasses.fields(METHODS[name]):
        with pytest.raises(LightlikeError, match=entry.name):
            method_of({"name": name, entry.name: value})


def test_lanczos_from_a_run_file_measures_as_in_python(folder):
    path = write_run(folder, more='method = { name = "lanczos", count = 5 }\nseed = 4\n')
    found = json.loads(run("measure", path, "-q", "--json")[1])
    scope: dict = {}
    exec(FACTORY, scope)
    torch.manual_seed(0)
    m = ll.measure(
        scope["build"](), scope["data"](), "categorical", method=ll.Lanczos(count=5), seed=4,
        progress=False,
    )  # fmt: skip
    assert found["record"]["method"] == "lanczos"
    assert found["record"]["asked"]["method"]["count"] == 5
    assert found["length"]["total"] == m.length.total
    assert len(found["eigenvalues"]) == len(m.spectrum) == 5
    assert "lanczos" in run("plan", path)[1]


def test_explanation_and_saturation_are_asked_for_or_left_out(folder, capsys):
    """On the command line, over the run file and the preset."""

    def kept(path, *flags):
        found = json.loads(run("measure", path, "-q", "--json", *flags)[1])
        return [found[name] is not None for name in ("explanation", "saturation")]

    plain = write_run(folder)
    assert kept(plain) == [False, False]
    assert kept(plain, "--explain") == [True, False]
    assert kept(plain, "--explain", "--saturation") == [True, True]
    both = write_run(folder, more="explain = true\nsaturation = true\n")
    assert kept(both, "--no-saturation") == [True, False]
    assert kept(both, "--no-explain", "--no-saturation") == [False, False]
    assert "explain = false" in refused(
        capsys, "measure", plain, "-q", "--preset", "exact", "--no-explain"
    )
    text = run("measure", "--help")[1]
    assert "--explain" in text
    assert "--no-saturation" in text


def test_projections_are_asked_for_in_a_run_file(folder):
    for wanted in (True, False):
        path = write_run(folder, more=f"projections = {str(wanted).lower()}\n")
        out = folder / f"{wanted}.safetensors"
        assert run("measure", path, "-q", "--out", out)[0] == 0
        assert (ll.load(out).projections is not None) == wanted
