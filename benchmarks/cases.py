"""Models and data that the benchmarks measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pydoc_data.topics import topics

import torch
from floor import Attention, Layer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 256, 256, 10)
# Enough steps for unequal probabilities. After about a hundred, the softmax saturates and
# nngeometry's root of its covariance turns to NaN in float32, which would end the comparison.
TRAINING_STEPS = 20
SYMBOLS = " abcdefghijklmnopqrstuvwxyz"
TOKENS, FEATURES, HEADS, BLOCKS = 32, 128, 4, 4


@dataclass(frozen=True)
class Case:
    """A model and its inputs.

    Attributes:
        name: Short name, as in the names of the files with figures.
        title: One line for people.
        model: In float32, as users keep it.
        x: Inputs of N samples.
        classes: m, entries of one observation's output.
        positions: Observations of one sample.
        layers: Layers with parameters, for counting operations.
        attentions: Attentions, for counting operations.
        causal: Whether an output depends on no later position.
    """

    name: str
    title: str
    model: nn.Module
    x: Tensor
    classes: int
    layers: tuple[Layer, ...]
    positions: int = 1
    attentions: tuple[Attention, ...] = ()
    causal: bool = False

    @property
    def kind(self) -> str:
        """The kind of network, as the name begins."""
        return self.name.split("-")[0]

    @property
    def parameters(self) -> int:
        """D."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def observations(self) -> int:
        """Predictions of one categorical variable each."""
        return len(self.x) * self.positions

    @property
    def rows(self) -> int:
        """K: the rank of a softmax's covariance is one less than its classes."""
        return self.observations * (self.classes - 1)


class SelfAttention(nn.Module):
    """Causal attention with all heads' queries, keys and values from one linear layer."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project(x).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, heads, d / heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each after a normalisation and beside the residual."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(features)
        self.attention = SelfAttention(features, heads)
        self.between = nn.LayerNorm(features)
        self.up = nn.Linear(features, 4 * features)
        self.down = nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.down(functional.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    """A decoder-only transformer: tokens (B, T) to logits of each next token (B, T, m)."""

    def __init__(self, symbols: int, tokens: int, features: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.token = nn.Embedding(symbols, features)
        self.position = nn.Embedding(tokens, features)
        self.blocks = nn.ModuleList(TransformerBlock(features, heads) for _ in range(blocks))
        self.after = nn.LayerNorm(features)
        self.head = nn.Linear(features, symbols, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position(places)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.after(x))
        return logits


def digits(observations: int) -> tuple[Tensor, Tensor]:
    """The first of scikit-learn's 1,797 digits: (N, 64) in [0, 1], and labels."""
    data = load_digits()
    x = torch.tensor(data.data[:observations] / 16, dtype=torch.float32)
    return x, torch.tensor(data.target[:observations])


def text() -> Tensor:
    """Python's help topics as numbers of the 27 symbols: letters, and one space for the rest."""
    letters = "".join(c if c in SYMBOLS else " " for c in "\n".join(topics.values()).lower())
    return torch.tensor([SYMBOLS.index(c) for c in " ".join(letters.split())])


def train(model: nn.Module, batches: Callable[[int], tuple[Tensor, Tensor]], steps: int) -> None:
    """Adam on the cross-entropy of batches(step)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        x, y = batches(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
        optimizer.step()
    optimizer.zero_grad()
    model.eval()


def mlp(observations: int = 500) -> Case:
    """A ReLU network 64-256-256-10 on digits."""
    x, y = digits(observations)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for ins, outs in pairwise(WIDTHS):
            layers += [nn.Linear(ins, outs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    train(model, lambda _: (x, y), TRAINING_STEPS)
    counted = [
        Layer("linear", ins + 1, outs, first=not index)
        for index, (ins, outs) in enumerate(pairwise(WIDTHS))
    ]
    return Case("mlp", "MLP 64-256-256-10 on digits", model, x, 10, tuple(counted))


def cnn(observations: int = 300) -> Case:
    """Two 3 × 3 convolutions to 16 and 32 channels, max-pooling, a linear layer, on digits."""
    x, y = digits(observations)
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
            nn.Linear(512, 10),
        )
    train(model, lambda _: (x, y), TRAINING_STEPS)
    counted = (
        Layer("linear", 10, 16, 64, first=True),
        Layer("linear", 145, 32, 64),
        Layer("linear", 513, 10),
    )
    return Case("cnn", "CNN 16-32 on digits", model, x, 10, counted)


def gpt(sequences: int, name: str) -> Case:
    """A causal transformer on sequences of 32 characters that it was not trained on."""
    symbols = text()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(len(SYMBOLS), TOKENS, FEATURES, HEADS, BLOCKS)
    windows = symbols.unfold(0, TOKENS + 1, TOKENS)
    held_out = windows[:sequences, :-1].contiguous()
    batches = windows[64:].split(16)
    train(model, lambda s: (batches[s][:, :-1], batches[s][:, 1:]), 3 * TRAINING_STEPS)
    title = f"GPT, {BLOCKS} blocks, d = {FEATURES}, {sequences} sequences of {TOKENS} characters"
    return Case(
        name, title, model, held_out, len(SYMBOLS), gpt_layers(), TOKENS, gpt_attentions(), True
    )


def gpt_layers() -> tuple[Layer, ...]:
    """The layers of the transformer; after the last attention, positions do not mix."""
    d, t = FEATURES, TOKENS
    found = [
        Layer("table", len(SYMBOLS), d, t, first=True),
        Layer("table", t, d, t, first=True),
    ]
    for index in range(BLOCKS):
        last = index == BLOCKS - 1
        found += [
            Layer("vector", 2, d),
            Layer("linear", d + 1, 3 * d, t),
            Layer("linear", d + 1, d, t, local=last),
            Layer("vector", 2, d),
            Layer("linear", d + 1, 4 * d, t, local=last),
            Layer("linear", 4 * d + 1, d, t, local=last),
        ]
    return (*found, Layer("vector", 2, d), Layer("linear", d, len(SYMBOLS), t, local=True))


def gpt_attentions() -> tuple[Attention, ...]:
    """One a block."""
    return tuple(Attention(TOKENS, FEATURES, last=i == BLOCKS - 1) for i in range(BLOCKS))


# Each for a number of samples; None: as many as the benchmark takes.
CASES: dict[str, Callable[[int | None], Case]] = {
    "mlp": lambda n: mlp(n or 500),
    "cnn": lambda n: cnn(n or 300),
    "gpt-1664": lambda n: gpt(n or 2, "gpt-1664"),
    "gpt-4992": lambda n: gpt(n or 6, "gpt-4992"),
}
