"""Small transformers with a normalised residual stream, and their nullity in closed form."""

import torch
from torch import nn

from oracles.attention_layers import Attend
from oracles.networks import generator


class HandWrittenNorm(nn.Module):
    """RMSNorm as language models spell it out."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.float64)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)).to(dtype)


def make_norm(kind, width, eps, bias):
    if kind == "layer":
        return nn.LayerNorm(width, eps=eps, bias=bias)
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else HandWrittenNorm(width, eps)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width, hidden, norm, bias, **attention):
        super().__init__()
        self.ahead, self.then = norm(), norm()
        self.attend = Attend(width, bias="qkvo" if bias else "", causal=True, **attention)
        self.up, self.down = nn.Linear(width, hidden, bias), nn.Linear(hidden, width, bias)

    def forward(self, x):
        x = x + self.attend(self.ahead(x))
        return x + self.down(nn.functional.gelu(self.up(self.then(x))))


class Decoder(nn.Module):
    """Tokens and positions, pre-norm blocks, a last norm, and a linear layer at every position."""

    def __init__(
        self, vocabulary=5, length=3, width=4, hidden=3, outputs=3, depth=1, *, norm="layer",
        eps=1e-5, bias=True, tied=False, positions=True, heads=2, size=2, **attention,
    ):  # fmt: skip
        super().__init__()

        def make():
            return make_norm(norm, width, eps, bias)

        attention |= dict(heads=heads, size=size)
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(length, width) if positions else None
        self.blocks = nn.ModuleList(
            Block(width, hidden, make, bias, **attention) for _ in range(depth)
        )
        self.last = make()
        self.head = nn.Linear(width, vocabulary if tied else outputs, bias)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, tokens):
        x = self.token(tokens)
        if self.place is not None:
            x = x + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x))


def tokens(n, vocabulary, length, seed=0):
    """Distinct sequences, drawn from all that there are."""
    every = torch.cartesian_prod(*[torch.arange(vocabulary)] * length)
    return every[torch.randperm(len(every), generator=generator(seed))[:n]]


def nullity(
    vocabulary=5, length=3, width=4, hidden=3, outputs=3, depth=1, *, norm="layer", eps=1e-5,
    bias=True, heads=2, size=2, softmax=False,
):  # fmt: skip
    """Null directions of an untied decoder, term by term.

    Attention; gain and bias of every norm against its readers; the direction that LayerNorm takes
    away, in its readers and in the writers of the stream; tokens against positions; rotations of
    the stream; its scale, unless eps breaks it; softmax shift.
    """
    layer = norm == "layer"
    inside = 2 * heads * size**2 + (2 * heads * size if bias else 0)
    affine = (2 if bias and layer else 1) * width
    readers = 3 * heads * size + hidden if layer else 0
    writers = heads * size + hidden + (2 if bias else 0) if layer else 0
    each = inside + 2 * affine + readers + writers
    ends = affine + (outputs + vocabulary + length if layer else 0)
    seen = width - 1 if layer else width
    rotations = seen * (seen - 1) // 2
    shift = seen + int(bias) if softmax else 0
    return depth * each + ends + seen + rotations + int(eps == 0) + shift
