"""Watching a training run: what is seen is right, and the run is as if nobody watched."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightlike as ll
from lightlike.errors import ChoiceError, StoreError, TrackingError


def data(n=24):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=generator)
    return x, x[:, :3].argmax(-1)


def train(tracker=None, steps=6, model=None, start=0):
    """A run with dropout, batch normalisation and shuffled batches from the global generator."""
    if model is None:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
        )
    model.train()
    torch.manual_seed(10 + start)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    loader = DataLoader(TensorDataset(*data()), batch_size=8, shuffle=True)
    step = start
    while step < steps:
        for x, y in loader:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimiser.step()
            step += 1
            if tracker is not None:
                tracker(model, step, loss=loss.item())
            if step == steps:
                break
    return model


@pytest.mark.parametrize("loader", [False, True])
def test_training_is_the_same_to_the_bit(loader):
    """Weights, running statistics, modes, gradients and the random state."""
    seen = data()
    if loader:
        seen = DataLoader(TensorDataset(*seen), batch_size=5)
    plain = train()
    after = torch.get_rng_state()
    watched = train(ll.Tracker(seen, "categorical", every=2, rotation=3))
    assert torch.equal(torch.get_rng_state(), after)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert [m.training for m in plain.modules()] == [m.training for m in watched.modules()]


def test_snapshots_are_measurements():
    """Each is what `measure` says of the network at that step."""
    expected = []

    class Watch(ll.Tracker):
        def __call__(self, model, step, **options):
            snapshot = super().__call__(model, step, **options)
            if snapshot is not None:
                model.eval()
                expected.append(ll.measure(model, data(), "categorical", progress=False))
                model.train()
            return snapshot

    tracker = Watch(data(), "categorical", every=3)
    train(tracker)
    assert tracker.history.column("step") == [1, 4]
    for snapshot, m in zip(tracker.history.snapshots, expected, strict=True):
        assert snapshot.dimension == int(m.dimension)
        assert snapshot.length == pytest.approx(m.length.total, rel=1e-9)
        assert snapshot.complexity == pytest.approx(m.length.complexity, rel=1e-9)
        assert snapshot.trace == pytest.approx(m.spectrum.trace, rel=1e-9)
        assert snapshot.length == pytest.approx(
            snapshot.fit + snapshot.displacement + snapshot.complexity
        )


def test_rotation_is_a_principal_angle():
    """Of the leading directions; against the singular values of the product of the bases."""
    tracker = ll.Tracker(data(), "categorical", rotation=3)
    bases = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    for step in range(3):
        tracker(model, step)
        F = ll.fisher(model, data(), "categorical")
        bases.append(torch.linalg.svd(F.root.dense(), full_matrices=False).Vh[:3].T)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.sin(torch.arange(p.numel()).view_as(p) + step))
    found = tracker.history.column("rotation")
    assert found[0] is None
    for angle, a, b in zip(found[1:], bases, bases[1:], strict=False):
        cosine = float(torch.linalg.svdvals(a.T @ b).min())
        assert angle == pytest.approx(math.acos(cosine), abs=1e-6)


def test_a_budget_puts_measurements_off():
    """A run of a few milliseconds has no hundredth to spare; a whole share has all."""
    tight = ll.Tracker(data(), "categorical", budget=1e-6)
    train(tight)
    assert tight.history.column("step") == [1]
    loose = ll.Tracker(data(), "categorical", budget=1.0)
    train(loose)
    assert loose.history.column("step") == [1, 2, 3, 4, 5, 6]


def test_a_run_continues_where_it_was(tmp_path):
    """From the tracker's state; lines that were written twice count once."""
    out = tmp_path / "history.jsonl"
    whole = ll.Tracker(data(), "categorical", out=out, rotation=2)
    model = train(whole, steps=3)
    state = whole.state_dict()
    torch.save(state, tmp_path / "state")
    train(whole, steps=5, model=model, start=3)
    again = ll.Tracker(data(), "categorical", out=out, rotation=2)
    again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert again.history.snapshots == whole.history.snapshots[:3]
    with pytest.raises(TrackingError, match="not after step 3"):
        again(model, 2)
    # What was written after the checkpoint is written anew, and a torn line goes.
    out.write_text(out.read_text()[:-20])
    train(again, steps=4, model=model, start=3)
    assert ll.read_history(out) == again.history
    assert again.history.snapshots[3].rotation is not None


