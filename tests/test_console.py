"""Narrow terminals, terminals without letters beyond ASCII, and without colour."""

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lightlike as ll
from lightlike.cli import main
from lightlike.console import folded, simplified, terminal_width
from test_cli import FACTORY, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("narrow")
    (path / "narrow_factories.py").write_text(FACTORY)
    (path / "name").write_text("narrow_factories")
    scope: dict = {}
    exec(FACTORY, scope)
    for name, width in (("a", 5), ("b", 2)):
        m = ll.measure(scope["build"](width), scope["data"](), "categorical", progress=False)
        m.save(path / f"{name}.safetensors")
    write_run(path)
    return path


@pytest.fixture
def spoken(folder, monkeypatch):
    """Exit code, stdout and stderr of the command line under other streams and variables."""

    def run(*arguments, encoding="utf-8", **environment):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name in ("COLUMNS", "NO_COLOR"):
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["lightlike", *arguments])
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            with pytest.raises(SystemExit) as stop:
                main()
            for stream in streams:
                stream.flush()
        return stop.value.code or 0, *(stream.buffer.getvalue() for stream in streams)

    return run


COMMANDS = {
    "show": (("show", "a.safetensors"), 0),
    "plan": (("plan", "run.toml"), 0),
    "compare": (("compare", "a.safetensors", "b.safetensors"), 0),
    "diagnose": (("diagnose", "a.safetensors"), (0, 3)),
    "refusal": (("show", "nothing"), 1),
    "measure": (("measure", "run.toml"), 0),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_forty_columns_without_colour_and_in_ascii(spoken, name):
    arguments, expected = COMMANDS[name]
    setting = {"COLUMNS": "40", "NO_COLOR": "1", "TERM": "dumb"}
    code, out, err = spoken(*arguments, encoding="ascii", **setting)
    assert code in (expected if isinstance(expected, tuple) else (expected,)), err
    assert b"Traceback" not in err
    said = err if name == "refusal" else out
    assert said.isascii()
    assert err.isascii()
    assert b"\x1b" not in said + err
    assert b"?" not in said
    lines = said.decode("ascii").splitlines()
    assert len(lines) > 2
    # What is wider has no place to break it.
    assert all(len(line) <= 40 or " " not in line.strip() for line in lines)


def test_a_wide_output_says_the_same_as_a_narrow_one(spoken):
    wide = spoken("show", "a.safetensors", encoding="utf-8")[1].decode()
    narrow = spoken("show", "a.safetensors", encoding="utf-8", COLUMNS="40")[1]
    assert narrow.decode().split() == wide.split()
    assert max(map(len, wide.splitlines())) > 40
    plain = spoken("show", "a.safetensors", encoding="ascii")[1].decode("ascii")
    assert plain == simplified(wide)
    # Latin-1 has some of the signs, and no others.
    latin = spoken("show", "a.safetensors", encoding="latin-1")[1]
    assert simplified(latin.decode("latin-1")) == plain


@pytest.mark.parametrize("command", ["", "measure", "plan", "track", "show", "report", "compare"])
def test_help_in_a_narrow_terminal_without_letters(spoken, command):
    arguments = (command, "--help") if command else ("--help",)
    code, out, err = spoken(*arguments, COLUMNS="40", encoding="ascii")
    assert (code, err) == (0, b"")
    assert out.isascii()
    assert b"Usage" in out
    assert (b"143" in out) == (not command)


@given(st.text(alphabet=" ab—×λ\n", max_size=300), st.integers(20, 60))
def test_folding_loses_no_word(text, width):
    result = folded(text, width)
    assert result.split() == text.split()
    for line in result.split("\n"):
        assert len(line) <= width or " " not in line.strip()


@given(st.text(max_size=80))
def test_what_is_simplified_is_ascii_and_stays(text):
    once = simplified(text)
    assert once.isascii()
    assert simplified(once) == once


def test_signs_have_equivalents():
    assert simplified("d̂ × 3 — é λ ≤ ½ D² 字") == "d x 3 - e lambda <= 1/2 D^2 ?"


def test_values_stay_below_what_follows_their_label():
    line = "route    gram: eigenvalues of the Gram matrix; exact, every row whitened"
    lines = folded(line, 30).split("\n")
    assert lines[0].startswith("route    gram")
    assert all(part.startswith(" " * 9) and part[9] != " " for part in lines[1:])


def test_no_terminal_no_folding(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width() is None
    monkeypatch.setenv("COLUMNS", "33")
    assert terminal_width() == 33


def test_a_process_of_its_own_keeps_to_its_encoding(folder):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "40", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from lightlike.cli import main; main()", "plan", "run.toml"],
        cwd=folder, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b" x " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 40
