"""States beside a result: whole or not there, of one key, and gone when the result is."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from lightlike import checkpoint as module
from lightlike import store
from lightlike.checkpoint import Checkpoint
from lightlike.errors import StoreError

KEY = {"data": "abc", "number": 3, "list": [1, None]}


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e12)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def made(path, key=KEY):
    said = []
    return Checkpoint(path, key, said.append), said


def state(value):
    return {"x": torch.full((3,), float(value), dtype=torch.float64)}, {"value": value}


def same(found, value):
    return torch.equal(found[0]["x"], state(value)[0]["x"]) and found[1] == {"value": value}


@pytest.mark.usefixtures("often")
def test_round_trip(tmp_path):
    states, said = made(tmp_path / "r.ll")
    assert not states.resumed
    assert states.get("a") is None
    assert same(states.stage("a", lambda: state(1)), 1)
    states.put("b", *state(2))
    states.close()
    again, said = made(tmp_path / "r.ll")
    assert again.resumed
    assert "Continuing from" in said[0]
    assert same(again.stage("a", lambda: pytest.fail("it is there")), 1)
    assert same(again.get("b"), 2)
    assert again.under("-p").stage("a", lambda: state(3))[1] == {"value": 3}
    assert same(again.get("a-p"), 3)
    again.drop("b")
    assert again.get("b") is None
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_it_pays(tmp_path):
    states, _ = made(tmp_path / "r.ll")
    states._clock = clock = Clock()
    states._started = states._last = 0.0
    states.put("a", *state(1))
    states.offer("loop", lambda: pytest.fail("too early"))
    clock.now = module.EVERY - 0.1
    states.put("b", *state(2))
    assert list(tmp_path.iterdir()) == []
    clock.now = module.EVERY
    states.put("c", *state(3))
    for name, value in (("a", 1), ("b", 2), ("c", 3)):
        assert same(states.get(name), value)
    # Saving that took long is not done again soon.
    states.charge(30.0)
    clock.now += 200
    assert not states.due()
    clock.now += 30.0 / module.SHARE
    states.offer("loop", lambda: state(4))
    assert same(states.get("loop"), 4)
    states.close()
    assert made(tmp_path / "r.ll")[0].seconds == pytest.approx(clock.now)


def test_what_is_held_can_be_saved_at_an_end(tmp_path):
    states, _ = made(tmp_path / "r.ll")
    states.put("a", *state(1))
    states.flush()
    assert same(states.get("a"), 1)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("key", "says"), [({**KEY, "data": "abd"}, "data"), ({**KEY, "more": 1}, "more"), ({}, "data")]
)
def test_another_key_is_another_computation(tmp_path, key, says):
    states, _ = made(tmp_path / "r.ll")
    states.put("a", *state(1))
    states.close()
    other, said = made(tmp_path / "r.ll", key)
    assert not other.resumed
    assert other.get("a") is None
    assert "is not used; it differs in" in said[0]
    assert says in said[0]
    other.put("a", *state(2))
    other.close()
    # Each is where it was.
    back, _ = made(tmp_path / "r.ll")
    assert same(back.get("a"), 1)
    # A file that strays into the folder of another key is not read.
    (other.folder / "a.safetensors").rename(back.folder / "b.safetensors")
    assert back.get("b") is None
    back.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("often")
def test_damage_counts_as_nothing(tmp_path):
    states, _ = made(tmp_path / "r.ll")
    states.put("a", *state(1))
    path = states.folder / "a.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:40], whole.replace(b"1", b"2")):
        path.write_bytes(content)
        assert states.get("a") is None
        assert same(states.stage("a", lambda: state(1)), 1)
    store.write(path, {}, {"kind": "measurement"})
    assert states.get("a") is None
    states.close()
    (tmp_path / "r.ll.partial" / "stray").mkdir()
    (tmp_path / "r.ll.partial" / "stray" / "x.safetensors").write_bytes(b"no")
    assert made(tmp_path / "r.ll")[1] == []


@pytest.mark.usefixtures("often")
def test_a_full_disk_ends_the_saving_not_the_work(tmp_path, monkeypatch):
    states, said = made(tmp_path / "r.ll")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightlike.store.os.fsync", full)
    assert same(states.stage("a", lambda: state(1)), 1)
    assert same(states.stage("b", lambda: state(2)), 2)
    assert len(said) == 1
    assert "cannot be saved any more" in said[0]
    assert "No space left" in said[0]


def test_what_is_no_json_ends_the_saving_too(tmp_path):
    states, said = made(tmp_path / "r.ll")
    states.put("a", {}, {"value": float("nan")})
    states.flush()
    assert "cannot be saved any more" in said[0]


HOLD = """
import sys, time
from pathlib import Path
from lightlike import checkpoint
checkpoint.EVERY = 0.0
states = checkpoint.Checkpoint(sys.argv[1], {"data": "abc"})
states.put("a", {}, {})
Path(sys.argv[2]).touch()
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_one_process_at_a_time(tmp_path):
    ready, path = tmp_path / "ready", tmp_path / "r.ll"
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLD), path, ready])
    try:
        end = time.monotonic() + 120
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(StoreError, match="Another process is at work"):
            made(path, {"data": "abc"})
    finally:
        process.kill()
        process.wait()
    # A kill lets go of it.
    states, _ = made(path, {"data": "abc"})
    assert states.resumed
    states.remove()
    assert not os.path.exists(f"{path}.partial")
