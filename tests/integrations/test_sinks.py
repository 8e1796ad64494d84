"""A tracker's numbers where other libraries show them, through their own writers and readers."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.integrations import sinks


def data(n=24):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=generator)
    return x, x[:, :3].argmax(-1)


def tracked(sink, steps, between=lambda _: None):
    """A tracker that measured networks at some steps; `between` is called ahead of each."""
    tracker = ll.Tracker(data(), "categorical", sinks=[sink])
    for step in steps:
        between(step)
        torch.manual_seed(step)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
        tracker(model, step, loss=None if step == steps[0] else 1.0 / step)
    return tracker.history


def expected(history, name):
    steps, values = history.column("step"), history.column(name)
    return [(s, pytest.approx(v, rel=1e-6)) for s, v in zip(steps, values, strict=True) if v]


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        history = tracked(sinks.tensorboard(writer), [1, 2, 3])
    reader = EventAccumulator(str(tmp_path)).Reload()
    for name in ("dimension", "length", "loss"):
        found = [(e.step, e.value) for e in reader.Scalars(f"lightlike/{name}")]
        assert found == expected(history, name)


class Settings:
    mode = "online"


class Run:
    """A run of Weights & Biases as far as it is used, whose own step is given."""

    def __init__(self, step=0):
        self.step, self.settings, self.logged, self.axes = step, Settings(), [], {}

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, numbers, step):
        self.logged.append((step, numbers))


def test_weights_and_biases_are_told_steps_they_can_take():
    """Its own where it is beyond ours; each curve over the step of training."""
    run = Run(step=2)
    history = tracked(sinks.wandb(run, prefix="a/"), [1, 2, 5])
    assert [step for step, _ in run.logged] == [None, 2, 5]
    assert [row["a/step"] for _, row in run.logged] == [1, 2, 5]
    assert run.logged[1][1]["a/length"] == history.snapshots[1].length
    assert set(run.axes) == {name for _, row in run.logged for name in row} - {"a/step"}
    assert set(run.axes.values()) == {"a/step"}
    shared = Run(step=0)
    shared.settings.mode = "shared"
    tracked(sinks.wandb(shared), [3])
    assert shared.logged[0][0] is None


def records(path):
    """The records of a file of Weights & Biases: LevelDB's log format, protobuf inside."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, block, held = path.read_bytes(), 32768, b""
    place = 7  # its own header
    while place + 7 <= len(raw):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, size, kind = struct.unpack("<IHB", raw[place : place + 7])
        held += raw[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(held)
            yield record
            held = b""


def rows_of(folder):
    """The rows of the history, and the axis of each curve."""
    rows, axes = [], {}
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    for record in records(path):
        if record.HasField("history"):
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
        if record.HasField("metric"):
            axes[record.metric.name] = record.metric.step_metric
    return rows, axes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("others", ["none", "the same steps", "ahead", "more often"])
def test_weights_and_biases_get_the_numbers(tmp_path, monkeypatch, others):
    """Offline, with the library itself, whatever else is logged: nothing is lost on either side."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    mine = []
    try:
        run = wandb.init(
            mode="offline",
            dir=str(tmp_path),
            project="test",
            settings=wandb.Settings(console="off"),
        )

        def between(step):
            if others == "the same steps":
                run.log({"mine": step}, step=step)
                mine.append(step)
            if others == "ahead" and not mine:
                run.log({"mine": 100}, step=100)
                mine.append(100)
            if others == "more often":
                for part in range(4):
                    run.log({"mine": 10 * step + part})
                    mine.append(10 * step + part)

        history = tracked(sinks.wandb(run), [0, 2, 4, 7], between)
        run.finish()
    finally:
        wandb.teardown()
    rows, axes = rows_of(tmp_path)
    for name in ("dimension", "length", "loss", "complexity"):
        found = [
            (r["lightlike/step"], r[f"lightlike/{name}"]) for r in rows if f"lightlike/{name}" in r
        ]
        assert found == expected(history, name)
        assert axes[f"lightlike/{name}"] == "lightlike/step"
    assert [r["mine"] for r in rows if "mine" in r] == mine
