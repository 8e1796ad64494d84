"""Models and data that the benchmarks measure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

OBSERVATIONS = 500
WIDTHS = (64, 256, 256, 10)
# Enough steps for unequal probabilities. After about a hundred, the softmax saturates and
# nngeometry's root of its covariance turns to NaN in float32, which would end the comparison.
TRAINING_STEPS = 20


@dataclass(frozen=True)
class Case:
    """A model and its inputs.

    Attributes:
        model: In float32, as users keep it.
        x: Inputs (N, features) in float32.
        widths: Features of the input and of every layer's output.
    """

    model: nn.Module
    x: Tensor
    widths: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """D."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def rows(self) -> int:
        """K = N (m - 1): the rank of a softmax's covariance is one less than its classes."""
        return len(self.x) * (self.widths[-1] - 1)


def digits_mlp(observations: int = OBSERVATIONS) -> Case:
    """A ReLU network 64-256-256-10 on scikit-learn's digits, briefly trained."""
    digits = load_digits()
    x = torch.tensor(digits.data[:observations] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[:observations])
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for ins, outs in pairwise(WIDTHS):
            layers += [nn.Linear(ins, outs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(TRAINING_STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return Case(model.eval(), x, WIDTHS)
