"""A measurement that was ended at any moment goes on to the bits of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lightlike as ll
from lightlike import store
from lightlike.checkpoint import Checkpoint
from lightlike.errors import StoreError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
HERE = Path(__file__).parent
CASES = {
    "plain": {},
    "evidence": {"likelihood": "gaussian", "options": {"variance": "evidence"}},
    "unequal variances": {"options": {"unequal": True}},
    "three passes": {"net": "convolution", "passes": 1},
    "float32": {"options": {"dtype": "float32", "variance": 0.01}},
    "svd": {"options": {"method": "svd"}},
    "metric": {"options": {"method": "metric"}},
}


def end(folder, runs):
    """Run them in turn in children of one process; how each ended."""
    (folder / "plan.json").write_text(json.dumps(runs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", HERE / "ending.py", str(folder)]
    subprocess.run(command, check=True, env=environment, timeout=600)
    return json.loads((folder / "ends.json").read_text())


def numbers(path):
    """Everything in a result but times and memory."""
    tensors, header = store.read(path)
    for name in ("seconds", "peak_memory"):
        header["record"].pop(name)
    return tensors, header


def same(a, b):
    (tensors, header), (others, other) = numbers(a), numbers(b)
    assert header == other
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def run(name, out=None, **more):
    return {"name": name, "out": out or f"{name}.ll", **more}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Each case whole, ended once at several writes, and ended again and again."""
    folder = tmp_path_factory.mktemp("ends")
    plan, ended = [], {}
    for case, what in CASES.items():
        plan.append(run(case, **what, every=1e9))
        for place, moment in ((2, "before"), (5, "after"), (11, "interrupt"), (23, "before")):
            ended.setdefault(case, []).append(f"{case} {place}")
            plan.append(run(f"{case} {place}", **what, write=place, moment=moment))
            plan.append(run(f"{case} {place}", **what))
    again = [run("again", write=9, moment="before") for _ in range(12)]
    ends = end(folder, [*plan, *again, run("again")])
    for step, found in zip(plan, ends, strict=False):
        step["code"] = found["code"]
    return folder, plan, ended, [found["code"] for found in ends[len(plan) :]]


@pytest.mark.parametrize("case", CASES)
def test_ended_once_it_goes_on_to_the_same_bits(killed, case):
    folder, plan, ended, _ = killed
    for name in ended[case]:
        first, second = (step["code"] for step in plan if step["name"] == name)
        said = (folder / f"{name}.err").read_text()
        assert first in (-9, 130, 0), said
        assert second == 0, said
        assert ("Continuing from" in said) == (first != 0), said
        assert ("Stopped. The same measurement goes on" in said) == (first == 130)
        same(folder / f"{case}.ll", folder / f"{name}.ll")
        assert not (folder / f"{name}.ll.partial").exists()
    assert any(step["code"] != 0 for step in plan if step["name"] in ended[case])


def test_ended_again_and_again_it_gets_there(killed):
    folder, _, _, codes = killed
    assert codes.count(-9) >= 2
    assert codes[-1] == 0
    same(folder / "plain.ll", folder / "again.ll")
