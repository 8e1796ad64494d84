"""Rows of a table: outer products with one-hot inputs, of which only the indices are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from lightlike.metric.contractions.factor import Factor, laid_by_sample
from lightlike.metric.contractions.lanes import Lanes
from lightlike.metric.contractions.outer import Outer
from lightlike.metric.contractions.split import inner


class Lookup(Factor):
    """Σ_p e_{t_p} g_pᵀ for tokens t (s, P) of a table (V, d) and rows g (k, s, P, d).

    Inner products are Σ_pq [t_p = t'_q] g_p·g'_q: only tokens that two samples share count.
    """

    def __init__(self, tokens: Tensor, g: Tensor, size: int) -> None:
        self.tokens, self.g, self.size = tokens, g, size
        self.per_sample, self.samples, self.positions, self.depth = g.shape
        self.width = size * self.depth

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.tokens.nbytes + self.g.nbytes

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        first, last = start // self.depth, -(-stop // self.depth)
        out = self.g.new_zeros(self.per_sample, self.samples, last - first + 1, self.depth)
        # Other tokens fall into one bin more, which is dropped.
        inside = (self.tokens >= first) & (self.tokens < last)
        bins = torch.where(inside, self.tokens - first, last - first)
        out.scatter_add_(2, bins[None, :, :, None].expand_as(self.g), self.g)
        return out.flatten(2)[..., start - first * self.depth : stop - first * self.depth]

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
        by_samples = self.g.transpose(0, 1)
        return sum(
            float((torch.matmul(s, g).reshape(-1) * g.reshape(-1)).sum())
            for s, g in zip(same, by_samples, strict=True)
        )

    def scaled(self, weights: Tensor) -> Factor:
        """Columns multiplied by weights; the table survives if they are all the same."""
        if bool((weights != weights[0]).any()):
            return super().scaled(weights)
        return Lookup(self.tokens, self.g * weights[0], self.size)

    def keep(self, lanes: Lanes) -> Factor:
        """Fewer dimensions of the table."""
        if lanes.axis == 0:
            return super().keep(lanes)
        g = self.g.transpose(0, 1)[..., lanes.index].transpose(0, 1)
        return Lookup(self.tokens, g, self.size)

    def narrow(self, start: int, length: int) -> Lookup:
        """The factor of some of the samples."""
        g = laid_by_sample(self.g.narrow(1, start, length))
        return Lookup(self.tokens.narrow(0, start, length), g, self.size)

    def blank(self, samples: int) -> Lookup:
        """Zero rows for some other samples, at one position."""
        tokens = self.tokens.new_zeros(samples, 1)
        return Lookup(tokens, self.g.new_zeros(self.per_sample, samples, 1, self.depth), self.size)

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
        """Inner products with another factor's rows."""
        other = inner(other)
        if isinstance(other, Lookup):
            if fresh:
                out.zero_()
            self._cross_tokens(other, out)
        elif isinstance(other, Outer) and not other.bias and not other.transposed:
            if fresh:
                out.zero_()
            self._cross_outer(other, out)
        else:
            super().cross(other, out, fresh=fresh)

    @cached_property
    def _by_token(self) -> dict[int, tuple[Tensor, Tensor]]:
        """For each token the samples that hold it, and the sums (n, k, d) of their rows there."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        holders = torch.arange(self.samples, device=self.g.device)[:, None]
        keys = (self.tokens * self.samples + holders).reshape(-1)
        pairs, place = torch.unique(keys, return_inverse=True)
        sums = self.g.new_zeros(len(pairs), self.per_sample, self.depth)
        entries = self.g.permute(1, 2, 0, 3).reshape(-1, self.per_sample, self.depth)
        sums.index_add_(0, place, entries)
        tokens, samples = pairs // self.samples, pairs % self.samples
        values, counts = torch.unique_consecutive(tokens, return_counts=True)
        start = 0
        for token, count in zip(values.tolist(), counts.tolist(), strict=True):
            found[token] = samples[start : start + count], sums[start : start + count]
            start += count
        return found

    def _cross_tokens(self, other: Lookup, out: Tensor) -> None:
        """One matrix product for each token that both sides hold."""
        tile = out.view(self.samples, self.per_sample, other.samples, other.per_sample)
        mine, theirs = self._by_token, other._by_token
        for token in mine.keys() & theirs.keys():
            (rows, left), (columns, right) = mine[token], theirs[token]
            product = left.flatten(0, 1) @ right.flatten(0, 1).T
            if len(rows) == self.samples and len(columns) == other.samples:
                out += product
                continue
            product = product.view(len(rows), self.per_sample, len(columns), other.per_sample)
            tile[rows[:, None], :, columns] += product.permute(0, 2, 1, 3)

    def _cross_outer(self, other: Outer, out: Tensor) -> None:
        """Σ_pq h'_q[t_p] (g_p·x'_q), for a table that is a linear layer's weight (V, d) too."""
        tile = out.view(self.samples, self.per_sample, other.samples, other.per_sample)
        x = other.x.flatten(0, 1).T  # (d, s' Q)
        for i in range(self.samples):
            read = other.g[..., self.tokens[i]]  # (k', s', Q, P)
            gx = (self.g[:, i].reshape(-1, self.depth) @ x).view(
                self.per_sample, self.positions, other.samples, -1
            )
            left = gx.permute(2, 0, 3, 1).flatten(2)  # (s', k, Q P)
            tile[i] += torch.bmm(left, read.permute(1, 2, 3, 0).flatten(1, 2)).transpose(0, 1)
