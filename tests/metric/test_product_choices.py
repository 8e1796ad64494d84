"""When things are kept, how blocks are taken, and what is recorded."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ConsistencyError
from lightlike.metric.products.block import Blocks
from lightlike.metric.products.passage import Doubled, Fresh, disagreement, noise
from lightlike.metric.products.recorded import Recorded
from lightlike.metric.products.recording import Recorder, UnrecordableError
from lightlike.metric.products.schedule import FEW, MANY, Schedule
from lightlike.problem.isolation import isolated
from oracles import networks as nets

X = nets.normal(7, 3, seed=1)


def test_nothing_is_kept_for_few_products_and_all_for_many():
    for batches in (1, 5):
        assert all(Schedule(n).keeps(1, batches) is False for n in range(1, FEW + 1))
        assert Schedule(MANY + 1).keeps(1, batches) is True
        # A block counts as many.
        assert Schedule(1).keeps(MANY + 1, batches) is True
    assert Schedule(None).keeps(1, 3) is False
    assert Schedule(None, done=1).keeps(1, 3) is True
    assert Schedule(None).keeps(2, 3) is True
    # Few that are left of many.
    assert Schedule(MANY + 1, done=MANY).keeps(1, 3) is False


@pytest.mark.parametrize(("setup", "pays"), [(1.9, True), (2.1, False)])
def test_in_doubt_the_clock_decides(setup, pays):
    schedule = Schedule(4)
    assert schedule.keeps(1, 3) is None
    # 4 products of 1.5 s, or the set-up and 4 of 1 s.
    assert schedule.weigh(1, 1.5, setup, 1.0) is pays
    assert schedule.keeps(1, 3) is pays
    assert "4 products to come" in schedule.reason


def problem(model, data=(X,), likelihood="gaussian"):
    return ll.fisher(model, data, likelihood).problem


def passage(kind, model):
    found = problem(model)
    index, batch = next(iter(found.checked("test")))
    return kind(found, batch, index)


@pytest.mark.parametrize("kind", [Recorded, Doubled])
@pytest.mark.parametrize("together", [True, False, None])
def test_blocks_are_the_same_one_by_one_and_together(kind, together):
    model = nets.fill(nets.mlp([3, 5, 2], "gelu"), 1)
    W = ll.fisher(model, (X,), "gaussian").root.dense() * 7**0.5
    blocks = Blocks()
    blocks.together = together
    v = nets.normal(11, W.shape[1], seed=2)
    with isolated():
        made = passage(kind, model)
        found = blocks(made, v, lambda p, x: p.pull(p.push(x)),
                       lambda p, x: p.pull_block(p.push_block(x)))  # fmt: skip
    assert float((found - v @ W.T @ W).norm()) <= 1e-13 * float(found.norm())
    assert blocks.together is not None
    assert (blocks.seconds is None) == (together is not None)


def test_operations_without_a_batching_rule_go_one_by_one():
    def fail(*_):
        raise RuntimeError("Batching rule not implemented for aten::something")

    made = passage(Recorded, nets.fill(nets.mlp([3, 5, 2], "gelu"), 1))
    blocks = Blocks()
    v = nets.normal(4, made.problem.parameters, seed=2)
    found = blocks(made, v, lambda _, x: 2 * x, fail)
    assert torch.equal(found, 2 * v)
    assert blocks.together is False


@pytest.mark.parametrize("kind", [Fresh, Recorded, Doubled])
def test_the_witness_sees_a_path_that_is_missing(kind, monkeypatch):
    with isolated():
        made = passage(kind, nets.fill(nets.mlp([3, 5, 2], "gelu"), 1))
        assert disagreement(made) < 1e-12
        right = kind.push
        for wrong in (
            lambda self, v: right(self, v * (torch.arange(len(v)) > 0)),
            lambda self, v: 0 * right(self, v),
            lambda self, v: right(self, v) + 1e-3,
        ):
            monkeypatch.setattr(kind, "push", wrong)
            # What is missing altogether leaves nothing to be relative to.
            assert disagreement(made) > 1e-5


def test_a_product_that_contradicts_itself_is_not_returned(monkeypatch):
    F = ll.fisher(nets.fill(nets.mlp([3, 5, 2], "gelu"), 1), (X,), "gaussian")
    v = noise(F.problem.theta, 1)
    P = F.products(100)
    P @ v
    right = Recorded.push
    monkeypatch.setattr(Recorded, "push", lambda self, v: right(self, v) * 1.001 + 1e-3)
    with pytest.raises(ConsistencyError, match="disagrees"):
        P @ v


def linear(record, *shape):
    x = nets.normal(*shape, seed=1)
    recorder = Recorder([x])
    with recorder:
        out = record(x)
        return recorder.tape([out])


def test_a_tape_repeats_calls_on_other_tensors():
    def record(x):
        base = torch.zeros(3, 2, dtype=torch.float64)
        held = torch.ones(3, 2, dtype=torch.float64)
        base.add_(x * held)
        held.mul_(5.0)
        parts = torch.cat([base, x * held]).split(2)
        unused = x.sin()
        return parts[0] + parts[2] + 0 * held[:2] + unused.mean() * 0

    tape = linear(record, 3, 2)
    for seed in (2, 3):
        y = nets.normal(3, 2, seed=seed)
        for _ in range(2):
            (found,) = tape([y], reuse=True)
            assert torch.equal(found, record(y))


def test_calls_that_nothing_needs_are_dropped():
    tape = linear(lambda x: (x.sin().cos(), x * 2)[1], 3)
    assert len(tape.calls) == 1
    (found,) = tape([torch.ones(3)])
    assert torch.equal(found, torch.full((3,), 2.0))


@pytest.mark.parametrize("record", [
    lambda x: x * float(x.sum()),
    lambda x: x.mul_(2.0),
    lambda x: view_of_changed(x),
])  # fmt: skip
def test_what_cannot_be_repeated_is_not_recorded(record):
    with pytest.raises(UnrecordableError):
        linear(record, 3)


def view_of_changed(x):
    base = torch.zeros(2, 3, dtype=torch.float64)
    base[0].copy_(x)
    return base.sum(0)


def test_a_result_that_depends_on_nothing():
    recorder = Recorder([X])
    with recorder:
        assert recorder.tape([None])([X]) == [None]
        with pytest.raises(UnrecordableError, match="seen"):
            recorder.tape([torch.ones(3)])
    still = nets.Call(lambda s, x: s.a(x) if len(x) > 3 else x[:, :2] * 1.0, a=nn.Linear(3, 2))
    F = ll.fisher(nets.fill(still, 1), [(X[:5],), (X[5:],)], "gaussian")
    A = F.root.dense()
    v = noise(F.problem.theta, 1)
    for options in ({"expected": 1}, {"expected": 100}):
        found = F.products(**options) @ v
        assert float((found - A.T @ (A @ v)).norm()) <= 1e-13 * float(found.norm())
