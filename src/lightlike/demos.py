"""A small real problem, trained and measured: handwritten digits."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightlike.assess.measure import measure
from lightlike.assess.measurement import Measurement
from lightlike.errors import RunFileError
from lightlike.progress import Progress
from lightlike.store import check_replaceable

WIDTH = 16
STEPS = 100
HELD_OUT = 360


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits of scikit-learn, 8 × 8 pixels each, in two parts."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]


def load_digits(seed: int = 0, dtype: torch.dtype = torch.float32) -> Digits:
    """The digits in a random order fixed by the seed, pixels scaled to 0..1.

    Raises:
        RunFileError: if scikit-learn, which ships the images, is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise RunFileError(
            "scikit-learn is not installed.",
            "The demonstration measures a network on the digits that it ships.",
            "Install it with: pip install 'lightlike[demo]'.",
        ) from error
    images, labels = load(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.as_tensor(images, dtype=dtype)[order] / 16
    y = torch.as_tensor(labels)[order]
    return Digits((x[HELD_OUT:], y[HELD_OUT:]), (x[:HELD_OUT], y[:HELD_OUT]))


def train_mlp(digits: Digits, seed: int = 0) -> nn.Sequential:
    """A 64-16-16-10 leaky-ReLU network, trained with Adam and a little weight decay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(64, WIDTH), nn.LeakyReLU(0.1),
            nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.1),
            nn.Linear(WIDTH, 10),
        )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    x, y = digits.train
    for _ in range(STEPS):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Share of labels that the model gives the highest probability."""
    x, y = data
    with torch.no_grad():
        return float((model(x).argmax(-1) == y).double().mean())


def mean_nll(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Nats per label."""
    x, y = data
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x).double(), y))


def demo(
    *,
    seed: int = 0,
    progress: str | bool | Progress = "auto",
    out: str | os.PathLike[str] | None = None,
) -> Measurement:
    """Train a small network on handwritten digits and measure it; under a minute on two cores.

    Args:
        seed: Of the split, the initial weights and nothing else.
        progress: As in `measure`.
        out: Where to save the result.

    Raises:
        RunFileError: if scikit-learn is not installed.
    """
    digits = load_digits(seed)
    model = train_mlp(digits, seed)
    if out is not None:
        check_replaceable(out)
    result = measure(model, digits.train, "categorical", seed=seed, progress=progress)
    result.record["held_out"] = {
        "observations": len(digits.held_out[1]),
        "accuracy": accuracy(model, digits.held_out),
        "nll": mean_nll(model, digits.held_out),
        "training_accuracy": accuracy(model, digits.train),
    }
    if out is not None:
        result.save(out)
    return result
