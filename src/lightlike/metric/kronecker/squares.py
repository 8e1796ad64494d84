"""The diagonal of the Fisher matrix from factored rows: Σ over rows of each column's squares."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from lightlike.metric.contractions import Dense, Factor, Grouped, Lookup, Outer, Split, Total
from lightlike.metric.contractions.factor import CHUNK, Weighted, strips


def squares(factor: Factor) -> Tensor:
    """Sums over all rows of the squares of each column, (width,)."""
    if isinstance(factor, Dense):
        return factor.rows.square().sum((0, 1))
    if isinstance(factor, Grouped):
        return torch.cat([squares(part) for part in factor.parts])
    if isinstance(factor, Weighted):
        return squares(factor.inner) * factor.weights.square()
    if isinstance(factor, Split):
        return squares(factor.finer)
    if isinstance(factor, Total):
        # (a + b)² = a² + b² + 2 a b
        own = torch.stack([squares(part) for part in factor.parts]).sum(0)
        return own + 2 * sum(products(a, b) for a, b in combinations(factor.parts, 2))
    if isinstance(factor, Lookup):
        return _of_table(factor)
    if isinstance(factor, Outer):
        return _of_outer(factor)
    return torch.cat([strip.square().sum((0, 1)) for strip in strips(factor)])


def products(a: Factor, b: Factor) -> Tensor:
    """Sums over all rows of the products of each column's entries in two factors, (width,)."""
    if isinstance(b, Lookup) and isinstance(a, Outer):
        a, b = b, a
    if isinstance(a, Lookup) and isinstance(b, Outer) and not b.transposed and not b.bias:
        return _at_tokens(a, b)
    rows = a.per_sample * a.samples
    step = max(1, CHUNK // max(1, rows))
    a, b = a.settled(), b.settled()
    ends = [(start, min(start + step, a.width)) for start in range(0, a.width, step)]
    return torch.cat([(a.columns(*end) * b.columns(*end)).sum((0, 1)) for end in ends])


def _of_outer(factor: Outer) -> Tensor:
    """Of outer products, by whatever is cheapest."""
    lean = factor.settled()
    if not isinstance(lean, Outer):
        return squares(lean)
    if lean.positions == 1:
        # Σ_s (Σ_k g²) x²
        g, x = lean.g[:, :, 0].square().sum(0), lean.x[:, 0].square()
        return _flat(lean, g.T @ x)
    if lean.positions * (lean.per_sample + lean.ins) < lean.per_sample * lean.ins:
        return _flat(lean, _by_pairs(lean))
    return torch.cat([strip.square().sum((0, 1)) for strip in strips(lean)])


def _by_pairs(factor: Outer) -> Tensor:
    """Σ_s Σ_pq (Σ_k g_kpo g_kqo) x_pi x_qi, (out, in): fewer products with many rows a sample."""
    out = factor.g.new_zeros(factor.outs, factor.ins)
    step = max(1, CHUNK // (factor.positions * max(factor.positions, factor.ins)))
    for x, g in zip(factor.x, factor.g.transpose(0, 1), strict=True):
        for start in range(0, factor.outs, step):
            mine = g[..., start : start + step].permute(2, 1, 0)  # (o, P, k)
            out[start : start + step] += (((mine @ mine.mT) @ x) * x).sum(1)
    return out


def _flat(factor: Outer, m: Tensor) -> Tensor:
    """Entries (out, in) in the order of the columns."""
    weight = m[:, :-1] if factor.bias else m
    flat = (weight.T if factor.transposed else weight).reshape(-1)
    return torch.cat([flat, m[:, -1]]) if factor.bias else flat


def _of_table(factor: Lookup) -> Tensor:
    """Of rows of a table, whose places in a sample are added up before they are squared."""
    out = factor.g.new_zeros(factor.size, factor.depth)
    # Places of one sample with the same token are one.
    samples = torch.arange(factor.samples, device=factor.g.device)[:, None]
    keys, place = torch.unique(
        (factor.tokens * factor.samples + samples).reshape(-1), return_inverse=True
    )
    sums = factor.g.new_zeros(len(keys), factor.per_sample, factor.depth)
    sums.index_add_(0, place, factor.g.permute(1, 2, 0, 3).flatten(0, 1))
    out.index_add_(0, keys // factor.samples, sums.square().sum(1))
    return out.reshape(-1)


def _at_tokens(table: Lookup, layer: Outer) -> Tensor:
    """Of a table that is a layer's weight too: only the tokens' rows of the weight meet."""
    out = table.g.new_zeros(table.size, table.depth)
    for i, tokens in enumerate(table.tokens):
        # Row t_p of Σ_q h_q x_qᵀ, for every place p of the sample.
        read = layer.g[:, i][..., tokens].mT @ layer.x[i]  # (k, P, d)
        out.index_add_(0, tokens, (table.g[:, i] * read).sum(0))
    return out.reshape(-1)
