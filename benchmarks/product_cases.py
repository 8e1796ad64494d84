"""Networks, data and gradients that products with the Fisher matrix are timed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from cases import BLOCKS, FEATURES, GPT, HEADS, SYMBOLS, TOKENS, digits, text
from torch import Tensor, nn
from torch.nn import functional

STEPS = 20


class Flat(nn.Module):
    """Outputs of a network with every observation in a row of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x)
        return found.flatten(0, -2)


class Residual(nn.Module):
    """Two convolutions with batch normalisation beside a shortcut."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(ins, outs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outs, outs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outs), nn.BatchNorm2d(outs)])
        self.shortcut: nn.Module = nn.Identity()
        if ins != outs:
            convolution = nn.Conv2d(ins, outs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outs))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(z)) + self.shortcut(x))


@dataclass(frozen=True)
class ProductCase:
    """A trained network, one batch of data, and how often to repeat.

    Attributes:
        name: Short name.
        title: One line for people.
        model: In float32 and eval mode, observations in rows of the output.
        x: Inputs.
        y: One label an observation.
        inner: Products in one timed run, so that it lasts some tenths of a second.
    """

    name: str
    title: str
    model: nn.Module
    x: Tensor
    y: Tensor
    inner: int

    @property
    def parameters(self) -> int:
        """D."""
        return sum(p.numel() for p in self.model.parameters())


def images(count: int, side: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Digits, enlarged to the size of other people's benchmarks: (N, channels, side, side)."""
    x, y = digits(count)
    wide = functional.interpolate(x.view(-1, 1, 8, 8), (side, side), mode="bilinear")
    return wide.repeat(1, channels, 1, 1), y


def trained(network: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """After some steps of Adam, so that probabilities are unequal; in eval mode."""
    model = Flat(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def mlp(count: int) -> ProductCase:
    """784-256-256-10."""
    x, y = images(count, 28)
    x = x.flatten(1)
    network = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    title = f"MLP 784-256-256-10, {count} enlarged digits"
    return ProductCase("mlp", title, trained(network, x, y), x, y, 40)


def cnn(count: int) -> ProductCase:
    """Two convolutions with pooling, and two linear layers."""
    x, y = images(count, 28)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    title = f"CNN 16-32-84, {count} enlarged digits"
    return ProductCase("cnn", title, trained(network, x, y), x, y, 6)


def gpt(count: int) -> ProductCase:
    """A causal transformer on sequences of characters, each to tell the next."""
    network = GPT(len(SYMBOLS), TOKENS, FEATURES, HEADS, BLOCKS)
    windows = text().unfold(0, TOKENS + 1, TOKENS)[:count]
    x, y = windows[:, :-1].contiguous(), windows[:, 1:].flatten()
    title = f"GPT, {BLOCKS} blocks, d = {FEATURES}, {count} sequences of {TOKENS} characters"
    return ProductCase("gpt", title, trained(network, x, y), x, y, 3)


def resnet(count: int) -> ProductCase:
    """Three residual blocks from 16 to 64 channels."""
    x, y = images(count, 32, 3)
    width = 16
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Residual(width, width, 1), Residual(width, 2 * width, 2),
        Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10),
    )  # fmt: skip
    title = f"ResNet-like, width {width}, {count} enlarged digits of 3 × 32 × 32"
    return ProductCase("resnet", title, trained(network, x, y), x, y, 1)


# Each with its number of samples.
MAKERS: dict[str, tuple[Callable[[int], ProductCase], int]] = {
    "mlp": (mlp, 512),
    "cnn": (cnn, 128),
    "gpt": (gpt, 32),
    "resnet": (resnet, 128),
}


def make_case(name: str, samples: int | None = None) -> ProductCase:
    """A case by name, the same each time."""
    maker, usual = MAKERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker(samples or usual)
