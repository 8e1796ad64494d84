"""Factories for wine.toml: a small network that tells three cultivars of wine apart."""

import torch
from sklearn.datasets import load_wine
from torch import Tensor, nn


def data() -> tuple[Tensor, Tensor]:
    """178 wines, 13 standardised chemical measurements each, and their cultivar."""
    x, y = load_wine(return_X_y=True)
    x = torch.as_tensor(x, dtype=torch.float32)
    return (x - x.mean(0)) / x.std(0), torch.as_tensor(y)


def trained(width: int = 8, steps: int = 200) -> nn.Module:
    """A network with one hidden layer, trained from a fixed seed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(13, width), nn.Tanh(), nn.Linear(width, 3))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-3)
    x, y = data()
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()
