"""Embeddings: a linear layer on one-hot inputs, of which only the indices are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import Dense, Factor, laid_by_sample


class Lookup(Factor):
    """Σ_p e_{t_p} g_pᵀ for tokens t (s, P) of a table (V, d) and rows g (k, s, P, d).

    Inner products are Σ_pq [t_p = t'_q] g_p·g'_q.
    """

    def __init__(self, tokens: Tensor, g: Tensor, size: int) -> None:
        self.tokens, self.g, self.size = tokens, g, size
        self.per_sample, self.samples, self.positions, self.depth = g.shape
        self.width = size * self.depth

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.tokens.nbytes + self.g.nbytes

    def dense(self) -> Tensor:
        """All entries, (k, s, V d)."""
        out = self.g.new_zeros(self.per_sample, self.samples, self.size, self.depth)
        index = self.tokens[None, :, :, None].expand_as(self.g)
        return out.scatter_add_(2, index, self.g).flatten(2)

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (V d, c) -> (k, s, c)."""
        table = v.view(self.size, self.depth, -1)
        return torch.einsum("kspd,spdc->ksc", self.g, table[self.tokens])

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (V d, c)."""
        entries = torch.einsum("kspd,ksc->spdc", self.g, u).flatten(0, 1)
        out = u.new_zeros(self.size, self.depth, u.shape[-1])
        return out.index_add_(0, self.tokens.reshape(-1), entries).flatten(0, 1)

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        same = (self.tokens[:, :, None] == self.tokens[:, None, :]).to(self.g.dtype)
        return float((torch.einsum("spq,kspd->ksqd", same, self.g) * self.g).sum())

    def narrow(self, start: int, length: int) -> Lookup:
        """The factor of some of the samples."""
        g = laid_by_sample(self.g.narrow(1, start, length))
        return Lookup(self.tokens.narrow(0, start, length), g, self.size)

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Lookup:
        """One factor for the samples of several; short samples are padded with zero rows."""
        lookups = [part for part in parts if isinstance(part, Lookup)]
        longest = max(part.positions for part in lookups)
        pad = torch.nn.functional.pad
        tokens = torch.cat([pad(o.tokens, (0, longest - o.positions)) for o in lookups])
        g = torch.cat([pad(o.g, (0, 0, 0, longest - o.positions)) for o in lookups], 1)
        return cls(tokens, g, lookups[0].size)

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows, one of my samples at a time."""
        if not isinstance(other, Lookup):
            Dense(self.dense()).cross(other, out, fresh=fresh)
            return
        if fresh:
            out.zero_()
        tile = out.view(self.samples, self.per_sample, other.samples, other.per_sample)
        theirs = other.g.permute(1, 2, 3, 0).flatten(1, 2)
        for i in range(self.samples):
            same = (self.tokens[i, :, None] == other.tokens[:, None, :]).to(self.g.dtype)
            mixed = torch.einsum("spq,kpd->skqd", same, self.g[:, i]).flatten(2)
            tile[i] += torch.bmm(mixed, theirs).transpose(0, 1)


class EmbeddingCall(Call):
    """`torch.nn.functional.embedding`, unless its gradient is not the derivative of its output."""

    def __init__(self, tokens: Tensor, weight: str | None, size: int, padding: int | None) -> None:
        self.x, self.weight, self.bias = tokens, weight, None
        self.size, self.padding = size, padding

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if its table is measured, and neither renormalised nor scaled."""
        tokens, table, padding, max_norm, by_frequency = _arguments(*args, **kwargs)
        name = names(table)
        if name is None or max_norm is not None or by_frequency:
            return None
        skipped = None if padding is None else padding % len(table)
        output = func(tokens, fixed(table, name), padding)
        return output, cls(tokens, name, len(table), skipped)

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        positions = shape[:-1].numel() // samples
        return positions * (positions + 1) * shape[-1]

    def weight_factor(self, g: Tensor, samples: int) -> Factor:
        """Σ_p e_{t_p} g_pᵀ, nothing at the padding index."""
        rows = g.reshape(len(g), samples, -1, g.shape[-1])
        tokens = self.x.reshape(samples, -1)
        if self.padding is not None:
            rows = rows * (tokens != self.padding)[None, :, :, None]
        return Lookup(tokens, rows, self.size)

    def bias_rows(self, g: Tensor, samples: int) -> Tensor:
        """None: an embedding has no bias."""
        return g.new_zeros(len(g), samples, 0)


def _arguments(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> tuple[Tensor, Tensor, int | None, float | None, bool]:
    return input, weight, padding_idx, max_norm, scale_grad_by_freq
