"""Commands on what is not what it should be: one paragraph that says so, and nothing lost."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

import lightlike as ll
from lightlike.errors import StoreError
from test_cli import FACTORY, refused, run, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run file with weights, a result, another of the same name, and a history."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "broken_factory.py").write_text(FACTORY)
    (folder / "name").write_text("broken_factory")
    scope: dict = {}
    exec(FACTORY, scope)
    for step in (1, 2):
        torch.manual_seed(step)
        save_file(scope["build"]().state_dict(), folder / f"step-{step}.safetensors")
    path = write_run(folder, more='explain = true\n[track]\nweights = "step-*.safetensors"\n')
    (folder / "sub").mkdir()
    for out in (folder / "r.safetensors", folder / "sub" / "r.safetensors"):
        assert run("measure", path, "-q", "--out", out)[0] == 0
    assert run("track", path, "-q")[0] == 0
    return folder


def altered(folder, **changes):
    """A history whose second line has other entries."""
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    path = folder / "altered.jsonl"
    path.write_text(lines[0] + json.dumps(json.loads(lines[1]) | changes) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", "12"), ("length", float("nan")), ("fit", float("inf")), ("trace", None),
        ("step", True), ("step", 2.5), ("dimension", "37"), ("lower", None), ("kind", 3),
        ("loss", [1.0]), ("rotation", {}),
    ],
)  # fmt: skip
def test_histories_with_entries_of_another_kind_are_refused(folder, capsys, name, value):
    path = altered(folder, **{name: value})
    for command in (("show", path), ("report", path, "--out", folder / "h.html", "--force")):
        said = refused(capsys, *command)
        assert f"Line 2 of '{path}' is no next snapshot ({name} is" in said
    with pytest.raises(StoreError, match=name):
        ll.read_history(path)


def test_histories_with_gaps_are_refused(folder, capsys):
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    for text, says in (
        (lines[0] + "\n" + lines[1], "Line 2"),
        (lines[1] + lines[0], "step 1 follows step 2"),
        (lines[0] + lines[0], "step 1 follows step 1"),
        ("[1, 2]\n", "not an object"),
    ):
        (folder / "gap.jsonl").write_text(text)
        assert says in refused(capsys, "show", folder / "gap.jsonl")


def test_folders_in_place_of_files_are_named_as_such(folder, capsys):
    place = folder / "sub"
    for command in ("show", "diagnose", "compare", "report"):
        assert "it is a folder" in refused(capsys, command, place)
    for command in ("measure", "plan", "track"):
        assert "directory" in refused(capsys, command, place)
    path = folder / "run.toml"
    assert "it is a folder" in refused(capsys, "track", path, "--weights", place, "--force")
    for command in (
        ("measure", path, "--out", place), ("track", path, "--out", place),
        ("report", folder / "r.safetensors", "--out", place),
        ("show", folder / "r.safetensors", "--out", place),
    ):  # fmt: skip
        assert "it is a folder" in refused(
            capsys, *command, *(["-q"] if command[1] == path else [])
        )


def test_a_history_is_all_that_is_replaced_by_force(folder, capsys):
    """Torn or empty ones too; nothing else, such as the code that makes the model."""
    path, notes = folder / "run.toml", folder / "notes.txt"
    for text in ("mine", "{}\n", '{"steps": 1}'):
        notes.write_text(text)
        said = refused(capsys, "track", path, "-q", "--force", "--out", notes)
        assert "is not a history" in said
        assert notes.read_text() == text
    whole = (folder / "history.jsonl").read_text()
    for text in (whole, whole[: len(whole) // 3], '{"st', ""):
        notes.write_text(text)
        assert run("track", path, "-q", "--force", "--out", notes)[0] == 0
        assert ll.read_history(notes).column("step") == [1, 2]


def test_unreadable_run_files(folder, capsys):
    path = folder / "other.toml"
    for content in (b"\xff\xfe\x00", b"[model", b"", b'model = "x"'):
        path.write_bytes(content)
        for command in ("measure", "plan", "track"):
            assert str(path) in refused(capsys, command, path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_run_files_without_permission(folder, capsys):
    path = folder / "closed.toml"
    path.write_text("")
    path.chmod(0)
    assert "Permission denied" in refused(capsys, "plan", path)


def test_messages_of_several_lines_become_one_paragraph(folder, capsys):
    """PyTorch's on weights that do not fit, for instance."""
    weights = folder / "few.safetensors"
    save_file({"0.weight": torch.zeros(2, 2)}, weights)
    said = refused(capsys, "track", folder / "run.toml", "-q", "--out", folder / "f.jsonl",
                   "--weights", weights)  # fmt: skip
    assert "cannot be loaded" in said


def test_two_results_of_one_name_are_told_apart(folder, monkeypatch):
    """By their paths, in narrow terminals too; with sources side by side on the page."""
    monkeypatch.setenv("COLUMNS", "40")
    files = folder / "r.safetensors", folder / "sub" / "r.safetensors"
    code, out, _ = run("compare", *files)
    assert code == 0
    joined = "".join(out.split())
    assert all(str(file) in joined for file in files)
    page = folder / "two.html"
    assert run("report", *files, "--out", page)[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "softmax shift" in text
    assert str(files[1]) in text


@pytest.mark.parametrize("command", ["show", "plan", "diagnose", "track"])
def test_narrow_terminals(folder, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    given = {"show": "history.jsonl", "diagnose": "r.safetensors"}.get(command, "run.toml")
    extra = ["-q", "--force", "--out", folder / "n.jsonl"] if command == "track" else []
    code, out, _ = run(command, folder / given, *extra)
    assert code in (0, 3)
    # What cannot be broken, a path for instance, stays whole.
    wide = [line for line in out.splitlines() if len(line) > 40]
    assert all(" " not in line.strip() or str(folder) in line for line in wide)
    assert "\x1b" not in out
