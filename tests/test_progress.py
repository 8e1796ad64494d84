"""Progress tells how far it is and how long it takes; on stderr only, and never too often."""

import re
import sys
import time

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike import progress as module
from lightlike.meter import Meter
from lightlike.progress import Bar, Lines, Progress


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_what_is_left_is_told_by_the_rate_so_far(clock):
    meter = Meter(clock)
    assert meter.remaining() is None
    assert meter.share() is None
    meter.expect({"a": 100.0, "b": 300.0})
    meter.enter("a")
    clock.now += 5
    assert meter.remaining() is None  # nothing is done yet
    meter.advance("a", 0.5)
    # 50 operations in 5 s; 350 are left.
    assert meter.remaining() == pytest.approx(35)
    assert meter.share() == pytest.approx(50 / 400)
    clock.now += 5
    meter.end("a")
    assert meter.remaining() == pytest.approx(30)
    clock.now += 1000  # between stages nothing is worked
    assert meter.remaining() == pytest.approx(30)
    meter.enter("b")
    clock.now += 10  # a stage that says nothing: its time counts against what it should take
    assert meter.remaining() == pytest.approx(20)
    clock.now += 50
    assert meter.remaining() == 0
    meter.advance("b", 0.5)
    assert meter.remaining() == pytest.approx(150 / (250 / 70))
    meter.end("b")
    assert meter.remaining() == 0
    assert meter.share() == 1


def test_what_an_earlier_run_did_is_no_rate(clock):
    meter = Meter(clock)
    meter.expect({"a": 100.0, "b": 100.0})
    meter.credit("a", 0.9)
    assert meter.share() == pytest.approx(0.45)
    meter.enter("a")
    clock.now += 10
    assert meter.remaining() is None
    meter.advance("a", 0.05)  # 5 operations in 10 s, 105 left
    assert meter.remaining() == pytest.approx(210)


def lines_of(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_line_every_half_minute(clock, capsys):
    progress = Lines(clock, ticking=False)
    progress.expect({"work": 1000.0, "more": 1000.0})
    for _ in progress.track(range(100), "work", 100):
        clock.now += 7
    found = lines_of(capsys)
    assert len(found) in (19, 20)
    assert found[0] == "work: 5 of 100; 2% of all, about 23 min left"
    assert found[-1].startswith("work: 100") or found[-1].startswith("work: 95 of 100; 48% of all")
    with progress.stage("more"):
        clock.now += 29
    assert lines_of(capsys) == []
    assert progress.meter.remaining() == 0


def test_after_a_resume_it_starts_at_what_is_done(clock, capsys):
    progress = Lines(clock, ticking=False)
    progress.expect({"work": 1000.0})
    for _ in progress.track(range(60, 100), "work", 100, done=60):
        clock.now += 31
    found = lines_of(capsys)
    assert found[0].startswith("work: 61 of 100; 61% of all, about 20 min left")
    assert progress.meter.share() == pytest.approx(1)


def test_parts_of_a_stage_add_up(clock):
    progress = Lines(clock, ticking=False)
    progress.expect({"work": 1.0})
    for index in range(3):
        list(progress.track(range(4), "work", 4, share=1 / 3))
        assert progress.meter.share() == pytest.approx((index + 1) / 3)


def test_a_silent_step_is_told_of_too(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.05)
    progress = Lines()
    progress.expect({"work": 1.0, "rest": 1.0})
    with progress.stage("work"):
        time.sleep(0.4)
    found = lines_of(capsys)
    assert found
    assert set(found) == {"work"}


def test_loops_inside_are_not_shown(clock, capsys):
    progress = Lines(clock, ticking=False)
    with progress.stage("outer"):
        for _ in progress.track(range(10), "inner", 10):
            clock.now += 40
    for _ in progress.track(range(3), "outer loop", 3):
        for _ in progress.track(range(3), "inner", 3):
            clock.now += 40
    assert all(line.startswith("outer loop") for line in lines_of(capsys))


def test_an_end_inside_a_loop_leaves_it_usable(clock):
    progress = Lines(clock)
    steps = progress.track(range(3), "a", 3)
    assert next(steps) == 0
    assert progress._depth == 1
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), progress.stage("b"):
        raise KeyboardInterrupt
    assert progress._depth == 0


def test_a_bar_on_stderr(capsys, clock):
    progress = Bar(clock)
    progress.expect({"a": 1.0})
    for _ in progress.track(range(3), "a", 3):
        progress.note("something to say [not markup]")
        clock.now += 3
    with progress.stage("b"):
        pass
    progress.note("at the end")
    err = "\n".join(lines_of(capsys))
    assert "something to say [not markup]" in err
    assert "at the end" in err


def test_one_of_ones_own_needs_no_more_than_track(tmp_path):
    class Mine(Progress):
        stages = ()

        def track(self, items, stage, total=None, *, done=0, share=1.0):
            assert 0 <= done <= (total or done)
            assert 0 < share <= 1
            self.stages = *self.stages, stage
            yield from items

    mine = Mine()
    measure(progress=mine, out=tmp_path / "m.ll")
    assert "Gram matrix" in mine.stages


def measure(**options):
    torch.manual_seed(0)
    x = torch.randn(9, 4)
    return ll.measure(
        nn.Linear(4, 3), (x, x.argmax(1) % 3), "categorical", method="gram", **options
    )


@pytest.mark.parametrize("progress", ["auto", True, False])
def test_stdout_stays_empty(capsys, progress, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    measure(progress=progress, out=tmp_path / "m.ll")
    out, err = capsys.readouterr()
    assert out == ""
    assert bool(err) == (progress is not False)
    if err and not sys.stderr.isatty():
        shares = [int(s) for s in re.findall(r"(\d+)% of all", err)]
        assert shares == sorted(shares)
