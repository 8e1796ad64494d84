"""A training run whose following was ended goes on to the bits of one that was not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lightlike as ll
from lightlike import store
from lightlike.errors import StoreError, TrackingError
from lightlike.runfile import read_run
from lightlike.runfile.following import follow
from test_cli import refused, run

FACTORY = """
import torch
from torch import nn


def build():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), {activation}(), nn.Linear(5, 3))


def data(shift=0.0):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, generator=generator) + shift, torch.arange(30) % 3
"""
RUN = """
[model]
factory = "{name}:build"
[data]
factory = "{name}:data"
[measure]
likelihood = "categorical"
prior = {{ variance = "evidence" }}
[track]
weights = "step-*.safetensors"
rotation = 2
"""


class Killed(BaseException):
    """As sudden as a kill, for all that handles errors."""


def write_factory(folder, activation="nn.Tanh"):
    name = (folder / "name").read_text()
    (folder / f"{name}.py").write_text(FACTORY.format(activation=activation))
    sys.modules.pop(name, None)


def save_weights(folder, *steps):
    for step in steps:
        g = torch.Generator().manual_seed(step)
        shapes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
        weights = {k: torch.randn(*shape, generator=g) for k, shape in shapes.items()}
        save_file(weights, folder / f"step-{step}.safetensors")


@pytest.fixture
def folder(tmp_path, request):
    sys.dont_write_bytecode = True
    name = f"again_{abs(hash(request.node.nodeid))}"
    (tmp_path / "name").write_text(name)
    write_factory(tmp_path)
    (tmp_path / "run.toml").write_text(RUN.format(name=name))
    save_weights(tmp_path, 1, 2, 3)
    return tmp_path


def followed(folder, out="history.jsonl", **more):
    return follow(read_run(folder / "run.toml"), out=folder / out, quiet=True, **more)[0]


def numbers(history):
    """All but the time it took."""
    return [replace(s, seconds=0.0) for s in history.snapshots]


def stop(folder, monkeypatch, line=2, how=Killed, out="history.jsonl"):
    """End it when a line of the history was written and its state was not."""
    real, seen = store.os.replace, [0]

    def ending(source, target):
        seen[0] += "track.safetensors" in str(target)
        if seen[0] == line + 1:
            raise how
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", ending)
        with pytest.raises(how):
            followed(folder, out)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "ends",
    [
        [("before", 4), ("torn", 2)],
        pytest.param(
            [(how, at) for how in ("before", "after") for at in range(1, 6)] + [("torn", 1)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_bits(folder, ends):
    """Killed at its writes, and in the middle of lines; then again and again."""
    plan = [["whole.jsonl", 0, ""]]
    for moment, place in ends:
        name = f"{moment}-{place}.jsonl"
        plan += [[name, place, moment], [name, 0, ""]]
    plan += [["again.jsonl", 3, "before"]] * 3 + [["again.jsonl", 0, ""]]
    (folder / "plan.json").write_text(json.dumps(plan))
    script = Path(__file__).parent / "track_ends.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, script, folder], check=True, env=environment, timeout=300)
    codes = json.loads((folder / "codes.json").read_text())
    whole = ll.read_history(folder / "whole.jsonl")
    assert whole.column("step") == [1, 2, 3]
    for (name, place, _), code in zip(plan, codes, strict=True):
        assert code == (-9 if place else 0), (name, place)
        found = ll.read_history(folder / name)
        assert numbers(found) == numbers(whole), name
        assert not (folder / f"{name}.partial").exists()


@pytest.mark.parametrize("how", [KeyboardInterrupt, Killed])
def test_what_was_measured_is_not_measured_again(folder, monkeypatch, how):
    """And files that came in the meantime are measured too."""
    stop(folder, monkeypatch, how=how)
    steps = []
    real = ll.Tracker._measure
    monkeypatch.setattr(
        ll.Tracker, "_measure", lambda self, m, s, loss: steps.append(s) or real(self, m, s, loss)
    )
    save_weights(folder, 4)
    history = followed(folder)
    assert steps == [2, 3, 4]
    assert history.column("step") == [1, 2, 3, 4]
    assert ll.read_history(folder / "history.jsonl") == history
    assert numbers(followed(folder, "whole.jsonl")) == numbers(history)


def test_a_changed_set_up_is_refused(folder, monkeypatch, capsys):
    """Each by its name; nothing is lost, and with the old set-up it goes on."""
    stop(folder, monkeypatch)
    path, lines = folder / "run.toml", (folder / "history.jsonl").read_text()
    text = path.read_text()
    for old, new, says in (
        ("rotation = 2", "rotation = 1", "rotation"),
        ("[measure]", "arguments = { shift = 0.5 }\n[measure]", "data"),
        ('"evidence"', "0.5", "prior"),
        ("[track]", 'method = "svd"\n[track]', "method"),
        ("[track]", 'parameters = "0\\\\."\n[track]', "parameters"),
        ("[track]", 'memory = "100 MB"\n[track]', "memory"),
        ("step-*", "step-[23]*", "model"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(StoreError, match=f"differs from this one in: {says}"):
            followed(folder)
        said = refused(capsys, "track", path, "-q")
        assert "--force" in said
    path.write_text(text)
    for change in ("nn.ReLU", "nn.Tanh"):
        write_factory(folder, change)
        if change != "nn.Tanh":
            with pytest.raises(TrackingError, match="outputs are not what they were"):
                followed(folder)
    assert (folder / "history.jsonl").read_text() == lines
    assert followed(folder).column("step") == [1, 2, 3]


def test_changed_weights_are_refused(folder, monkeypatch):
    stop(folder, monkeypatch, line=3)
    weights = load_file(folder / "step-2.safetensors")
    save_weights(folder, 2)
    save_file({k: v + 1 for k, v in weights.items()}, folder / "step-2.safetensors")
    with pytest.raises(TrackingError, match="Weights of step 2, which were measured"):
        followed(folder)
    (folder / "step-2.safetensors").unlink()
    with pytest.raises(TrackingError, match="step 2"):
        followed(folder)
    assert followed(folder, force=True).column("step") == [1, 3]
    assert not (folder / "history.jsonl.partial").exists()
    with pytest.raises(TrackingError, match="is there already"):
        followed(folder)


def test_less_memory_is_refused_only_where_the_way_would_differ(folder, monkeypatch):
    stop(folder, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("lightlike.runfile.journal.resolve_memory", lambda _: 1000)
        with pytest.raises(TrackingError, match="a way that takes"):
            followed(folder)
        patch.setattr("lightlike.runfile.journal.resolve_memory", lambda _: 30_000_000)
        assert followed(folder).column("step") == [1, 2, 3]


def test_a_history_of_another_run_in_its_place_is_refused(folder, monkeypatch):
    """Lost lines are written again; other ones are not written over."""
    stop(folder, monkeypatch, line=3)
    out = folder / "history.jsonl"
    whole = out.read_text()
    out.write_text(whole.splitlines(keepends=True)[0])
    assert followed(folder).column("step") == [1, 2, 3]
    stop(folder, monkeypatch, line=3, out="b.jsonl")
    (folder / "b.jsonl").write_text(whole.replace('"step": 1,', '"step": 0,'))
    with pytest.raises(TrackingError, match="snapshots of another run"):
        followed(folder, "b.jsonl")


def test_ctrl_c_says_how_it_goes_on(folder, monkeypatch):
    """On stderr, with the exit code of an interrupt; the next run says that it continues."""
    real = ll.Tracker._measure

    def interrupted(self, model, step, loss):
        if step == 2:
            raise KeyboardInterrupt
        return real(self, model, step, loss)

    with monkeypatch.context() as patch:
        patch.setattr(ll.Tracker, "_measure", interrupted)
        code, _, err = run("track", folder / "run.toml")
    assert code in (1, 130)  # 130 in a process of its own
    assert "Stopped. The same measurement goes on from" in err
    code, out, err = run("track", folder / "run.toml")
    assert code == 0
    assert "Continuing from" in err
    assert len(out.splitlines()) == 5


def test_a_model_that_cannot_be_measured_leaves_nothing(folder, capsys):
    """Found out on the first weights, before anything is written."""
    save_file({"0.weight": torch.zeros(5, 4)}, folder / "step-1.safetensors")
    assert "cannot be loaded" in refused(capsys, "track", folder / "run.toml", "-q")
    assert sorted(p.name for p in folder.glob("*.jsonl*")) == []
