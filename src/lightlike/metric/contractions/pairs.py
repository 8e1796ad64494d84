"""Inner products Σ_pq (x_p·x'_q)(g_p·g'_q) of outer products over several positions.

For two samples the activation Gram matrix X = x x'ᵀ (P × Q) is shared by all their rows. It mixes
the positions of one side, M_q = Σ_p X_pq g_p, and what remains is Σ_q M_q·g'_q, one matrix product.
In causal models a row reaches positions up to its own only. For rows with reaches h ≤ h' the sum
needs the first h positions if the farther-reaching side is the mixed one: a third of the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of a block with one reach: enough for matrix products at full speed.
BLOCK_ROWS = 96
# Rows a sample from which products of single pairs of samples run at full speed.
MANY_ROWS = 64
# Entries of a mixed block that stays in the caches, and of one that stays small in memory.
CACHED, HELD = 24_576, 1 << 22
# Time of a multiplication in units of one in a large product: mixing moves as much as it
# multiplies, and so do small products.
MIXING, SMALL, LARGE = 3.0, 3.0, 1.2


@dataclass(frozen=True)
class Rows:
    """Outer products of samples, laid out sample by sample.

    Attributes:
        x: Activations (s, P, in).
        g: Back-propagated rows (s, k, P, out).
        reach: For each of the k rows, the number of positions up to the last that it reaches in
            any sample; None if all reach the end.
    """

    x: Tensor
    g: Tensor
    reach: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.g.shape[0] * self.g.shape[1]

    def blocks(self) -> list[tuple[slice, int]]:
        """Runs of each sample's rows and how far they reach."""
        k, positions = self.g.shape[1:3]
        if self.reach is None or k < MANY_ROWS:
            return [(slice(0, k), positions)]
        step = -(-k // max(1, k // BLOCK_ROWS))
        runs = [slice(a, min(a + step, k)) for a in range(0, k, step)]
        return [(run, max(1, *self.reach[run])) for run in runs]


def reach(touched: Tensor) -> tuple[int, ...] | None:
    """How far each row reaches in any sample, from the positions (k, s, P) that are not zero."""
    positions = touched.shape[-1]
    ends = torch.arange(1, positions + 1, device=touched.device)
    farthest = (touched.any(1) * ends).amax(-1)
    if float(farthest.double().mean()) > 0.9 * positions:
        return None
    return tuple(farthest.tolist())


def entry_cost(mine: Rows, theirs: Rows | None = None) -> float:
    """Weighted multiplications to write out the weight gradients of two sides and multiply them."""
    theirs = theirs or mine
    width = mine.x.shape[-1] * mine.g.shape[-1]
    written = mine.count * mine.g.shape[2] + theirs.count * theirs.g.shape[2]
    return width * (MIXING * written + float(mine.count) * theirs.count)


def pair_cost(mine: Rows, theirs: Rows | None = None) -> float:
    """Weighted multiplications by pairs of positions."""
    theirs = theirs or mine
    s, k, p, outs = mine.g.shape
    t, k2, q, _ = theirs.g.shape
    gram = float(s) * t * p * q * mine.x.shape[-1]
    mixing = float(s) * t * p * q * outs * k
    large = min(k, k2) >= MANY_ROWS
    final, share = float(s) * t * k * k2 * q * outs, 1.0
    if large and (mine.reach is not None or theirs.reach is not None):
        left, right = mine.blocks(), theirs.blocks()
        share = sum(min(a, b) for _, a in left for _, b in right) / (len(left) * len(right) * q)
        mixing *= 2
    return gram + MIXING * mixing + (LARGE if large else SMALL) * final * share


def add_pairs(mine: Rows, theirs: Rows, out: Tensor, *, symmetric: bool) -> None:
    """Add all inner products to out (s k, s' k'); the lower triangle is enough if symmetric."""
    tile = out.view(*mine.g.shape[:2], *theirs.g.shape[:2])
    if min(mine.g.shape[1], theirs.g.shape[1]) >= MANY_ROWS:
        for i in range(mine.g.shape[0]):
            for j in range(i + 1 if symmetric else theirs.g.shape[0]):
                same = symmetric and i == j
                _add_sample_pair(mine, i, theirs, j, tile[i, :, j], symmetric=same)
    else:
        _add_samples(mine, theirs, tile, symmetric=symmetric)


def _add_samples(mine: Rows, theirs: Rows, tile: Tensor, *, symmetric: bool) -> None:
    """One of my samples against all of theirs, some output units at a time."""
    s, k, p, outs = mine.g.shape
    t, k2, q, _ = theirs.g.shape
    step = min(outs, max(16, CACHED // (max(k, k2) * q)))
    starts = range(0, outs, step)
    right = [theirs.g[..., a : a + step].reshape(t, k2, -1).transpose(1, 2) for a in starts]
    for i in range(s):
        few = i + 1 if symmetric else t
        xx = theirs.x[:few].reshape(few * q, -1) @ mine.x[i].T
        total = xx.new_zeros(few, k, k2)
        for a, columns in zip(starts, right, strict=True):
            g = mine.g[i, :, :, a : a + step].transpose(0, 1)  # (P, k, step)
            mixed = (xx @ g.reshape(p, -1)).view(few, q, k, -1).transpose(1, 2)
            total.baddbmm_(mixed.reshape(few, k, -1), columns[:few])
        tile[i, :, :few] += total.transpose(0, 1)


def _add_sample_pair(
    mine: Rows, i: int, theirs: Rows, j: int, out: Tensor, *, symmetric: bool
) -> None:
    """Two samples with many rows each, in blocks of rows that reach equally far."""
    g, g2, xx = mine.g[i], theirs.g[j], mine.x[i] @ theirs.x[j].T
    left, right = mine.blocks(), theirs.blocks()
    outs = g.shape[-1]
    step = max(1, HELD // (max(len(g), len(g2)) * max(xx.shape)))
    for a in range(0, outs, step):
        part, part2 = g[..., a : a + step].contiguous(), g2[..., a : a + step].contiguous()
        mixed = torch.bmm(xx.T.expand(len(part), -1, -1), part)  # (k, Q, step)
        mixed2 = None
        for n, (rows, far) in enumerate(left):
            for columns, far2 in right[: n + 1] if symmetric else right:
                if far2 <= far or (len(left) == len(right) == 1):
                    one, two, length = mixed[rows], part2[columns], far2
                else:
                    if mixed2 is None:
                        mixed2 = torch.bmm(xx.expand(len(part2), -1, -1), part2)  # (k', P, step)
                    one, two, length = part[rows], mixed2[columns], far
                one, two = one[:, :length].flatten(1), two[:, :length].flatten(1)
                out[rows, columns].addmm_(one, two.T)