def test_lines_are_written_at_once_and_a_torn_one_is_left_out(tmp_path):
    """As after a crash in the middle of a line; other damage is told."""
    out = tmp_path / "history.jsonl"
    tracker = ll.Tracker(data(), "categorical", out=out)
    train(tracker, steps=3)
    text = out.read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 2, 3]
    out.write_text(text[:-20])
    assert ll.read_history(out) == ll.History(tracker.history.snapshots[:2])
    out.write_text(text.replace('"step": 2', '"stop": 2'))
    with pytest.raises(StoreError, match="Line 2"):
        ll.read_history(out)
    with pytest.raises(StoreError, match="cannot be read"):
        ll.read_history(tmp_path / "nothing")


def test_without_labels_there_is_no_length():
    """None, in the table a dash, in sinks nothing."""
    seen = []
    tracker = ll.Tracker(data()[:1], "categorical", sinks=[lambda step, n: seen.append((step, n))])
    train(tracker, steps=1)
    assert tracker.history.snapshots[0].length is None
    assert "—" in str(tracker.history)
    assert "length" not in seen[0][1]
    assert seen[0][1]["dimension"] == tracker.history.snapshots[0].dimension


def test_one_file_holds_one_run(tmp_path):
    """Another tracker, or the same run from its start, does not mix its lines in."""
    out = tmp_path / "history.jsonl"
    train(ll.Tracker(data(), "categorical", out=out), steps=2)
    text = out.read_text()
    with pytest.raises(TrackingError, match="2 snapshots of another run"):
        train(ll.Tracker(data(), "categorical", out=out), steps=1)
    assert out.read_text() == text
    with pytest.raises(StoreError, match="does not exist"):
        ll.Tracker(data(), "categorical", out=tmp_path / "nowhere" / "history.jsonl")


@pytest.mark.parametrize(
    ("loss", "kept"),
    [
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (np.float32(1.5), 1.5),
        (1.5, 1.5),
        (math.nan, None),
        (math.inf, None),
        (None, None),
    ],
)
def test_losses_and_steps_of_any_kind(tmp_path, loss, kept):
    """Kept as plain numbers, the same in memory and in the file."""
    out = tmp_path / "history.jsonl"
    tracker = ll.Tracker(data(), "categorical", out=out)
    model = nn.Linear(4, 3)
    tracker(model, np.int64(5), loss=loss)
    assert tracker.history.column("loss") == [kept]
    assert ll.read_history(out) == tracker.history
    with pytest.raises(ChoiceError, match="step"):
        tracker(model, 6.5)


@pytest.mark.parametrize(
    "options",
    [
        dict(every=2.5),
        dict(every="2"),
        dict(budget="10%"),
        dict(every=0),
        dict(rotation=-1),
        dict(budget=0.0),
        dict(budget=1.5),
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ChoiceError, match=next(iter(options))):
        ll.Tracker(data(), "categorical", **options)


def test_other_states_are_refused():
    with pytest.raises(TrackingError, match="not a tracker's state"):
        ll.Tracker(data(), "categorical").load_state_dict({"snapshots": []})


def test_figure_and_frame():
    """The curves hold the history's numbers."""
    tracker = ll.Tracker(data(), "categorical")
    train(tracker, steps=3)
    chart = tracker.history.plot()
    assert chart.columns["dimension"] == tracker.history.column("dimension")
    assert chart.columns["loss"] == tracker.history.column("loss")
    with pytest.raises(ChoiceError, match="empty"):
        ll.History(()).plot()
    pandas = pytest.importorskip("pandas")
    frame = tracker.history.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index) == [1, 2, 3]
    assert len(ll.History(()).to_frame()) == 0
    with pytest.raises(ChoiceError, match="categorial"):
        ll.Tracker(data(), "categorial")
