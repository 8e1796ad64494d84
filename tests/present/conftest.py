"""Results to make reports of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lightlike as ll


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 4, generator=generator)
    return x, x[:, :3].argmax(-1)


def net(width: int) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.LeakyReLU(), nn.Linear(width, 3))


@pytest.fixture(scope="session")
def measured() -> ll.Measurement:
    return ll.measure(net(5), data(), "categorical", progress=False, explain=True, saturation=True)


@pytest.fixture(scope="session")
def unlabelled() -> ll.Measurement:
    return ll.measure(net(5), data()[:1], "categorical", layers=False, progress=False)


@pytest.fixture(scope="session")
def compared() -> ll.Comparison:
    found = {
        f"width {w} <i>": ll.measure(net(w), data(), "categorical", progress=False)
        for w in (2, 4, 6)
    }
    return ll.compare(found)


@pytest.fixture(scope="session")
def followed() -> ll.History:
    tracker = ll.Tracker(data(), "categorical")
    model = net(4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(5):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(data()[0]), data()[1])
        loss.backward()
        optimiser.step()
        tracker(model, step, loss=loss.item())
    return tracker.history
