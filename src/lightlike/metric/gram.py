"""The Gram matrix A Aᵀ (K × K), layer by layer, without A.

Rows are taken in tiles. For each pair of tiles the layers' inner products are summed in their place
in the result, while it is in the caches; only pairs on or below the diagonal are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from lightlike.metric.blocks import Block
from lightlike.metric.units import Unit

# Rows of a tile: large enough for matrix products to run at full speed, small enough to leave
# little of the diagonal tiles' upper halves computed in vain, and to stay in the caches.
TILE_ROWS = 512


def add_gram(blocks: Sequence[Block], units: Sequence[Unit], out: Tensor, *, first: bool) -> None:
    """Add the units' inner products between all rows to the lower triangle of out (K, K).

    Args:
        blocks: All rows, with the units' factors.
        units: The units to add.
        out: The matrix; uninitialised before the first pass.
        first: Whether nothing has been written to it yet.
    """
    tiles: list[tuple[slice, Block]] = []
    start = 0
    for block in blocks:
        for part in block.tiles(TILE_ROWS):
            tiles.append((slice(start, start + part.rows), part))
            start += part.rows
    for index, (rows, mine) in enumerate(tiles):
        for columns, theirs in tiles[: index + 1]:
            target = out[rows, columns]
            if mine.keep is None and theirs.keep is None:
                add_tile(mine, theirs, units, target, fresh=first)
                continue
            height, width = mine.samples * mine.per_sample, theirs.samples * theirs.per_sample
            tile = out.new_empty(height, width)
            add_tile(mine, theirs, units, tile, fresh=True)
            counted = theirs.kept(mine.kept(tile).T).T
            target.copy_(counted) if first else target.add_(counted)


def add_tile(
    mine: Block, theirs: Block, units: Sequence[Unit], out: Tensor, *, fresh: bool
) -> None:
    """Write (fresh) or add the units' inner products between the rows of two blocks to out."""
    for unit in units:
        left, right = mine.factors.get(unit), theirs.factors.get(unit)
        if left is not None and right is not None:
            left.cross(right, out, fresh=fresh)
            fresh = False
    if fresh:
        out.zero_()


def mirror(matrix: Tensor, step: int = 256) -> Tensor:
    """Copy the lower triangle of a square matrix to the upper one, in place, cache by cache."""
    n = len(matrix)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        corner = matrix[rows, rows]
        corner.copy_(corner.tril() + corner.tril(-1).T)
        for column in range(0, start, step):
            columns = slice(column, column + step)
            matrix[columns, rows] = matrix[rows, columns].T
    return matrix


def add_square(rows: Tensor, out: Tensor) -> None:
    """Add rowsᵀ rows to the lower triangle of out (D, D), which is half the work of a product."""
    if rows.device.type != "cpu":
        out.addmm_(rows.T, rows)
        return
    # BLAS is column-major: a row-major matrix's lower triangle is its upper one there.
    target = out.numpy().T
    result = dsyrk(1.0, rows.contiguous().numpy().T, beta=1.0, c=target, overwrite_c=1)
    if not np.shares_memory(result, target):
        out.copy_(torch.from_numpy(result.T))


def passes(units: Sequence[Unit], rows: int, budget: int) -> list[list[Unit]]:
    """Split units into passes over the data whose factors for all rows fit in a budget of bytes.

    Units with a contraction come first, apart from the others, so that the quick way of
    back-propagating them is not held up by those without.
    """
    groups: list[list[Unit]] = []
    for contracted in (True, False):
        used = budget + 1
        for unit in units:
            if unit.contracted != contracted:
                continue
            size = 8 * rows * unit.held
            if used + size > budget:
                groups.append([])
                used = 0
            groups[-1].append(unit)
            used += size
    return groups
