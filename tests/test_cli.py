import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import lightlike as ll
from lightlike import store
from lightlike.cli import app, main

FACTORY = """
import torch
from torch import nn


def build(width=5):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


def data(n=30):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % 3


def wrong():
    return "not a module"


def broken():
    raise KeyError("no such column")


def nan():
    return torch.full((5, 4), float("nan")), torch.arange(5) % 3
"""

RUN = """
[model]
factory = "{module}:{model}"
[data]
factory = "{module}:{data}"
[measure]
likelihood = "categorical"
"""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    # Modules are cached by name, so that each test has one of its own.
    name = f"factories_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    (tmp_path / "name").write_text(name)
    return tmp_path


def write_run(folder: Path, model: str = "build", data: str = "data", more: str = "") -> Path:
    path = folder / "run.toml"
    module = (folder / "name").read_text()
    path.write_text(RUN.format(module=module, model=model, data=data) + more)
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the command line says on stderr when it refuses with exit code 1."""
    before = sys.argv
    sys.argv = ["lightlike", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    assert stop.value.code == 1
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.startswith("lightlike: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_measure_prints_what_the_library_measures(folder):
    code, out, err = run("measure", write_run(folder), "--quiet", "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    scope: dict = {}
    exec(FACTORY, scope)
    expected = ll.measure(scope["build"](), scope["data"](), "categorical", progress=False)
    assert printed["dimension"]["value"] == int(expected.dimension)
    assert printed["length"]["total"] == pytest.approx(expected.length.total, rel=1e-12)
    assert len(printed["eigenvalues"]) == len(expected.spectrum)


def test_measure_writes_and_show_prints_the_same(folder):
    target = folder / "result.safetensors"
    path = write_run(folder, more='out = "result.safetensors"\n')
    code, measured, _ = run("measure", path, "--quiet")
    assert code == 0
    assert len(measured.splitlines()) <= 20
    code, shown, _ = run("show", target)
    assert code == 0
    assert shown == measured
    assert json.loads(run("show", target, "--json")[1])["observations"] == 30


def test_settings_reach_the_measurement(folder):
    weights = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    save_file(weights.state_dict(), folder / "w.safetensors")
    more = 'units = "bits"\nparameters = "0\\\\."\nprior = { variance = 0.25 }\nmethod = "svd"\n'
    path = write_run(folder, more=more)
    text = path.read_text().replace(
        "[data]", 'arguments = { width = 7 }\nweights = "w.safetensors"\n[data]'
    )
    path.write_text(text)
    printed = json.loads(run("measure", path, "--quiet", "--json")[1])
    scope: dict = {}
    exec(FACTORY, scope)
    expected = ll.measure(
        weights, scope["data"](), "categorical", parameters="0\\.", prior=ll.priors.Isotropic(0.25),
        method="svd", units="bits", progress=False,
    )  # fmt: skip
    assert printed["parameters"] == 35
    assert printed["length"]["units"] == "bits"
    assert printed["length"]["total"] == pytest.approx(expected.length.total, rel=1e-9)
    assert printed["record"]["method"] == "svd"


def test_plan_names_the_route(folder):
    code, out, _ = run("plan", write_run(folder))
    assert code == 0
    assert "D = 43 parameters" in out
    assert "exact" in out


def test_a_run_file_can_ask_for_a_sketch(folder):
    path = write_run(folder, more="method = { draws = 1, repetitions = 3 }\nseed = 4\n")
    record = json.loads(run("measure", path, "--quiet", "--json")[1])["record"]
    assert (record["method"], record["seed"]) == ("sketch", 4)
    assert (record["sketch"]["draws"], record["sketch"]["repetitions"]) == (1, 3)
    assert "estimated" in run("plan", path)[1]


def test_a_run_file_can_ask_for_a_quadrature(folder):
    path = write_run(folder, more="method = { probes = 4, deflate = 2 }\nseed = 4\n")
    record = json.loads(run("measure", path, "--quiet", "--json")[1])["record"]
    assert (record["method"], record["quadrature"]["probes"]) == ("slq", 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "wrong"}, "returned a str"),
        ({"model": "missing"}, "cannot be imported"),
        ({"data": "broken"}, "no such column"),
        ({"data": "nan"}, "NaN or infinite"),
        ({"more": "unknown = 1\n"}, "unknown entry 'unknown'"),
        ({"more": "= 1\n"}, "not valid TOML"),
        ({"more": 'method = "guess"\n'}, "'gram'"),
        ({"more": "method = { draw = 1 }\n"}, "unknown setting 'draw'"),
        ({"more": "method = { draws = 0 }\n"}, "draws=0"),
        ({"more": 'parameters = "nothing"\n'}, "matches 'nothing'"),
        ({"more": 'memory = "1 kB"\n'}, "No exact route fits"),
        ({"more": "out = 3\n"}, "a path in quotes"),
        ({"more": 'seed = "x"\n'}, "a whole number"),
        ({"more": "layers = 3\n"}, "true or false"),
    ],
)
def test_bad_run_files_get_one_paragraph(folder, capsys, change, says):
    assert says in refused(capsys, "measure", write_run(folder, **change), "-q")


def test_bad_factory_names_and_missing_files_get_one_paragraph(tmp_path, capsys):
    path = tmp_path / "run.toml"
    assert "cannot be read" in refused(capsys, "measure", path)
    path.write_text(
        '[model]\nfactory = "nocolon"\n[data]\nfactory = "a:b"\n[measure]\nlikelihood = "poisson"\n'
    )
    assert "package.module:function" in refused(capsys, "measure", path)
    path.write_text("[model]\n")
    assert "no [model] factory" in refused(capsys, "plan", path)
    assert "cannot be read as a result" in refused(capsys, "show", tmp_path / "nothing")
    path.write_bytes(b"\x80\x04not a result")
    assert "cannot be read as a result" in refused(capsys, "show", path)


def test_unwritable_output_is_refused_and_leaves_nothing(folder, capsys):
    path = write_run(folder)
    target = folder / "missing" / "r.safetensors"
    assert "cannot be written" in refused(capsys, "measure", path, "-q", "--out", target)
    assert not target.parent.exists()


def test_unexpected_errors_get_one_paragraph_too(folder, capsys, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("lightlike.cli.measure_model", fail)
    assert "unexpected ZeroDivisionError" in refused(capsys, "measure", write_run(folder), "-q")
    monkeypatch.setattr(sys, "argv", ["lightlike", "--debug", "measure", str(write_run(folder))])
    with pytest.raises(ZeroDivisionError):
        main()


def test_an_interrupt_exits_with_130(folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightlike.cli.measure_model", interrupt)
    monkeypatch.setattr(sys, "argv", ["lightlike", "measure", str(write_run(folder))])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130


def test_the_example_run_file_runs():
    path = Path(__file__).parents[1] / "examples" / "wine.toml"
    code, out, _ = run("measure", path, "-q", "--json")
    assert code == 0
    assert json.loads(out)["length"]["units"] == "bits"


def test_float32_is_asked_for_in_the_run_file_or_on_the_command_line(folder, capsys):
    path = write_run(folder, more='dtype = "float32"\n')
    assert "float32" in run("plan", path)[1]
    found = json.loads(run("measure", path, "-q", "--json")[1])
    assert (found["record"]["dtype"], found["dimension"]["kind"]) == ("float32", "certified")
    assert found["length"]["error"] > 0
    again = json.loads(run("measure", path, "-q", "--json", "--dtype", "float64")[1])
    assert (again["record"]["dtype"], again["length"]["error"]) == ("float64", 0.0)
    assert "float32" in run("plan", write_run(folder), "--dtype", "float32")[1]
    for command in (("measure", path, "-q"), ("plan", path)):
        text = refused(capsys, *command, "--dtype", "float16")
        assert "dtype='float16' is not a choice" in text
        assert "'float64', 'float32'" in text


def test_misuse_exits_with_two():
    assert run("measure")[0] == 2
    assert run("nonsense")[0] == 2


def test_help_shows_the_run_file_as_it_is_written():
    out = run("measure", "--help")[1]
    for line in ("[model]", "[data]", "[measure]", 'likelihood = "categorical"'):
        assert line in out


def test_installed_command_runs_in_a_process_of_its_own(folder):
    script = "from lightlike.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "measure", "run.toml", "--json"],
        cwd=write_run(folder).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 43


def test_the_search_path_is_left_as_it_was(folder):
    before = list(sys.path)
    run("measure", write_run(folder), "-q")
    assert sys.path == before
    assert torch.get_default_dtype() == torch.float32


def test_what_factories_print_does_not_disturb_json(folder):
    path = write_run(folder)
    name = (folder / "name").read_text()
    with (folder / f"{name}.py").open("a") as file:
        file.write("\nprint('hello')\n")
    code, out, err = run("measure", path, "-q", "--json")
    assert code == 0
    assert json.loads(out)["parameters"] == 43
    assert "hello" in err


def test_the_example_in_the_help_is_as_written():
    text = run("measure", "--help")[1]
    assert "\b" not in text
    assert "\n  factory = " in text


def test_compare_sorts_saved_results(folder, capsys):
    other = folder / "elsewhere"
    other.mkdir()
    files = []
    for width, place in ((3, folder), (6, folder), (6, other)):
        text = write_run(folder).read_text()
        (folder / "run.toml").write_text(
            text.replace("[data]", f"arguments = {{ width = {width} }}\n[data]")
        )
        files.append(place / f"width-{width}.safetensors")
        assert run("measure", folder / "run.toml", "--quiet", "--out", files[-1])[0] == 0
    code, out, _ = run("compare", *files, "--json")
    printed = json.loads(out)
    assert code == 0
    # The two of one name are told apart by their paths.
    assert {e["name"] for e in printed["entries"]} == {"width-3", str(files[1]), str(files[2])}
    lengths = {ll.load(f).length.total for f in files}
    assert {e["total"] for e in printed["entries"]} == lengths
    assert run("compare", *files[:2])[1].startswith("network")
    for again in (files[0], folder / "elsewhere" / ".." / files[0].name):
        assert "given twice" in refused(capsys, "compare", files[0], again)
    assert "results themselves" in refused(capsys, "report", files[0], "--out", files[0], "--force")
    assert ll.load(files[0]).observations == 30
    assert "not a measurement" in refused(capsys, "compare", of_another_kind(folder))


def test_report_of_results_and_of_a_run(folder, capsys):
    path = write_run(folder, more='out = "result.safetensors"\n')
    assert run("measure", path, "--quiet")[0] == 0
    target = folder / "report.html"
    code, out, _ = run("report", folder / "result.safetensors", "--out", target)
    assert (code, out.strip()) == (0, f"written to {target}")
    assert "A network of" in target.read_text(encoding="utf-8")
    scope: dict = {}
    exec(FACTORY, scope)
    tracker = ll.Tracker(scope["data"](), "categorical", out=folder / "run.jsonl")
    tracker(scope["build"](), 1)
    assert run("report", folder / "run.jsonl", "--out", target)[0] == 0
    assert "A training run" in target.read_text(encoding="utf-8")
    target.write_text("mine")
    assert "not a report" in refused(
        capsys, "report", folder / "result.safetensors", "--out", target
    )
    assert target.read_text() == "mine"
    assert run("report", folder / "result.safetensors", "--out", target, "--force")[0] == 0


def of_another_kind(folder: Path) -> Path:
    """A result file of another kind."""
    path = folder / "other.safetensors"
    store.write(path, {}, {"kind": "something"})
    return path
