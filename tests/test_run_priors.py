"""Priors and noise in run files and on the command line: the same numbers as from Python."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, PriorError, RunFileError
from lightlike.runfile import read_run
from test_cli import FACTORY, run, write_run

P = ll.priors
MORE = """

def mlp():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def shifted():
    model = mlp()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3)
    return model


def noisy(n=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return x, x @ torch.ones(4, 3) + 0.5 * torch.randn(n, 3, generator=generator)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)
"""


@pytest.fixture
def folder(tmp_path, request):
    name = f"priors_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(FACTORY + MORE)
    (tmp_path / "name").write_text(name)
    return tmp_path


def scope():
    found: dict = {}
    exec(FACTORY + MORE, found)
    return found


GIVEN = {
    "per layer": (
        '{ name = "per_layer", variance = { "0" = 0.1, ".*" = 0.4 }, mean = 0.2 }',
        lambda _: P.PerLayer({"0": 0.1, ".*": 0.4}, mean=0.2),
    ),
    "per layer, fitted": (
        '{ name = "per_layer", variance = { "0" = 0.1, ".*" = "evidence" }, mean = "w.st" }',
        lambda s: P.PerLayer({"0": 0.1, ".*": "evidence"}, mean=s["mlp"]().state_dict()),
    ),
    "per parameter": (
        '{ name = "per_parameter", variance = { "0.weight" = 0.1, "0.bias" = 0.2, '
        '"2.weight" = 0.3, "2.bias" = 0.0 } }',
        lambda _: P.PerParameter({"0.weight": 0.1, "0.bias": 0.2, "2.weight": 0.3, "2.bias": 0.0}),
    ),
    "initialisation": (
        '{ name = "from_initialisation" }',
        lambda _: P.FromInitialisation(),
    ),
    "initialisation, measured": (
        '{ name = "from_initialisation", fresh = true, seed = 3, mean = 0, constants = 0.1 }',
        lambda s: P.FromInitialisation(fresh=s["shifted"], seed=3, mean=0, constants=0.1),
    ),
    "one variance": ("0.25", lambda _: P.Isotropic(0.25)),
    "named": ('{ name = "isotropic", variance = 2 }', lambda _: P.Isotropic(2)),
}


@pytest.mark.parametrize("case", GIVEN)
@pytest.mark.parametrize("place", ["file", "option"])
def test_a_prior_is_the_same_as_from_python(folder, case, place):
    text, build = GIVEN[case]
    s = scope()
    save_file(s["mlp"]().state_dict(), folder / "w.st")
    more = f"prior = {text}\n" if place == "file" else "prior = 7.0\n"
    path = write_run(folder, model="shifted", more=more)
    option = () if place == "file" else ("--prior", text)
    code, out, err = run("measure", path, "--quiet", "--json", *option)
    assert (code, err) == (0, "")
    expected = ll.measure(
        s["shifted"](), s["data"](), "categorical", prior=build(s), progress=False
    )
    printed = json.loads(out)["length"]
    assert printed["total"] == pytest.approx(expected.length.total, rel=1e-12)
    assert printed["prior"] == json.loads(json.dumps(expected.length.prior))
    assert expected.length.total != pytest.approx(
        ll.measure(s["shifted"](), s["data"](), "categorical", progress=False).length.total
    )


def test_a_word_on_the_command_line_is_a_variance(folder):
    path = write_run(folder, model="linear", data="data")
    found = json.loads(run("measure", path, "-q", "--json", "--prior", '"evidence"')[1])
    same = json.loads(run("measure", path, "-q", "--json", "--prior", "evidence")[1])
    assert found["length"]["prior"]["fitted_by"] == "evidence"
    assert found["length"] == same["length"]


@pytest.mark.parametrize("units", ["nats", "bits"])
def test_noise_by_the_evidence(folder, units):
    path = write_run(folder, model="linear", data="noisy", more=f'units = "{units}"\nout = "r"\n')
    path.write_text(
        path.read_text().replace('"categorical"', '{ name = "gaussian", variance = "evidence" }')
    )
    code, out, err = run("measure", path, "-q", "--json", "--prior", "evidence")
    assert (code, err) == (0, "")
    s = scope()
    F = ll.fisher(s["linear"](), s["noisy"](), "gaussian")
    expected = ll.lengths.noise_variance(F, prior=P.Isotropic("evidence"))
    printed = json.loads(out)
    assert printed["length"]["prior"]["noise_variance"] == pytest.approx(expected.variance)
    assert printed["likelihood"]["variance"] == pytest.approx(expected.variance)
    length = expected.length.to(units)
    assert printed["length"]["total"] == pytest.approx(length.total, rel=1e-9)
    assert printed["length"]["tuning_cost"] == pytest.approx(length.tuning_cost)
    assert ll.load(folder / "r").length.total == pytest.approx(length.total, rel=1e-9)


BAD = {
    '{ name = "gamma" }': (ChoiceError, "'per_layer'"),
    '{ name = "per_layer" }': (RunFileError, "no variance"),
    '{ name = "per_layer", variance = 1.0 }': (ChoiceError, "a mapping from layers"),
    '{ name = "per_layer", variance = "evidence", scale = 1 }': (RunFileError, "setting 'scale'"),
    '{ name = "per_layer", variance = { ".*" = -1 } }': (PriorError, "the variance -1"),
    '{ name = "per_parameter", variance = "evidence" }': (ChoiceError, "a table from parameters"),
    '{ name = "from_initialisation", fresh = 1 }': (RunFileError, "true or false"),
    '{ name = "from_initialisation", seed = true }': (RunFileError, "a whole number"),
    '{ name = "from_initialisation", constants = "a" }': (PriorError, "not a variance"),
    '{ variance = 1, mean = "nothing.safetensors" }': (RunFileError, "cannot be loaded"),
    '"fitted"': (ChoiceError, "'evidence'"),
    "[1, 2]": (PriorError, "not a proper prior"),
    "true": (PriorError, "not a proper prior"),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_priors(folder, text):
    error, says = BAD[text]
    path = write_run(folder, more=f"prior = {text}\n")
    with pytest.raises(error, match=says):
        read_run(path)
    with pytest.raises(error, match=says):
        read_run(write_run(folder), text)


def test_a_factory_that_makes_no_model_the_second_time(folder):
    path = write_run(folder, more='prior = { name = "from_initialisation", fresh = true }\n')
    asked = read_run(path)
    assert isinstance(asked.options["prior"].fresh(), nn.Module)
    assert asked.options["prior"].fresh() is not asked.model
    assert torch.equal(asked.options["prior"].fresh()[0].weight, asked.model[0].weight)
