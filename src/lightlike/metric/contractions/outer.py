"""Outer products: rows Σ_p g_p x_pᵀ of a weight that is applied at several positions p.

Inner products of such rows never need the rows:

- one position: (x·x')(g·g'), two small Gram matrices multiplied entry by entry;
- several: Σ_pq (x_p·x'_q)(g_p·g'_q), through the activation Gram matrices of samples (`pairs`),
  or by writing out the weight gradients some columns at a time, whichever is cheaper.

Positions that no row reaches are left out, and rows that reach one position each, as all layers
after the last mixing of positions have, are samples of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from lightlike.metric.contractions.factor import Dense, Factor, Weighted, by_sample, laid_by_sample
from lightlike.metric.contractions.lanes import Lanes
from lightlike.metric.contractions.pairs import Rows, add_pairs, entry_cost, pair_cost, reach
from lightlike.metric.contractions.split import Split, divisor, inner


class Outer(Factor):
    """Σ_p g_p x_pᵀ for activations x (s, P, in) and back-propagated rows g (k, s, P, out).

    With `bias` a column of ones is part of x. The columns are those of the weight, then those of
    the bias; the weight is (out, in), or (in, out) if `transposed`.
    """

    def __init__(self, x: Tensor, g: Tensor, *, bias: bool, transposed: bool = False) -> None:
        self.x, self.g, self.bias, self.transposed = x, g, bias, transposed
        self.per_sample, self.samples, self.positions, self.outs = g.shape
        self.ins = x.shape[-1]
        self.width = self.ins * self.outs
        self._reach: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.x.nbytes + self.g.nbytes

    @property
    def form(self) -> Hashable:
        """Outer products with and without bias differ, and the two orders of the weight."""
        return type(self).__name__, self.bias, self.transposed, self.ins, self.outs

    @property
    def written(self) -> bool:
        """Whether weight gradients are cheaper than pairs of positions."""
        return self.positions > 1 and entry_cost(self._rows()) <= pair_cost(self._rows())

    def columns(self, start: int, stop: int) -> Tensor:
        """Some columns' entries, (k, s, stop − start)."""
        parts = list(self._parts(start, stop))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Write some columns' entries to out (k, s, stop − start)."""
        at = 0
        for part in self._parts(start, stop):
            out[..., at : at + part.shape[-1]] = part
            at += part.shape[-1]

    def _parts(self, start: int, stop: int) -> Iterator[Tensor]:
        """Some columns' entries: those of the weight, those of the bias."""
        weight = self.width - self.outs if self.bias else self.width
        if start < min(stop, weight):
            yield self._weight_columns(start, min(stop, weight))
        if stop > weight:
            g = self.g[..., max(0, start - weight) : stop - weight]
            # Ones, unless the columns of the bias have been weighted.
            # As small matrix products on what lies side by side: an einsum would copy g.
            rows = torch.matmul(self.x[:, None, None, :, -1], g.transpose(0, 1))
            yield rows.squeeze(2).transpose(0, 1)

    def apply(self, v: Tensor) -> Tensor:
        """Rows times v: (width, c) -> (k, s, c)."""
        # One product over all samples; columns of v come first, as their memory has it often.
        weights = self._matrix(v).permute(2, 0, 1)
        y = self.x.reshape(-1, self.ins) @ weights.reshape(-1, self.ins).T
        y = y.view(self.samples, self.positions, -1, self.outs).transpose(2, 3)
        g = self.g.transpose(0, 1).flatten(2)
        return torch.bmm(g, y.reshape(self.samples, g.shape[2], -1)).transpose(0, 1)

    def pull(self, u: Tensor) -> Tensor:
        """Rows transposed times u: (k, s, c) -> (width, c)."""
        # (s, c, k) times (s, k, P out), or (s, k, out P) where g is laid out so: no copy of g.
        g, weights = self.g.transpose(0, 1), u.permute(1, 2, 0)
        if g.stride(-1) > g.stride(-2):
            mixed = torch.bmm(weights, g.transpose(2, 3).flatten(2))
            g = torch.unflatten(mixed, 2, (self.outs, -1)).permute(0, 3, 1, 2)
        else:
            mixed = torch.bmm(weights, g.flatten(2))
            g = torch.unflatten(mixed, 2, (self.positions, -1)).transpose(1, 2)
        # (c out, s P) times (s P, in): for one position without a copy.
        w = g.reshape(self.samples * self.positions, -1).T @ self.x.reshape(-1, self.ins)
        w = w.view(-1, self.outs, self.ins)
        weight = w[..., : self.ins - self.bias]
        flat = (weight.transpose(1, 2) if self.transposed else weight).flatten(1)
        return (torch.cat([flat, w[..., -1]], 1) if self.bias else flat).T

    def squared_norm(self) -> float:
        """Sum of squares of all entries."""
        if self.positions == 1:
            x, g = self.x[:, 0].square().sum(-1), self.g[:, :, 0].square().sum((0, 2))
            return float(x @ g)
        if self.positions >= self.ins:
            return super().squared_norm()
        total = 0.0
        for x, g in zip(self.x, self.g.transpose(0, 1), strict=True):
            mixed = torch.matmul(x @ x.T, g)
            total += float((mixed.reshape(-1) * g.reshape(-1)).sum())
        return total

    def settled(self) -> Factor:
        """Positions that no row reaches left out; rows of one position each made samples."""
        if self.positions == 1:
            return self
        touched = _touched(self.g)
        lean = self._trimmed(touched.any(0))
        touched = touched if lean is self else _touched(lean.g)
        if lean.positions == 1:
            return lean
        if (split := lean._split(touched)) is not None:
            return split
        if lean.width < lean.positions * lean.outs and lean.written:
            return Dense(laid_by_sample(lean.dense()))
        lean._reach = reach(touched)
        return lean

    def scaled(self, weights: Tensor) -> Factor:
        """Columns multiplied by weights; the outer product survives if W and b have one each."""
        if not weights.numel():  # of a sample that keeps none of these outputs
            return self
        w = weights[: -self.outs] if self.bias else weights
        if bool((w != w[0]).any()) or bool((weights[w.numel() :] != weights[-1]).any()):
            return Weighted(self, weights)
        x = self.x * w[0]
        if self.bias:
            x[..., -1] = self.x[..., -1] * weights[-1]
        return self._like(x, self.g)

    def keep(self, lanes: Lanes) -> Factor:
        """Fewer output units, or fewer inputs where no bias goes with these."""
        if lanes.axis == int(self.transposed):
            # Gathered sample by sample, as it is laid out.
            g = self.g.transpose(0, 1)[..., lanes.index].transpose(0, 1)
            part = self._like(self.x, g)
        elif not self.bias:
            part = self._like(self.x[..., lanes.index], self.g)
        else:
            return super().keep(lanes)
        part._reach = self._reach
        return part

    def narrow(self, start: int, length: int) -> Outer:
        """The factor of some of the samples."""
        g = laid_by_sample(self.g.narrow(1, start, length))
        part = self._like(self.x.narrow(0, start, length), g)
        part._reach = self._reach
        return part

    def blank(self, samples: int) -> Outer:
        """Zero rows for some other samples, at one position."""
        x = self.x.new_zeros(samples, 1, self.ins)
        return self._like(x, self.g.new_zeros(self.per_sample, samples, 1, self.outs))

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Outer:
        """One factor for the samples of several; short samples are padded with zero positions."""
        outers = [part for part in parts if isinstance(part, Outer)]
        longest = max(part.positions for part in outers)
        x = torch.cat([_padded(o.x, longest - o.positions) for o in outers])
        # Laid out sample by sample, once.
        g = torch.cat(
            [_padded(o.g.transpose(0, 1), longest - o.positions) for o in outers]
        ).transpose(0, 1)
        joined = outers[0]._like(x, g)
        reaches = [o._reach for o in outers if o._reach is not None]
        if len(reaches) == len(outers):
            joined._reach = tuple(max(column) for column in zip(*reaches, strict=True))
        return joined

    def cross(self, other: Factor, out: Tensor, *, fresh: bool) -> None:
        """Inner products with another factor's rows, written (fresh) or added to out."""
        other = inner(other)
        if not isinstance(other, Outer) or other.transposed != self.transposed:
            super().cross(other, out, fresh=fresh)
        elif self.positions == other.positions == 1:
            self._cross_single(other, out, fresh=fresh)
        elif entry_cost(self._rows(), other._rows()) <= pair_cost(self._rows(), other._rows()):
            super().cross(other, out, fresh=fresh)
        else:
            if fresh:
                out.zero_()
            add_pairs(self._rows(), other._rows(), out, symmetric=other is self)

    def _cross_single(self, other: Outer, out: Tensor, *, fresh: bool) -> None:
        """(x·x')(g·g') for one position."""
        xx = self.x[:, 0] @ other.x[:, 0].T
        left, right = by_sample(self.g), by_sample(other.g).T
        # One long run in memory for each row of out: much faster than a product in four dimensions.
        factors = xx.repeat_interleave(other.per_sample, 1)[:, None]
        shape = self.samples, self.per_sample, -1
        if fresh:
            torch.mm(left, right, out=out)
            out.view(shape).mul_(factors)
        else:
            out.view(shape).addcmul_((left @ right).view(shape), factors)

    def _rows(self) -> Rows:
        return Rows(self.x, self.g.transpose(0, 1), self._reach)

    def _like(self, x: Tensor, g: Tensor) -> Outer:
        return Outer(x, g, bias=self.bias, transposed=self.transposed)

    def _trimmed(self, used: Tensor) -> Outer:
        """Only the used positions (s, P) of each sample, in order."""
        longest = max(1, int(used.sum(1).max()))
        if longest == self.positions:
            return self
        index = used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]
        x = self.x.gather(1, index[..., None].expand(-1, -1, self.ins))
        by_samples = self.g.transpose(0, 1)
        places = index[:, None, :, None].expand(-1, self.per_sample, -1, self.outs)
        return self._like(x, by_samples.gather(2, places).transpose(0, 1))

    def _split(self, touched: Tensor) -> Split | None:
        """Runs of rows that share their only position as samples of their own."""
        by_samples = touched.transpose(0, 1)  # (s, k, P)
        if bool((by_samples.sum(-1) > 1).any()):
            return None
        places = torch.where(by_samples.any(-1), by_samples.to(torch.uint8).argmax(-1), -1)
        run = divisor(places)
        own = torch.unflatten(places, 1, (-1, run)).amax(-1).clamp_min(0)  # (s, k / run)
        x = self.x.gather(1, own[..., None].expand(-1, -1, self.ins))
        index = own.repeat_interleave(run, 1)[:, :, None, None].expand(-1, -1, 1, self.outs)
        g = self.g.transpose(0, 1).gather(2, index).view(-1, run, 1, self.outs)
        part = self._like(x.reshape(-1, 1, self.ins), g.transpose(0, 1))
        return Split(part, self.per_sample // run)

    def _matrix(self, v: Tensor) -> Tensor:
        """Columns (width, c) as matrices (out, in, c)."""
        ins = self.ins - self.bias
        w = v[: ins * self.outs]
        if self.transposed:
            w = w.reshape(ins, self.outs, -1).transpose(0, 1)
        else:
            w = w.reshape(self.outs, ins, -1)
        return torch.cat([w, v[-self.outs :, None]], 1) if self.bias else w

    def _weight_columns(self, start: int, stop: int) -> Tensor:
        """Entries of the weight in the order of its columns."""
        ins = self.ins - self.bias
        inner_size = self.outs if self.transposed else ins
        first, last = start // inner_size, -(-stop // inner_size)
        g, x = (
            (self.g, self.x[..., first:last])
            if self.transposed
            else (self.g[..., first:last], self.x[..., :ins])
        )
        product = torch.matmul(g.permute(1, 0, 3, 2).flatten(1, 2), x)  # (s, k · out, in)
        full = torch.unflatten(product, 1, (self.per_sample, -1)).transpose(0, 1)
        flat = (full.transpose(2, 3) if self.transposed else full).flatten(2)
        return flat.narrow(2, start - first * inner_size, stop - start)


def _touched(g: Tensor) -> Tensor:
    """Where gradients (k, s, P, out) are not zero: (k, s, P)."""
    return g.any(-1)


def _padded(t: Tensor, extra: int) -> Tensor:
    """More positions, all zero, after those of the last but one dimension."""
    return torch.nn.functional.pad(t, (0, 0, 0, extra)) if extra else t


def combine(factors: Sequence[Outer]) -> Outer:
    """The sum of several uses of one weight: their positions side by side."""
    first = factors[0]
    x = torch.cat([f.x for f in factors], 1)
    return first._like(x, torch.cat([f.g for f in factors], 2))
