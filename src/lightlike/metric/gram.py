"""The Gram matrix A Aᵀ (K × K), layer by layer, without A.

Units whose entries are cheapest to multiply are written out some columns at a time, for all rows,
and added by one symmetric product. The others' inner products are summed over pairs of tiles of
rows, in their place in the result while it is in the caches; only pairs on or below the diagonal
are computed.

Factors in float32 are multiplied in float32, strip by strip and unit by unit, and these products
summed in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor

from lightlike.metric.blocks import Block
from lightlike.metric.contractions.factor import by_sample
from lightlike.metric.units import Unit

# Rows of a tile: large enough for matrix products to run at full speed, small enough to leave
# little of the diagonal tiles' upper halves computed in vain, and to stay in the caches.
TILE_ROWS = 512
# Bytes of the columns that are written out at a time, and the fewest columns worth a product.
STRIP, NARROW = 32 << 20, 256
# Rows of a result in float64 that products in float32 are added to at a time.
PANEL = 512


class Steps:
    """Follows the steps of a Gram matrix; this one only lets them pass.

    Attributes:
        written: Whether all strips of this pass were added before.
        touched: Whether anything was added in this pass before.
    """

    written: bool = False
    touched: bool = False

    def strips(self, strips: Iterable[Tensor], traces: dict[Unit, float]) -> Iterator[Tensor]:  # noqa: ARG002
        """The strips that have yet to be added; each is added when the next is asked for."""
        yield from strips

    def pairs(
        self,
        pairs: Sequence[tuple[int, int]],
        rows: Sequence[slice],  # noqa: ARG002
        traces: dict[Unit, float],  # noqa: ARG002
    ) -> Iterator[tuple[int, int]]:
        """The pairs of tiles that have yet to be added.

        Args:
            pairs: All, in order.
            rows: Of each tile.
            traces: Of the units; those of steps that were done before are put in.
        """
        yield from pairs


def add_gram(
    blocks: Sequence[Block],
    units: Sequence[Unit],
    out: Tensor,
    *,
    first: bool,
    last: bool,
    dtype: torch.dtype = torch.float64,
    steps: Steps | None = None,
) -> dict[Unit, float]:
    """Add the units' inner products between all rows to the lower triangle of out (K, K).

    Args:
        blocks: All rows, with the units' factors.
        units: The units to add.
        out: The matrix; uninitialised before the first pass.
        first: Whether nothing has been written to it yet.
        last: Whether nothing will be added any more: then the upper triangle is filled in.
        dtype: Of the factors.
        steps: What follows the steps, and knows which were done before; None if none were.

    Returns:
        What each unit adds to the trace.
    """
    traces = dict.fromkeys(units, 0.0)
    steps = Steps() if steps is None else steps
    written = [unit for unit in units if _is_written(blocks, unit)]
    if written and not steps.written:
        first = first and not steps.touched
        for strip in steps.strips(_strips(blocks, written, len(out), traces), traces):
            add_square(strip.T, out, fresh=first)
            first = False
    first = first and not written
    rest = [unit for unit in units if unit not in written]
    if rest or first:
        _add_tiles(blocks, rest, out, traces, steps, first=first, last=last, dtype=dtype)
    elif last:
        mirror(out)
    return traces


def _add_tiles(
    blocks: Sequence[Block],
    units: Sequence[Unit],
    out: Tensor,
    traces: dict[Unit, float],
    steps: Steps,
    *,
    first: bool,
    last: bool,
    dtype: torch.dtype,
) -> None:
    tiles: list[tuple[slice, Block]] = []
    start = 0
    for block in blocks:
        only = {unit: block.factors[unit] for unit in units if unit in block.factors}
        for part in Block(block.samples, block.per_sample, only, block.keep).tiles(TILE_ROWS):
            tiles.append((slice(start, start + part.rows), part))
            start += part.rows
    pairs = [(i, j) for i in range(len(tiles)) for j in range(i + 1)]
    for i, j in steps.pairs(pairs, [rows for rows, _ in tiles], traces):
        (rows, mine), (columns, theirs) = tiles[i], tiles[j]
        target = out[rows, columns]
        noted = traces if theirs is mine else None
        if mine.keep is None and theirs.keep is None and dtype == out.dtype:
            add_tile(mine, theirs, units, target, noted, fresh=first)
        else:
            height, width = mine.samples * mine.per_sample, theirs.samples * theirs.per_sample
            tile = out.new_empty(height, width, dtype=dtype)
            # In lower precision each unit alone, so that the sum over units is not rounded.
            apart: list[Sequence[Unit]] = [[unit] for unit in units]
            fresh = first
            for run in [units] if dtype == out.dtype or not units else apart:
                add_tile(mine, theirs, run, tile, noted, fresh=True)
                counted = theirs.kept(mine.kept(tile).T).T
                target.copy_(counted) if fresh else target.add_(counted)
                fresh = False
        if last and theirs is mine:
            mirror(target)
        elif last:
            # Now, while the tile is in the caches.
            out[columns, rows] = target.T


def add_tile(
    mine: Block,
    theirs: Block,
    units: Sequence[Unit],
    out: Tensor,
    traces: dict[Unit, float] | None,
    *,
    fresh: bool,
) -> None:
    """Write (fresh) or add the units' inner products between the rows of two blocks to out.

    What each adds to the diagonal is added to `traces`, if given.
    """
    before = 0.0 if fresh or traces is None else _diagonal(out)
    for unit in units:
        left, right = mine.factors.get(unit), theirs.factors.get(unit)
        if left is not None and right is not None:
            left.cross(right, out, fresh=fresh)
            fresh = False
            if traces is not None:
                after = _diagonal(out)
                traces[unit] += after - before
                before = after
    if fresh:
        out.zero_()


def _diagonal(tile: Tensor) -> float:
    return float(tile.diagonal().sum(dtype=torch.float64))


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


def add_square(rows: Tensor, out: Tensor, *, fresh: bool = False) -> None:
    """Add rowsᵀ rows to the lower triangle of out, which is half the work of a product.

    Args:
        rows: (n, size); fastest if its transpose is contiguous.
        out: (size, size); overwritten if fresh. It may be of higher precision than the rows.
        fresh: Whether there is nothing to add to.
    """
    if rows.dtype != out.dtype:
        for start in range(0, len(out), PANEL):
            stop = min(start + PANEL, len(out))
            panel, product = out[start:stop, :stop], rows[:, start:stop].T @ rows[:, :stop]
            panel.copy_(product) if fresh else panel.add_(product)
        return
    if rows.device.type != "cpu":
        torch.addmm(out, rows.T, rows, beta=0 if fresh else 1, out=out)
        return
    # BLAS is column-major: a row-major matrix's lower triangle is its upper one there, and the
    # transpose of a contiguous matrix is as good as a contiguous one.
    target, beta = out.numpy().T, 0.0 if fresh else 1.0
    if rows.T.is_contiguous():
        result = dsyrk(1.0, rows.numpy(), trans=1, beta=beta, c=target, overwrite_c=1)
    else:
        result = dsyrk(1.0, rows.contiguous().numpy().T, beta=beta, c=target, overwrite_c=1)
    if not np.shares_memory(result, target):
        out.copy_(torch.from_numpy(result.T))


def _is_written(blocks: Sequence[Block], unit: Unit) -> bool:
    found = [block.factors[unit] for block in blocks if unit in block.factors]
    return bool(found) and all(factor.written for factor in found)


def _strips(
    blocks: Sequence[Block], units: Sequence[Unit], rows: int, traces: dict[Unit, float]
) -> Iterator[Tensor]:
    """All rows' entries on the units' columns, (K, some) at a time; notes their squares.

    All strips lie in the same memory: one is over when the next is asked for.
    """
    limit = max(NARROW, STRIP // (8 * max(1, rows)))
    # Of a sample of columns a factor has fewer than the unit.
    like = {u: next(b.factors[u] for b in blocks if u in b.factors) for u in units}
    widths = {unit: factor.width for unit, factor in like.items()}
    widest = min(limit, sum(widths.values()))
    buffer = like[units[0]].columns(0, 1).new_empty(rows * widest)
    for pieces in _runs(widths, limit):
        width = sum(stop - start for _, start, stop in pieces)
        strip = buffer[: rows * width].view(rows, width)
        at = 0
        for unit, start, stop in pieces:
            part = strip[:, at : at + stop - start]
            _write(blocks, unit, start, stop, part)
            traces[unit] += float(torch.linalg.vector_norm(part)) ** 2
            at += stop - start
        yield strip


def _runs(widths: Mapping[Unit, int], limit: int) -> Iterator[list[tuple[Unit, int, int]]]:
    """The units' columns in order, as pieces (unit, start, stop) of at most `limit` together."""
    held: list[tuple[Unit, int, int]] = []
    width = 0
    for unit, total in widths.items():
        for start in range(0, total, limit):
            stop = min(start + limit, total)
            if held and width + stop - start > limit:
                yield held
                held, width = [], 0
            held.append((unit, start, stop))
            width += stop - start
    if held:
        yield held


def _write(blocks: Sequence[Block], unit: Unit, start: int, stop: int, out: Tensor) -> None:
    """Write all rows' entries on some columns of a unit to out (K, stop − start)."""
    top = 0
    for block in blocks:
        target = out[top : top + block.rows]
        factor = block.factors.get(unit)
        if factor is None:
            target.zero_()
        elif block.keep is None:
            by_samples = target.view(block.samples, block.per_sample, -1)
            factor.write(start, stop, by_samples.transpose(0, 1))
        else:
            target.copy_(block.kept(by_sample(factor.columns(start, stop))))
        top += block.rows
