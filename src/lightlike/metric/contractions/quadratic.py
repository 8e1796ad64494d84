"""Quadratic forms a_iᵀ M a_i in every column a_i of rows that are outer products.

Row c of sample n is Σ_p g_ncp x_npᵀ. With M symmetric over all rows (n, c), the form of the column
(o, i) factors over positions (n, p):

    Σ x_npi x_n'p'i S_o[np, n'p'],    S_o[np, n'p'] = Σ_cc' g_ncpo M[nc, n'c'] g_n'c'p'o,

so that sums over pairs of rows are made once for all inputs i: of k rows a sample at one position,
1/k² of the multiplications that columns written out would take. S is symmetric, so half of it is
enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightlike.metric.contractions.outer import Outer

# Positions of a strip of S and of a tile of it, small enough to stay in the caches.
STRIP, TILE = 48, 12


def form_cost(rows: int, positions: int, outs: int, ins: int) -> float:
    """Multiplications of `quadratic_forms`; those of small products and sums count fourfold.

    Args:
        rows: K.
        positions: N P, over all samples.
        outs: Outputs of the weight.
        ins: Inputs, with the ones of a bias.
    """
    each = max(1.0, positions / max(1, rows))
    small = rows * positions * outs + each * rows * rows * outs
    return 2.0 * small + 0.5 * float(positions) ** 2 * outs * ins


def quadratic_forms(pieces: Sequence[tuple[slice, Outer]], matrix: Tensor) -> Tensor:
    """All columns' forms, (width,), as the columns of the unit are ordered.

    Args:
        pieces: Rows of A, and the samples that they belong to; all of one form.
        matrix: M, symmetric, (K, K).
    """
    runs = [run for rows, factor in pieces for run in _cut(rows, factor, TILE)]
    first = pieces[0][1]
    found = matrix.new_zeros(first.outs, first.ins)
    inputs = torch.cat([factor.x.reshape(-1, factor.ins) for _, factor in runs])
    widths = [factor.samples * factor.positions for _, factor in runs]
    per = max(1, STRIP // max(1, max(widths)))
    for start in range(0, len(runs), per):
        mine = range(start, min(start + per, len(runs)))
        stop = sum(widths[: mine[-1] + 1])
        height = sum(widths[i] for i in mine)
        strip = matrix.new_zeros(first.outs, height, stop)
        top = 0
        for i in mine:
            left = 0
            for j in range(i + 1):
                tile = _tile(matrix, runs[i], runs[j])
                # Of what is above the diagonal the mirror image counts.
                target = strip[:, top : top + widths[i], left : left + widths[j]]
                torch.mul(tile.movedim(-1, 0), 1.0 if i == j else 2.0, out=target)
                left += widths[j]
            top += widths[i]
        images = (strip.view(-1, stop) @ inputs[:stop]).view(first.outs, height, -1)
        found += torch.einsum("oni,ni->oi", images, inputs[stop - height : stop])
    weight = found[:, : first.ins - first.bias]
    flat = (weight.T if first.transposed else weight).reshape(-1)
    return torch.cat([flat, found[:, -1]]) if first.bias else flat


def _tile(matrix: Tensor, mine: tuple[slice, Outer], theirs: tuple[slice, Outer]) -> Tensor:
    """S between two runs of samples, (n p, n' p', out)."""
    (rows, left), (columns, right) = mine, theirs
    inner = matrix[rows, columns].view(rows.stop - rows.start, right.samples, -1)
    # Sample by sample on the right: (n', n c, c') times (n', c', p' out).
    product = torch.bmm(inner.transpose(0, 1), right.g.transpose(0, 1).flatten(2))
    shape = right.samples, left.samples, left.per_sample, 1, right.positions, left.outs
    g = left.g.transpose(0, 1)[None, :, :, :, None]  # (1, n, c, p, 1, out)
    summed = (product.view(shape) * g).sum(2)  # (n', n, p, p', out)
    summed = summed.permute(1, 2, 0, 3, 4)
    return summed.reshape(left.samples * left.positions, -1, left.outs)


def _cut(rows: slice, factor: Outer, positions: int) -> list[tuple[slice, Outer]]:
    """A factor cut into runs of samples with at most about so many positions."""
    step, k = max(1, positions // max(1, factor.positions)), factor.per_sample
    return [
        (
            slice(rows.start + k * start, rows.start + k * min(start + step, factor.samples)),
            factor.narrow(start, min(step, factor.samples - start)),
        )
        for start in range(0, factor.samples, step)
    ]
