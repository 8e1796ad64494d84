"""Linear layers, with or without positions: the weight's gradient is an outer product.

For y_p = W x_p + b at positions p, a row of A on (W, b) is Σ_p g_p [x_p; 1]ᵀ with g_p the row's
gradient at y_p. Inner products of such rows never need the rows:

- one position: (x·x' + 1)(g·g'), two small Gram matrices multiplied entry by entry;
- several: Σ_pq (x_p·x'_q)(g_p·g'_q), either through the activation Gram matrix of the two samples,
  or by writing out the weight gradients, whichever has fewer operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import CHUNK, Dense, Factor, by_sample, laid_by_sample


class Outer(Factor):
    """Σ_p g_p x_pᵀ for activations x (s, P, in) and back-propagated rows g (k, s, P, out).

    With `bias` a column of ones is part of x; the columns are then all of W, then b.
    """

    def __init__(self, x: Tensor, g: Tensor, *, bias: bool) -> None:
        self.x, self.g, self.bias = x, g, bias
        self.per_sample, self.samples, self.positions, self.outs = g.shape
        self.ins = x.shape[-1]
        self.width = self.ins * self.outs

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.x.nbytes + self.g.nbytes

    def dense(self) -> Tensor:
        """All entries, (k, s, width): W by rows, then b."""
        if self.positions == 1:
            full = self.g[:, :, 0, :, None] * self.x[:, 0, None, :]
        else:
            full = torch.einsum("kspo,spi->ksoi", self.g, self.x)
        if not self.bias:
            return full.flatten(2)
        return torch.cat([full[..., :-1].flatten(2), full[..., -1]], -1)

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        w = self._matrix(v)
        y = torch.einsum("spi,oic->spoc", self.x, w)
        return torch.einsum("kspo,spoc->ksc", self.g, y)

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        g = torch.einsum("kspo,ksc->spoc", self.g, u)
        w = torch.einsum("spoc,spi->oic", g, self.x)
        if not self.bias:
            return w.flatten(0, 1)
        return torch.cat([w[:, :-1].flatten(0, 1), w[:, -1]])

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        if self.positions > 1:
            return super().squared_norm()
        x, g = self.x[:, 0].square().sum(-1), self.g[:, :, 0].square().sum((0, 2))
        return float(x @ g)

    def settled(self, budget: float) -> Factor:
        """Weight gradients written out once, if inner products take that order and they fit."""
        size = 8.0 * self.per_sample * self.samples * self.width
        if self.positions == 1 or size > budget or not self._weight_order_is_cheaper(self):
            return self
        return Dense(self.dense())

    def scaled(self, weights: Tensor) -> Factor:
        """Columns multiplied by weights; the outer product survives if W and b have one each."""
        w = weights[: -self.outs] if self.bias else weights
        if bool((w != w[0]).any()) or bool((weights[w.numel() :] != weights[-1]).any()):
            return Dense(self.dense() * weights)
        x = self.x * w[0]
        if self.bias:
            x[..., -1] = self.x[..., -1] * weights[-1]
        return Outer(x, self.g, bias=self.bias)

    def narrow(self, start: int, length: int) -> Outer:
        """The factor of some of the samples."""
        g, x = self.g.narrow(1, start, length), self.x.narrow(0, start, length)
        return Outer(x, laid_by_sample(g), bias=self.bias)

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Outer:
        """One factor for the samples of several; short samples are padded with zero positions."""
        outers = [part for part in parts if isinstance(part, Outer)]
        longest = max(part.positions for part in outers)
        pad = torch.nn.functional.pad
        x = torch.cat([pad(o.x, (0, 0, 0, longest - o.positions)) for o in outers])
        g = torch.cat([pad(o.g, (0, 0, 0, longest - o.positions)) for o in outers], 1)
        return cls(x, g, bias=outers[0].bias)

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows, written (fresh) or added to out."""
        if not isinstance(other, Outer):
            Dense(self.dense()).cross(other, out, fresh=fresh)
            return
        if self.positions == other.positions == 1:
            self._cross_single(other, out, fresh=fresh)
            return
        if fresh:
            out.zero_()
        if self._weight_order_is_cheaper(other):
            self._cross_weights(other, out)
        else:
            self._cross_positions(other, out)

    def _matrix(self, v: Tensor) -> Tensor:
        """Columns (width, c) as matrices (out, in, c)."""
        if not self.bias:
            return v.view(self.outs, self.ins, -1)
        w = v[: -self.outs].view(self.outs, self.ins - 1, -1)
        return torch.cat([w, v[-self.outs :, None]], 1)

    def _cross_single(self, other: Outer, out: Tensor, *, fresh: bool) -> None:
        """(x·x')(g·g') for one position."""
        shape = self.samples, self.per_sample, other.samples, other.per_sample
        xx = (self.x[:, 0] @ other.x[:, 0].T)[:, None, :, None]
        left, right = by_sample(self.g), by_sample(other.g).T
        if fresh:
            torch.mm(left, right, out=out)
            out.view(shape).mul_(xx)
        else:
            out.view(shape).addcmul_((left @ right).view(shape), xx)

    def _weight_order_is_cheaper(self, other: Outer) -> bool:
        """Multiplications through weight gradients against those through position pairs."""
        rows, columns = self.per_sample * self.samples, other.per_sample * other.samples
        written = (rows * self.positions + columns * other.positions) * self.width
        weights = written + rows * columns * self.width
        pairs = self.positions * other.positions * other.samples
        gram = pairs * self.samples * self.ins
        paired = gram + rows * pairs * self.outs + rows * columns * other.positions * self.outs
        return weights <= paired

    def _cross_weights(self, other: Outer, out: Tensor) -> None:
        """Write out weight gradients, some output units at a time, and multiply."""
        rows = max(self.per_sample * self.samples, other.per_sample * other.samples)
        step = max(1, CHUNK // (rows * self.ins))
        for start in range(0, self.outs, step):
            cut = slice(start, start + step)
            mine = torch.einsum("kspo,spi->skoi", self.g[..., cut], self.x)
            theirs = torch.einsum("kspo,spi->skoi", other.g[..., cut], other.x)
            width = mine.shape[-2] * mine.shape[-1]
            out.addmm_(mine.reshape(-1, width), theirs.reshape(-1, width).T)

    def _cross_positions(self, other: Outer, out: Tensor) -> None:
        """Through the activation Gram matrix of two samples, one of my samples at a time."""
        tile = out.view(self.samples, self.per_sample, other.samples, other.per_sample)
        theirs = other.g.permute(1, 2, 3, 0).flatten(1, 2)  # (s', Q·out, k')
        for i in range(self.samples):
            xx = torch.einsum("pi,sqi->sqp", self.x[i], other.x)
            mixed = torch.einsum("sqp,kpo->skqo", xx, self.g[:, i]).flatten(2)
            tile[i] += torch.bmm(mixed, theirs).transpose(0, 1)


class LinearCall(Call):
    """`torch.nn.functional.linear`, positions in any dimensions between the first and the last."""

    def __init__(self, x: Tensor, weight: str | None, bias: str | None) -> None:
        self.x, self.weight, self.bias = x, weight, bias

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured."""
        x, weight, bias = _arguments(*args, **kwargs)
        call = cls(x.detach(), names(weight), names(bias))
        if not call.uses:
            return None
        return func(x, fixed(weight, call.weight), fixed(bias, call.bias)), call

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        positions, outs = shape[:-1].numel() // samples, shape[-1]
        if self.weight is None or positions == 1:
            return outs
        return min(self.x.shape[-1] * outs, positions * (positions + 1) * outs)

    def weight_factor(self, g: Tensor, samples: int) -> Factor:
        """Σ_p g_p x_pᵀ."""
        return self._outer(g, samples, bias=False)

    def bias_rows(self, g: Tensor, samples: int) -> Tensor:
        """Σ_p g_p."""
        return g.reshape(len(g), samples, -1, g.shape[-1]).sum(2)

    def factor(self, unit: tuple[str, ...], g: Tensor, samples: int) -> Factor:
        """The factor on a unit; weight and bias together are one outer product."""
        if len(unit) == 2:
            return self._outer(g, samples, bias=True)
        return super().factor(unit, g, samples)

    def _outer(self, g: Tensor, samples: int, *, bias: bool) -> Outer:
        rows = g.reshape(len(g), samples, -1, g.shape[-1])
        x = self.x.reshape(samples, rows.shape[2], -1)
        return Outer(torch.nn.functional.pad(x, (0, 1), value=1.0) if bias else x, rows, bias=bias)


def combine(factors: Sequence[Factor]) -> Factor:
    """The sum of several calls' factors on one unit: positions side by side, else entries added."""
    if len(factors) == 1:
        return factors[0]
    outers = [f for f in factors if isinstance(f, Outer)]
    if len(outers) == len(factors) and len({f.bias for f in outers}) == 1:
        x = torch.cat([f.x for f in outers], 1)
        return Outer(x, torch.cat([f.g for f in outers], 2), bias=outers[0].bias)
    return Dense(torch.stack([f.dense() for f in factors]).sum(0))


def _arguments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias
