"""Trained networks lose a third of their weights or of their norm, and predict what they did."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import distributions as td
from torch import nn

import lightlike as ll
from lightlike.demos import load_digits, train_mlp

EXAMPLE = Path(__file__).parents[2] / "examples" / "walk.py"
BUDGET = 1e-3


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("walk_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return load_digits()


def check(walk, model, data, share):
    """The demand: a share of the squared norm or of the weights is gone, measured from scratch."""
    first, end = copy.deepcopy(model).double(), copy.deepcopy(model).double()
    end.load_state_dict(walk.state_dict())
    x = data[0].double()
    with torch.no_grad():
        laws = [td.Categorical(logits=m(x)) for m in (first, end)]
    naive = float(td.kl_divergence(*laws).mean())
    assert naive <= BUDGET
    assert walk.divergence == pytest.approx(naive, rel=1e-6)
    before, after = (
        torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (first, end)
    )
    gone = 1 - float(after.square().sum() / before.square().sum())
    zeros = float((after == 0).double().mean())
    assert (zeros if walk.objective == "sparse" else gone) >= share
    # A random line of that length does not fit in the budget.
    assert walk.controls[0].divergence > BUDGET
    assert walk.held_out.observations == 360


def test_a_small_network_loses_weights(digits):
    data = tuple(part[:100] for part in digits.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()
        optimiser.step()
    F = ll.fisher(model, data, "categorical")
    options = {"epsilon": "auto", "held_out": digits.held_out}
    check(ll.walk(F, "sparse", max_steps=3, **options), model, data, 0.5)
    check(ll.walk(F, "norm", max_steps=6, **options), model, data, 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["norm", "sparse"])
def test_the_network_of_the_demonstration(objective, digits, example):
    model = train_mlp(digits)
    F = ll.fisher(model, digits.train, "categorical")
    walk = example.show("demo", F, objective, digits.held_out, epsilon="auto", max_steps=8)
    check(walk, model, digits.train, 0.4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "options", "share"),
    [("norm", {"max_steps": 4}, 0.5), ("sparse", {"max_steps": 2, "epsilon": "auto"}, 0.75)],
)
def test_a_wide_network(objective, options, share, digits, example):
    model, data = example.train_wide(digits)
    F = ll.fisher(model, data, "categorical")
    walk = example.show("wide", F, objective, digits.held_out, **options)
    check(walk, model, data, share)
    assert walk.steps[1].radical >= 85_002 - 4_500
