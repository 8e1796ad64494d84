"""On the command line: saved results asked again, and measurements that were stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import lightlike as ll
from lightlike import store
from lightlike.cli import app

FACTORY = """
import os, time
from pathlib import Path
import torch
from torch import nn
from lightlike import checkpoint
from lightlike.assess.stages import Stages


def build():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def data(hangs=True):
    if hangs and "HANG" in os.environ:
        checkpoint.EVERY = 0.0

        def layers(*_):
            Path(os.environ["HANG"]).touch()
            time.sleep(120)

        Stages.layers = layers
    return torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
"""
RUN = """
[model]
factory = "again_factory:build"
[data]
factory = "again_factory:data"
[measure]
likelihood = "categorical"
method = "gram"
out = "result.safetensors"
"""


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("again")
    (folder / "again_factory.py").write_text(FACTORY)
    (folder / "run.toml").write_text(RUN)
    assert run("measure", folder / "run.toml", "-q", "--out", folder / "whole.safetensors")[0] == 0
    return folder


def test_show_under_other_settings(folder):
    file, out = folder / "whole.safetensors", folder / "other.safetensors"
    settings = ["--tolerance", 1e-3, "--prior-variance", 0.5, "--units", "bits"]
    code, text, _ = run("show", file, *settings, "--json", "--out", out)
    m = ll.reanalyse(ll.load(file), tolerance=1e-3, prior=0.5, units="bits")
    assert code == 0
    assert json.loads(text) == m.to_dict() == ll.load(out).to_dict()
    assert run("show", out)[1].strip() == str(m)
    code, text, _ = run("show", file, "--prior-variance", 2, "--observations", 90)
    assert code == 0
    assert "re-analysed  prior variance 2, as if there were 90 observations" in text
    assert run("show", file, "--prior-variance", "guess")[0] == 1
    assert run("show", file)[1].strip() == str(ll.load(file))


def test_report_under_other_settings(folder):
    file, out = folder / "whole.safetensors", folder / "report.html"
    assert run("report", file, "--out", out, "--prior-variance", 0.25, "--units", "bits")[0] == 0
    assert "0.25" in out.read_text(encoding="utf-8")
    code = run("report", file, folder / "whole.safetensors", "--out", out, "--units", "bits")
    assert code[0] == 1


@pytest.mark.parametrize("how", ["python", "show"])
def test_a_result_replaces_nothing_but_a_result(folder, how):
    notes, file = folder / f"notes-{how}.txt", folder / "whole.safetensors"
    notes.write_text("mine")
    with pytest.raises(ll.errors.StoreError, match="not a result of lightlike"):
        store.check_replaceable(notes)
    arguments = ["show", file] if how == "show" else ["measure", folder / "run.toml", "-q"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(notes)])
    assert isinstance(result.exception, ll.errors.StoreError)
    assert notes.read_text() == "mine"
    notes.write_bytes(b"")
    for _ in range(2):
        assert run("show", file, "--out", notes)[0] == 0
    assert ll.load(notes).to_dict() == ll.load(file).to_dict()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_stopped_it_says_how_to_go_on(folder, number, code, says):
    hang, out = folder / f"hang-{code}", folder / f"stopped-{code}.safetensors"
    command = [sys.executable, "-c", "from lightlike.cli import main; main()", "measure"]
    process = subprocess.Popen(
        [*command, folder / "run.toml", "--out", out],
        env={**os.environ, "HANG": str(hang), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not hang.exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        printed, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert printed == ""
    assert f"The same measurement goes on from '{out}.partial'" in said
    assert said.splitlines()[-1] == f"lightlike: {says}"
    assert not out.exists()
    result = CliRunner().invoke(app, ["measure", str(folder / "run.toml"), "--out", str(out)])
    assert result.exit_code == 0
    assert "Continuing from" in result.stderr
    assert not (folder / f"{out.name}.partial").exists()
    found, expected = (ll.load(f).to_dict() for f in (out, folder / "whole.safetensors"))
    for numbers in (found, expected):
        for name in ("seconds", "peak_memory"):
            numbers["record"].pop(name)
    assert found["length"]["total"] == pytest.approx(expected["length"]["total"], rel=1e-12)
    assert found["dimension"]["value"] == expected["dimension"]["value"]
    assert found["record"]["fingerprint"] == expected["record"]["fingerprint"]
