"""Named null directions against counts in closed form."""

import pytest
import torch
from torch import nn

import lightlike as ll
from oracles.networks import mlp, normal


def generic(model, seed=0):
    """Weights of a size at which no direction is close to null by chance."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            fan = p[0].numel() if p.ndim > 1 else 0
            size = (2 / fan) ** 0.5 if fan else 0.1
            p.copy_(size * torch.randn(p.shape, generator=random, dtype=torch.float64))
    return model.eval()


def explained(model, x, head="gaussian"):
    """An explanation that adds up, by kind."""
    F = ll.fisher(model, (x,), head)
    e = ll.explain(F)
    assert e.explained + e.unexplained == F.shape[0] - int(ll.dimension(F))
    assert e.explained == sum(s.dimension for s in e.sources)
    kinds = {}
    for s in e.sources:
        kinds[s.kind] = kinds.get(s.kind, 0) + s.dimension
    return e, kinds


@pytest.mark.parametrize("head", ["gaussian", "categorical"])
@pytest.mark.parametrize("widths", [[3, 8, 3], [4, 6, 5, 3], [3, 4, 4, 4, 3]], ids=str)
def test_leaky_rectifiers(widths, head):
    """One rescaling a hidden unit; of softmax outputs the last width and one more shifts."""
    e, kinds = explained(generic(mlp(widths, "leaky")), 2 * normal(500, widths[0], seed=100), head)
    expected = {"rescaling": sum(widths[1:-1])}
    if head == "categorical":
        expected["softmax shift"] = widths[-2] + 1
    assert {k: n for k, n in kinds.items() if n} == expected
    assert e.unexplained == 0


def test_convolutions():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3),
        nn.LeakyReLU(), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    e, kinds = explained(generic(model), normal(100, 1, 8, 8))
    assert kinds == {"rescaling": 5}
    assert e.unexplained == 0
