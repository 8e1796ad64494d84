"""A measurement that was ended at any moment goes on to the bits of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lightlike as ll
from lightlike import checkpoint, store
from lightlike.assess import accounts
from lightlike.geometry.prefixes import Prefixes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
HERE = Path(__file__).parent
CASES = {
    "plain": {},
    "evidence": {"likelihood": "gaussian", "options": {"variance": "evidence", "method": "gram"}},
    "unequal variances": {"options": {"unequal": True}},
    "three passes": {"net": "convolution", "passes": 1, "options": {"method": "gram"}},
    "float32": {"options": {"dtype": "float32", "variance": 0.01}},
    "svd": {"options": {"method": "svd"}},
    "metric": {"options": {"method": "metric"}},
    "accounts": {"options": {"explain": True, "saturation": True}},
    "accounts by svd": {"options": {"explain": True, "saturation": True, "method": "svd"}},
    "lanczos": {"options": {"Lanczos": {"count": 5}, "seed": 3}},
    "lanczos, unequal variances": {"options": {"Lanczos": {"count": 4}, "unequal": True}},
    "slq": {"options": {"Quadrature": {"probes": 5, "deflate": 3, "block": 2}, "seed": 3}},
    "slq, unequal variances": {
        "options": {"Quadrature": {"probes": 4, "block": 1}, "unequal": True}
    },
}
# Writes of routes that save less often than the others.
FEW = {
    "svd": (2, 3, 5),
    "metric": (2, 3, 5),
    "accounts": (83, 84, 88, 91, 97),
    "accounts by svd": (8, 40, 90, 96),
    "lanczos": (1, 2, 6, 15, 24),
    "lanczos, unequal variances": (3, 20, 34, 41),
    "slq": (2, 3, 4, 5),
    "slq, unequal variances": (1, 3, 6, 9, 11),
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


QUICK = {
    "plain": (79,),
    "unequal variances": (124,),
    "three passes": (61,),
    "float32": (43,),
    "accounts": (90,),
    "lanczos, unequal variances": (39,),
    "slq": (4,),
}


def planned(cases):
    """Each case whole; ended at some writes, in each manner in turn, and taken up again."""
    plan = [run(case, **CASES[case], every=1e9) for case in cases]
    moments = ["before", "after", "interrupt", "terminate"]
    for case, places in cases.items():
        for place in places:
            name, moment = f"{case} {place}", moments[place % 4]
            plan.append(run(name, **CASES[case], write=place, moment=moment))
            plan.append(run(name, **CASES[case]))
    return plan


def check(folder, cases, plan, ends):
    for case, places in cases.items():
        for place in places:
            name = f"{case} {place}"
            first, second = (
                e["code"] for step, e in zip(plan, ends, strict=False) if step["name"] == name
            )
            said = (folder / f"{name}.err").read_text()
            assert first in (-9, 130, 143), said
            assert second == 0, said
            assert "Continuing from" in said
            assert ("Stopped. The same measurement goes on" in said) == (first > 0)
            same(folder / f"{case}.ll", folder / f"{name}.ll")
            assert not (folder / f"{name}.ll.partial").exists()


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Quick cases; one that is ended again and again; and one whose parts change in between."""
    folder = tmp_path_factory.mktemp("ends")
    plan = planned(QUICK)
    again = [run("again", write=31, moment="before") for _ in range(4)]
    changes = []
    for what in ("data", "weights", "code"):
        name = f"other {what}"
        changes.append(run(name, write=9, moment="after"))
        changes.append(run(name, changed=what))
        changes.append(run(f"fresh {what}", changed=what, every=1e9))
    ends = end(folder, [*plan, *again, run("again"), *changes])
    return folder, plan, ends


def test_it_goes_on_to_the_same_bits(ended):
    folder, plan, ends = ended
    check(folder, QUICK, plan, ends)


def test_ended_again_and_again_it_gets_there(ended):
    folder, plan, ends = ended
    codes = [e["code"] for e in ends[len(plan) : len(plan) + 5]]
    assert codes.count(-9) >= 2
    assert codes[-1] == 0
    same(folder / "plain.ll", folder / "again.ll")


@pytest.mark.parametrize("what", ["data", "weights", "code"])
def test_what_was_saved_of_another_run_is_not_used(ended, what):
    folder, *_ = ended
    said = (folder / f"other {what}.err").read_text()
    if what == "code":
        assert "the model's outputs are not what they were" in said
    else:
        assert f"is not used; it differs in: {'model' if what == 'weights' else what}" in said
        assert "Continuing" not in said
    same(folder / f"fresh {what}.ll", folder / f"other {what}.ll")
    assert numbers(folder / "plain.ll")[1] != numbers(folder / f"other {what}.ll")[1]
    assert not (folder / f"other {what}.ll.partial").exists()


def test_what_was_explained_and_saturated_is_not_computed_again(tmp_path, monkeypatch):
    """Ended at its very end; and of the subsets, those that an earlier run found."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    data, found = (torch.randn(20, 4), torch.arange(20) % 2), []
    one = Prefixes._from_gram

    def counted(self, count):
        found.append(count)
        if stop and len(found) == stop:
            raise KeyboardInterrupt
        return one(self, count)

    def measured(out, **options):
        found.clear()
        return ll.measure(
            model.eval(), data, "categorical", method="gram", explain=True, saturation=True,
            progress=False, out=tmp_path / out, **options,
        )  # fmt: skip

    stop = 0
    monkeypatch.setattr(Prefixes, "_from_gram", counted)
    whole = measured("whole.ll")
    subsets = list(found)
    assert len(subsets) > 4
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        measured("out.ll")
    stop = 0
    monkeypatch.setattr(accounts, "name_directions", lambda *_, **__: pytest.fail("computed"))
    again = measured("out.ll")
    assert found == subsets[2:]
    assert again.saturation == whole.saturation
    assert again.explanation == whole.explanation
    assert again.dimension == whole.dimension
    same(tmp_path / "whole.ll", tmp_path / "out.ll")


@pytest.mark.slow
def test_every_route_ended_in_many_places(tmp_path):
    cases = {case: FEW.get(case, (2, 7, 24, 49, 74)) for case in CASES}
    plan = planned(cases)
    check(tmp_path, cases, plan, end(tmp_path, plan))


@pytest.mark.slow
def test_killed_at_random_times(tmp_path):
    g = torch.Generator().manual_seed(0)
    moments = (1.5 * torch.rand(20, generator=g)).tolist()
    plan = [run("killed", seconds=s) for s in moments]
    plan += [run("killed"), run("whole", every=1e9)]
    ends = end(tmp_path, plan)
    assert any(e["code"] == -9 for e in ends[:20])
    same(tmp_path / "whole.ll", tmp_path / "killed.ll")
