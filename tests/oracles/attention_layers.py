"""Attention written in the many ways that networks write it, and its nullity in closed form."""

import math

import torch
from torch import nn
from torch.nn import functional

from oracles.networks import normal


class TransposedLinear(nn.Module):
    """x W + b with W (inputs, outputs), as GPT-2 keeps it."""

    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ self.weight if self.bias is None else torch.addmm(self.bias, flat, self.weight)
        return y.view(*x.shape[:-1], -1)


class Attend(nn.Module):
    """Attention of `heads` query heads on `groups` heads of keys and values.

    Args:
        width, heads, size: d, H and the features of a head.
        groups: Heads of keys and values, H unless given.
        bias: Which projections have one: letters of "qkvo".
        layout: "separate" layers, "fused" one by one after another, "interleaved" head by head,
            or "transposed" weights, fused.
        kernel: "sdpa", "matmul" or "einsum".
        causal, rotary, alibi: Causal mask; rotary positions; linear position bias.
        normalised, tied, extra: RMS-normalised queries and keys; one layer for both of them; a
            further reader of the values.
    """

    def __init__(
        self, width, heads, size, *, groups=None, bias="", layout="separate", kernel="sdpa",
        causal=False, rotary=False, normalised=False, alibi=False, tied=False, extra=False,
    ):  # fmt: skip
        super().__init__()
        groups = groups or heads
        self.heads, self.groups, self.size = heads, groups, size
        self.layout, self.kernel, self.causal = layout, kernel, causal
        self.rotary, self.alibi, self.extra = rotary, alibi, extra
        kind = TransposedLinear if layout == "transposed" else nn.Linear
        counts = heads, groups, groups
        if layout == "separate":
            self.q, self.k, self.v = (
                kind(width, n * size, bias=name in bias)
                for n, name in zip(counts, "qkv", strict=True)
            )
            if tied:
                self.k = self.q
        else:
            self.qkv = kind(width, sum(counts) * size, bias="qkv" in bias)
        self.o = kind(heads * size, width, bias="o" in bias)
        if normalised:
            self.qn, self.kn = nn.RMSNorm(size, eps=1e-3), nn.RMSNorm(size, eps=1e-3)
        self.normalised = normalised

    def project(self, x):
        """Queries, keys and values (N, heads, T, size)."""
        if self.layout == "separate":
            return [
                f(x).view(*x.shape[:2], -1, self.size).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            ]
        y = self.qkv(x)
        if self.layout == "interleaved":
            y = y.unflatten(-1, (self.groups, -1, self.size))
            q, k, v = y.split([self.heads // self.groups, 1, 1], 3)
            return [z.flatten(2, 3).movedim(2, 1) for z in (q, k, v)]
        n = self.groups * self.size
        q, k, v = y.split([self.heads * self.size, n, n], -1)
        return [z.unflatten(-1, (-1, self.size)).permute(0, 2, 1, 3) for z in (q, k, v)]

    def turn(self, x):
        """Rotary positions, halves paired."""
        half = self.size // 2
        angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * 0.7 ** torch.arange(half)
        cos, sin = (f(torch.cat([angle, angle], -1)) for f in (torch.cos, torch.sin))
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def forward(self, x):
        q, k, v = self.project(x)
        if self.normalised:
            q, k = self.qn(q), self.kn(k)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        k, v = (z.repeat_interleave(self.heads // self.groups, 1) for z in (k, v))
        t = x.shape[1]
        mask = x.new_zeros(t, t)
        if self.causal:
            mask = mask.masked_fill(torch.ones(t, t).triu(1) > 0, -math.inf)
        if self.alibi:
            away = (torch.arange(t)[:, None] - torch.arange(t)).abs()
            mask = mask - away * torch.linspace(0.5, 1, self.heads)[:, None, None]
        if self.kernel == "sdpa":
            h = functional.scaled_dot_product_attention(q, k, v, mask)
        elif self.kernel == "matmul":
            scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.size)
            h = nn.functional.softmax(scores + mask, dim=-1) @ v
        else:
            scores = torch.einsum("nhti,nhsi->nhts", q, k) * self.size**-0.5
            h = torch.einsum("nhts,nhsi->nhti", (scores + mask).softmax(-1), v)
        y = self.o(h.transpose(1, 2).reshape(*x.shape[:2], -1))
        return y + v.sin().mean((1, 3))[..., None] if self.extra else y


def nullity(heads, size, *, groups=None, bias="", rotary=False, tied=False, **_):
    """Null directions of one such layer on generic inputs of at least `size` features.

    Per head of keys and values: size² of values and output; size² of queries and keys, of which
    rotations by position leave one complex number a plane, and one weight for both the rotations;
    key bias; value bias against output bias.
    """
    groups = groups or heads
    pairs = size**2
    if tied:
        pairs = size * (size - 1) // 2
    elif rotary:
        pairs = size
    inert = size if "k" in bias and not rotary and not tied else 0
    passed = size if "v" in bias and "o" in bias else 0
    return groups * (size**2 + pairs + inert + passed)


def sequences(n, length, width, seed=0):
    return normal(n, length, width, seed=seed)
