"""Presets, training runs by their weights, and models of Hugging Face, from run files."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

import lightlike as ll
from lightlike.assess.presets import settle
from lightlike.errors import CapacityError, ChoiceError, DependencyError, ModelError, RunFileError
from lightlike.runfile import read_run
from lightlike.runfile.checkpoints import find_checkpoints
from test_cli import FACTORY, refused, run, write_run


@pytest.fixture
def folder(tmp_path, request):
    name = f"presets_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    (tmp_path / "name").write_text(name)
    return tmp_path


def scope():
    found: dict = {}
    exec(FACTORY, found)
    return found


def test_the_plan_is_told_first_and_on_stderr(folder):
    path = write_run(folder)
    planned = run("plan", path)[1]
    code, out, err = run("measure", path, "--json")
    assert code == 0
    told = [line for line in planned.splitlines() if line.startswith(("D =", "route"))]
    assert err.splitlines()[:2] == told
    assert json.loads(out)["parameters"] == 43
    assert json.loads(run("plan", path, "--json")[1])["method"] == "metric"


def test_quick_leaves_layers_out_and_stays_exact_where_that_fits(folder):
    path = write_run(folder, more='preset = "quick"\n')
    quick = json.loads(run("measure", path, "-q", "--json")[1])
    standard = json.loads(run("measure", path, "-q", "--json", "--preset", "standard")[1])
    assert quick["dimension"] == standard["dimension"]
    assert all(layer["dimension"] is None for layer in quick["layers"])
    assert any(layer["dimension"] is not None for layer in standard["layers"])


def test_quick_estimates_where_nothing_exact_fits_and_standard_refuses():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 60), torch.nn.Tanh(), torch.nn.Linear(60, 3))
    batches = [(torch.randn(10, 8), torch.arange(10) % 3) for _ in range(40)]
    case = (model, batches, "categorical", {"memory": "6 MB"})
    options, plan = settle(*case, "quick")
    assert (options["method"], plan.method, plan.exact) == ("slq", "slq", False)
    for preset in ("standard", "exact"):
        with pytest.raises(CapacityError):
            settle(*case, preset)
    with pytest.raises(CapacityError):
        settle(*case[:3], {"memory": "6 MB", "method": "gram"}, "quick")
    with pytest.raises(CapacityError):
        settle(*case[:3], {"memory": "6 MB", "dtype": "float32"}, "quick")


def test_exact_takes_everything_in(folder):
    path = write_run(folder)
    found = json.loads(run("measure", path, "-q", "--json", "--preset", "exact")[1])
    assert found["explanation"] is not None
    assert found["saturation"] is not None
    assert all(layer["dimension"] is not None for layer in found["layers"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('method = "slq"\npreset = "exact"\n', "method = 'slq'"),
        ('dtype = "float32"\npreset = "exact"\n', "dtype = 'float32'"),
        ('explain = false\npreset = "exact"\n', "explain = false"),
        ('preset = "thorough"\n', "'quick', 'standard', 'exact'"),
        ("preset = 3\n", "preset=3"),
    ],
)
def test_contradictions_are_refused(folder, capsys, more, says):
    assert says in refused(capsys, "measure", write_run(folder, more=more), "-q")


def save_weights(folder, steps, name="step-{}.safetensors"):
    models = {}
    for step in steps:
        model = scope()["build"]()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + 0.01 * step)
        save_file(model.state_dict(), folder / name.format(step))
        models[step] = model
    return models


def test_a_training_run_is_followed_by_its_weights(folder, capsys):
    models = save_weights(folder, (2, 10, 30))
    path = write_run(folder, more='[track]\nweights = "step-*.safetensors"\n')
    code, out, _ = run("track", path, "-q")
    assert code == 0
    assert "history.jsonl" in out
    history = json.loads(run("show", folder / "history.jsonl", "--json")[1])["snapshots"]
    assert [s["step"] for s in history] == [2, 10, 30]
    for snapshot in history:
        m = ll.measure(models[snapshot["step"]], scope()["data"](), "categorical", progress=False)
        assert snapshot["dimension"] == int(m.dimension)
        assert snapshot["length"] == pytest.approx(m.length.total, rel=1e-9)
    shown = run("show", folder / "history.jsonl")[1]
    assert len(shown.splitlines()) == 4
    assert out.startswith(shown.rstrip("\n"))
    page = folder / "run.html"
    assert run("report", folder / "history.jsonl", "--out", page)[0] == 0
    assert page.stat().st_size > 1000
    assert "is there already" in refused(capsys, "track", path, "-q")
    assert run("track", path, "-q", "--force")[0] == 0
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3
    assert "training run" in refused(capsys, "show", folder / "history.jsonl", "--units", "bits")


def test_what_cannot_be_followed_is_refused_before_the_first_measurement(folder, capsys):
    save_weights(folder, (1,))
    track = '[track]\nweights = "step-*.safetensors"\n'
    for more, says in (
        ('method = "slq"\n' + track, "exact numbers"),
        ('dtype = "float32"\n' + track, "exact numbers"),
        ("[track]\n", "No files of weights"),
        ('[track]\nweights = "none-*"\n', "No file matches 'none-*'"),
        ("[track]\nweights = 3\n", "no pattern"),
        ('[track]\nweight = "a"\n', "unknown entry 'weight'"),
        ('[track]\nweights = ["step-1.safetensors", "step-*"]\n', "named twice"),
        ('[track]\nweights = "absent.safetensors"\n', "cannot be loaded"),
        ("[track]\nrotation = -1\n", "rotation"),
    ):
        assert says in refused(capsys, "track", write_run(folder, more=more), "-q")
        assert not (folder / "history.jsonl").exists()


def test_steps_are_the_numbers_in_the_names(tmp_path):
    for name in ("e1-s9.st", "e1-s10.st", "first.st", "last.st", "a1.st", "b1.st"):
        (tmp_path / name).write_bytes(b"")
    named = lambda *p: [(s, f.name) for s, f in find_checkpoints(list(p), tmp_path)]  # noqa: E731
    assert named("e1-*.st") == [(9, "e1-s9.st"), (10, "e1-s10.st")]
    assert named("last.st", "first.st") == [(0, "last.st"), (1, "first.st")]
    assert named("?1.st") == [(0, "a1.st"), (1, "b1.st")]
    with pytest.raises(RunFileError, match="No files"):
        named()


HF = """
[model]
factory = "hf:{name}"
[data]
factory = "{module}:tokens"
[measure]
likelihood = "categorical"
"""


@pytest.fixture
def tiny(tmp_path, request):
    """A run file beside a saved model of Hugging Face."""
    transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=5, n_embd=4, n_layer=1, n_head=2,
                                     bos_token_id=0, eos_token_id=0)  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "gpt")
    module = f"tokens_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(
        "import torch\n\n\ndef tokens():\n    return (torch.arange(10).reshape(2, 5) * 3) % 11\n"
    )
    path = tmp_path / "run.toml"
    path.write_text(HF.format(name="gpt", module=module))
    return path, model


def test_a_model_of_hugging_face_from_a_folder(tiny):
    path, model = tiny
    asked = read_run(path)
    tokens = (torch.arange(10).reshape(2, 5) * 3) % 11
    F = ll.fisher(asked.model, asked.data, asked.likelihood)
    assert F.problem.survey.observations == 8
    # The loss of transformers itself, summed over the 8 predicted tokens.
    with torch.no_grad():
        loss = float(model.double()(input_ids=tokens, labels=tokens).loss)
    assert float(F.problem.survey.nll.sum()) == pytest.approx(8 * loss, rel=1e-6)
    assert "exact" in run("plan", path)[1]


def test_a_model_that_is_not_there_is_refused(tiny, capsys, monkeypatch):
    path, _ = tiny
    config = path.parent / "gpt" / "config.json"
    entries = json.loads(config.read_text())
    config.write_text(json.dumps(entries | {"architectures": ["NoSuchModel"]}))
    with pytest.raises(ModelError, match="NoSuchModel"):
        read_run(path)
    config.write_text("not JSON")
    with pytest.raises(ModelError, match="cannot be loaded"):
        read_run(path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match="not installed"):
        read_run(path)
    assert "lightlike[hf]" in refused(capsys, "measure", path, "-q")


def test_a_choice_error_names_the_presets():
    with pytest.raises(ChoiceError, match="'quick'"):
        settle(scope()["build"](), scope()["data"](), "categorical", {}, "fast")
