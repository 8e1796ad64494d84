"""Tapes with merged calls and reused memory are the maps that were recorded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.metric.products.recording import Recorder
from oracles import networks as nets

aten = torch.ops.aten
SIZE = 3
FIXED = [nets.normal(SIZE, SIZE, seed=seed) for seed in range(4)]
ZERO = torch.zeros(SIZE, SIZE, dtype=torch.float64)
# Linear maps of one or two matrices to one.
STEPS = {
    "mm": lambda a, _: FIXED[0] @ a,
    "mm from the right": lambda a, _: a @ FIXED[1],
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: torch.sub(a, b, alpha=0.5),
    "nothing added": lambda a, _: ZERO + a,
    "constant factor": lambda a, _: a * FIXED[2],
    "row factor": lambda a, _: FIXED[2][0] * a,
    "one row everywhere": lambda a, b: a[0] + b,
    "one row, nothing added": lambda a, b: (a[0] + ZERO) + b,
    "mask": lambda a, _: aten.threshold_backward(a, FIXED[3], 0),
    "slope": lambda a, _: aten.tanh_backward(a, FIXED[3]),
    "transposed": lambda a, _: a.T,
    "view": lambda a, _: a.reshape(-1).view(SIZE, SIZE),
    "in place": lambda a, b: (a * 1.0).add_(b),
    "part in place": lambda a, b: changed(a * 1.0, b),
    "stacked": lambda a, b: torch.bmm(torch.stack([a, b]), torch.stack(FIXED[:2])).sum(0),
}


def changed(a, b):
    a[1:].mul_(b.new_tensor(2.0))
    a[0] += b[1]
    return a


def run(steps, x):
    found = [x, 2 * x]
    for name, first, second in steps:
        found.append(STEPS[name](found[first % len(found)], found[second % len(found)]))
    return found[-1], found[len(found) // 2]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9)),
                min_size=1, max_size=9))  # fmt: skip
def test_any_tape_is_the_map_that_was_recorded(steps):
    x = nets.normal(SIZE, SIZE, seed=9)
    recorder = Recorder([x])
    with recorder:
        tape = recorder.tape(run(steps, x))
    y = nets.normal(SIZE, SIZE, seed=10)
    before = [t.clone() for t in (y, *tape.constants())]
    for _ in range(2):
        for reuse in (False, True):
            found = tape([y], reuse=reuse)
            for result, expected in zip(found, run(steps, y), strict=True):
                torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    assert all(map(torch.equal, before, (y, *tape.constants())))


def functions(record, x):
    recorder = Recorder([x])
    with recorder:
        tape = recorder.tape([record(x)])
    return tape, [call.function for call in tape.calls]


def test_a_layer_is_two_calls_in_one_memory():
    """x dWᵀ + dx Wᵀ + db, where PyTorch makes five calls and as many results."""
    x, W = nets.normal(5, 3, seed=1), nets.normal(3, 4, seed=2)

    def record(v):
        dx, dW, db = v[:15].view(5, 3), v[15:27].view(3, 4), v[27:]
        return db + dx @ W + x @ dW

    tape, calls = functions(record, nets.normal(31, seed=3))
    assert calls.count(aten.addmm.default) == 2
    assert aten.add.Tensor not in calls
    assert aten.mm.default not in calls
    # The second sum goes where the first one is; the first one may not go where v is.
    reused = [call.reuse is not None for call in tape.calls if call.function is aten.addmm.default]
    assert reused == [False, True]
    v = nets.normal(31, seed=4)
    (found,) = tape([v], reuse=True)
    torch.testing.assert_close(found, record(v), rtol=1e-13, atol=1e-13)


def test_what_is_read_again_keeps_its_memory():
    def record(v):
        y = v * 2.0
        z = y.view(-1)
        return (y + 1.0 * v) * 3.0 + z.view(3, 3)

    tape, _ = functions(record, nets.normal(3, 3, seed=1))
    v = nets.normal(3, 3, seed=2)
    (found,) = tape([v], reuse=True)
    assert torch.equal(found, record(v))
    assert any(call.reuse for call in tape.calls)


def test_memory_that_changes_is_not_read_later_than_it_was():
    def record(v):
        y = v * 2.0
        product = y @ FIXED[0]
        y.mul_(v.new_tensor(0.0))
        return y + product

    tape, calls = functions(record, nets.normal(3, 3, seed=1))
    v = nets.normal(3, 3, seed=2)
    assert aten.addmm.default not in calls
    for reuse in (False, True):
        (found,) = tape([v], reuse=reuse)
        assert torch.equal(found, record(v))
