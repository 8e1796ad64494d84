"""Why a walk ended, in words that say what to do next."""

import pytest
from torch import nn

import lightlike as ll
from oracles.networks import fill, mlp, normal


def wide():
    """Four observations of a network with many free directions."""
    return ll.fisher(fill(mlp([3, 8, 2], "tanh").double(), 0), (normal(4, 3),), "gaussian")


def full():
    """Every direction changes a prediction."""
    return ll.fisher(fill(nn.Linear(3, 2).double(), 0), (normal(20, 3),), "gaussian")


REASONS = {
    "steps": (lambda: ll.walk(wide(), "norm", max_steps=1), "all 1 steps were taken: a larger"),
    "gain": (
        lambda: ll.walk(wide(), "norm", tolerance=0.9),
        "the objective no longer falls: the last step lowered it by less than 0.9 of",
    ),
    "radical": (lambda: ll.walk(full(), "norm"), "no step in the radical lowers the objective"),
    "budget": (
        lambda: ll.walk(full(), "norm", epsilon=1e6, budget=1e-12),
        "no step that lowers the objective keeps within the budget of 1e-12 nats",
    ),
    "goal": (lambda: ll.walk((F := full()), F.problem.theta), "the objective is as low as it can"),
}  # fmt: skip


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_told(reason):
    run, said = REASONS[reason]
    walk = run()
    assert said in walk.stopped
    lines = str(walk).splitlines()
    assert lines[0] == f"walk: {walk.objective}, {len(walk.steps) - 1} steps"
    told = " ".join(" ".join(lines).split())
    assert f"stopped {walk.stopped}." in told
    assert max(map(len, lines)) <= 100
