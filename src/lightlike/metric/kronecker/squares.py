"""The diagonal of the Fisher matrix from factored rows: Σ over rows of each column's squares."""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.metric.contractions import Dense, Factor, Grouped, Lookup, Outer
from lightlike.metric.contractions.factor import Weighted, strips


def squares(factor: Factor) -> Tensor:
    """Sums over all rows of the squares of each column, (width,)."""
    if isinstance(factor, Dense):
        return factor.rows.square().sum((0, 1))
    if isinstance(factor, Grouped):
        return torch.cat([squares(part) for part in factor.parts])
    if isinstance(factor, Weighted):
        return squares(factor.inner) * factor.weights.square()
    if isinstance(factor, Lookup):
        return _of_table(factor)
    if isinstance(factor, Outer) and factor.positions == 1:
        return _of_products(factor)
    return torch.cat([strip.square().sum((0, 1)) for strip in strips(factor)])


def _of_products(factor: Outer) -> Tensor:
    """Of single outer products g xᵀ: Σ_s (Σ_k g²) x²."""
    g, x = factor.g[:, :, 0].square().sum(0), factor.x[:, 0].square()
    m = g.T @ x  # (out, in)
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
