"""A Gram matrix that goes on from any step has the bits of one that was made in one go."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike import checkpoint as kept
from lightlike.checkpoint import Checkpoint
from lightlike.errors import ConsistencyError
from lightlike.metric import footprint, gram, ledger


class Ended(BaseException):
    """As a kill would."""


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 3, 2), nn.LeakyReLU(0.1),
        nn.Flatten(), nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 3),
    )  # fmt: skip


def root(dtype="float64", model=None):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(30, 9, generator=g)
    return ll.fisher(model or net(), (x,), "categorical", dtype=dtype).root


@pytest.fixture
def small(monkeypatch):
    """Many steps, and a state after each."""
    monkeypatch.setattr(gram, "TILE_ROWS", 20)
    monkeypatch.setattr(gram, "STRIP", 1 << 11)
    monkeypatch.setattr(gram, "NARROW", 4)
    monkeypatch.setattr(ledger, "PANEL", 8 * 60 * 13)
    monkeypatch.setattr(kept, "EVERY", 0.0)
    monkeypatch.setattr(kept, "SHARE", 1e12)


def end_after(monkeypatch, count):
    """End at the count-th state of the matrix; the phases of the states before."""
    real, seen = ledger.Ledger._save, []

    def save(self):
        real(self)
        seen.append((self._index, self._phase))
        if len(seen) == count:
            raise Ended

    monkeypatch.setattr(ledger.Ledger, "_save", save)
    return seen


def summed(path, **options):
    """The matrix, what is known of it, and its states' place."""
    given = root(**options)
    states = Checkpoint(path, {"key": 1})
    given.keeper = states.under("")
    try:
        return given.gram(), given.traces, given.rounding
    finally:
        states.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("passes", [1, 3])
def test_from_any_step_on(tmp_path, monkeypatch, dtype, passes):
    if passes > 1:
        monkeypatch.setattr(footprint, "PASS", 1)
    plain = root(dtype)
    whole, traces = plain.gram(), plain.traces
    assert len(plain.footprint().passes) == passes
    places, count = set(), -2
    while True:
        count += 5
        with monkeypatch.context() as patch:
            seen = end_after(patch, count)
            try:
                summed(tmp_path / str(count), dtype=dtype)
            except Ended:
                pass
            else:
                break
        places.add(seen[-1])
        again, found, rounding = summed(tmp_path / str(count), dtype=dtype)
        assert torch.equal(again, whole)
        assert found == traces
        assert rounding == plain.rounding
    assert {phase for _, phase in places} >= {"strips", "tiles"}
    assert {index for index, _ in places} >= set(range(passes))


@pytest.mark.usefixtures("small")
def test_ended_after_every_second_state(tmp_path, monkeypatch):
    whole = root().gram()
    for _ in range(100):
        with monkeypatch.context() as patch:
            end_after(patch, 2)
            try:
                found = summed(tmp_path / "m")[0]
            except Ended:
                continue
        break
    assert torch.equal(found, whole)


@pytest.mark.usefixtures("small")
def test_a_lost_or_damaged_panel_means_a_new_start(tmp_path, monkeypatch):
    whole = root().gram()
    for damage in (lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-1])):
        with monkeypatch.context() as patch:
            end_after(patch, 6)
            with pytest.raises(Ended):
                summed(tmp_path / "m")
        panels = sorted((tmp_path / "m.partial").rglob("gram.*.*.safetensors"))
        assert panels
        damage(panels[0])
        assert torch.equal(summed(tmp_path / "m")[0], whole)
        Checkpoint(tmp_path / "m", {"key": 1}).remove()


@pytest.mark.usefixtures("small")
def test_a_saved_matrix_of_other_derivatives_is_refused(tmp_path):
    summed(tmp_path / "m")
    other = net()
    other[-1].weight.data *= 1.01
    with pytest.raises(ConsistencyError, match="A Aᵀ disagrees"):
        summed(tmp_path / "m", model=other)


def test_short_work_writes_nothing(tmp_path):
    summed(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
