"""Networks that benchmarks of products and of eigenvalues share, with data in batches.

Each function gives a model in float32 and eval mode, its batches (x, y), and the likelihood's name.
A few steps of Adam from fixed seeds leave weights that are no longer random and probabilities that
are unequal. Data are scikit-learn's digits and Python's help topics, or noise where only the size
matters.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from cases import BLOCKS, FEATURES, GPT, HEADS, SYMBOLS, TOKENS, digits, text, train
from torch import Tensor, nn
from torch.nn import functional

Batches = list[tuple[Tensor, Tensor]]
Net = tuple[nn.Module, Batches, str]

SEQUENCES, WIDTH, IMAGES = 32, 16, 128
STEPS = 20


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation beside a shortcut."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False)
        self.one = nn.BatchNorm2d(outs)
        self.second = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.two = nn.BatchNorm2d(outs)
        same = ins == outs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(ins, outs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.one(self.first(x)))
        return functional.relu(self.two(self.second(inner)) + self.shortcut(x))


def mlp() -> Net:
    """A ReLU network 64-384-384-244-10 (269 k parameters) on 512 digits, four batches."""
    x, y = digits(512)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for ins, outs in pairwise((64, 384, 384, 244, 10)):
            layers += [nn.Linear(ins, outs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    train(model, lambda _: (x, y), STEPS)
    return model, _batches(x, y, 128), "categorical"


def cnn() -> Net:
    """Two convolutions to 16 and 32 channels and a hidden layer (137 k) on 256 digits."""
    x, y = digits(256)
    x = x.view(-1, 1, 8, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 252),
            nn.ReLU(),
            nn.Linear(252, 10),
        )
    train(model, lambda _: (x, y), STEPS)
    return model, _batches(x, y, 128), "categorical"


def gpt() -> Net:
    """A causal transformer, 4 blocks of width 128, on 32 sequences of 32 characters, one batch."""
    symbols = text()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(len(SYMBOLS), TOKENS, FEATURES, HEADS, BLOCKS)
    windows = symbols.unfold(0, TOKENS + 1, TOKENS)
    batches = windows[SEQUENCES:].split(16)
    train(model, lambda s: (batches[s][:, :-1], batches[s][:, 1:]), 3 * STEPS)
    held = windows[:SEQUENCES]
    return model, [(held[:, :-1].contiguous(), held[:, 1:].contiguous())], "categorical"


def resnet() -> Net:
    """Three stages of two residual blocks from 16 channels, on 128 images of noise, one batch."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, 3, 32, 32, generator=draws)
    y = torch.randint(10, (IMAGES,), generator=draws)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            ResidualBlock(WIDTH, WIDTH),
            ResidualBlock(WIDTH, WIDTH),
            ResidualBlock(WIDTH, 2 * WIDTH, 2),
            ResidualBlock(2 * WIDTH, 2 * WIDTH),
            ResidualBlock(2 * WIDTH, 4 * WIDTH, 2),
            ResidualBlock(4 * WIDTH, 4 * WIDTH),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * WIDTH, 10),
        )
    train(model, lambda s: (x[s % 2 :: 2], y[s % 2 :: 2]), STEPS)
    return model, [(x, y)], "categorical"


def _batches(x: Tensor, y: Tensor, size: int) -> Batches:
    return list(zip(x.split(size), y.split(size), strict=True))


NETS: dict[str, Callable[[], Net]] = {"mlp": mlp, "cnn": cnn, "gpt": gpt, "resnet": resnet}
