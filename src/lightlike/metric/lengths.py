"""Squared lengths of the rows of Aᵀ C, the diagonal of Aᵀ C Cᵀ A, without these rows.

Where a unit's rows of A are outer products, it comes from M = C Cᵀ by `quadratic_forms`; elsewhere
the rows are made, some columns of C at a time, and summed up, whichever is less work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.linalg.lapack import dlauum
from torch import Tensor

from lightlike.metric.contractions import Outer
from lightlike.metric.contractions.quadratic import form_cost, quadratic_forms
from lightlike.metric.contractions.split import inner
from lightlike.metric.gram import add_square, mirror
from lightlike.metric.root import Root
from lightlike.metric.units import Unit
from lightlike.spectrum.memory import available_memory

# Columns of C that are taken at a time.
WIDTH = 256
# Coordinates, longest and drawn ones, whose forms are held against the rows themselves.
PROBES = 16


def squared_lengths(root: Root, C: Tensor, tolerance: float) -> Tensor:
    """Those of all D rows, (D,).

    Rounding of M moves a form by up to eps ‖a_i‖² ‖M‖, which is more than that of the rows where
    C's columns cancel. So forms of the longest a_i, for which it is largest, and of some others are
    held against their rows; units where one is off by more than the tolerance take the rows.

    Args:
        root: A, (K, D).
        C: (K, c).
        tolerance: Absolute.
    """
    found = C.new_zeros(root.shape[1])
    formed = _formed(root, C) if _roomy(root, C) else {}
    if formed:
        matrix = outer_square(C)
        for unit, pieces in formed.items():
            _place(unit, quadratic_forms(pieces, matrix), found)
        del matrix
        formed = _held(root, C, found, formed, tolerance)
    rest = [unit for unit in root.units if unit not in formed]
    if rest:
        for unit in rest:
            _place(unit, found.new_zeros(unit.width), found)
        _add_rows(root, C, rest, found)
    return found if root.weights is None else found * root.weights.square()


Pieces = list[tuple[slice, Outer]]


def outer_square(C: Tensor) -> Tensor:
    """M = C Cᵀ, symmetric to the bit; a third of the work where C is upper triangular."""
    if C.device.type == "cpu" and C.shape[0] == C.shape[1] and not bool(C.tril(-1).any()):
        product, _ = dlauum(C.numpy(), lower=0)
        # Its transpose in memory is our order, with the product in the lower triangle.
        return mirror(torch.from_numpy(product.T).contiguous())
    matrix = C.new_zeros(len(C), len(C))
    add_square(C.T, matrix, fresh=True)
    return mirror(matrix)


def _roomy(root: Root, C: Tensor) -> bool:
    """Whether M and the factors of all rows at once are little of what memory there is."""
    held = sum(unit.held for unit in root.units if unit.contracted)
    return 8.0 * len(C) * (len(C) + held) <= 0.25 * available_memory()


def _formed(root: Root, C: Tensor) -> dict[Unit, Pieces]:
    """The units whose forms are less work than their rows, with all of their factors."""
    pieces: dict[Unit, Pieces] = {unit: [] for unit in root.units}
    start = 0
    for block in root.blocks("Leverages"):
        rows = slice(start, start + block.rows)
        start = rows.stop
        for unit, factor in block.factors.items():
            part = inner(factor.settled())
            # Rows of ignored observations would have to be put in.
            if isinstance(part, Outer) and block.keep is None and unit in pieces:
                pieces[unit].append((rows, part))
            else:
                pieces.pop(unit, None)
    return {unit: found for unit, found in pieces.items() if found and _cheaper(found, C)}


def _cheaper(pieces: Pieces, C: Tensor) -> bool:
    first = pieces[0][1]
    if any(part.form != first.form for _, part in pieces):
        return False
    positions = sum(part.samples * part.positions for _, part in pieces)
    each = float(len(C)) / positions
    rows = 1.0 * positions * first.outs * C.shape[1] * (first.ins + each)
    return form_cost(len(C), positions, first.outs, first.ins) < rows


def _held(
    root: Root, C: Tensor, found: Tensor, formed: dict[Unit, Pieces], tolerance: float
) -> dict[Unit, Pieces]:
    """The units whose forms agree with the rows on the coordinates that are tried."""
    random = torch.Generator().manual_seed(0)
    tried: dict[Unit, Tensor] = {}
    for unit, pieces in formed.items():
        squares = sum(_column_squares(part) for _, part in pieces)
        assert isinstance(squares, Tensor)
        some = min(PROBES, unit.width)
        longest = squares.topk(some).indices
        drawn = torch.randint(unit.width, (some,), generator=random).to(longest.device)
        places = torch.cat([torch.arange(e.start, e.stop) for e in unit.entries])
        tried[unit] = places.to(longest.device)[torch.cat([longest, drawn])]
    everywhere = torch.cat(list(tried.values()))
    plain = C.new_zeros(len(everywhere))
    for start in range(0, len(everywhere), WIDTH):
        part = everywhere[start : start + WIDTH]
        vectors = C.new_zeros(root.shape[1], len(part))
        scale = 1.0 if root.weights is None else 1.0 / root.weights[part]
        vectors[part, torch.arange(len(part), device=C.device)] = scale
        image = C.T @ root.mv(vectors)
        plain[start : start + len(part)] = image.square().sum(0)
    close = (found[everywhere] - plain).abs() <= tolerance
    parts = torch.split(close, [len(places) for places in tried.values()])
    return {unit: formed[unit] for unit, part in zip(tried, parts, strict=True) if bool(part.all())}


def _column_squares(factor: Outer) -> Tensor:
    """A bound on the squared norms of the columns, (width,): Σ_p Σ g² · Σ_p x²."""
    g, x = factor.g.square().sum((0, 2)), factor.x.square().sum(1)
    squares = g.T @ x
    weight = squares[:, : factor.ins - factor.bias]
    flat = (weight.T if factor.transposed else weight).reshape(-1)
    return torch.cat([flat, squares[:, -1]]) if factor.bias else flat


def _place(unit: Unit, values: Tensor, out: Tensor) -> None:
    """Write a unit's columns."""
    start = 0
    for entry in unit.entries:
        out[entry.start : entry.stop] = values[start : start + entry.size]
        start += entry.size


def _add_rows(root: Root, C: Tensor, units: Sequence[Unit], out: Tensor) -> None:
    """Add the squares of the units' rows of Aᵀ C."""
    for columns in torch.split(C, WIDTH, 1):
        pulled: dict[Unit, Tensor] = {}
        start = 0
        for block in root.blocks("Leverages"):
            inward, start = block.inward(columns[start : start + block.rows]), start + block.rows
            for unit in units:
                if (factor := block.factors.get(unit)) is not None:
                    part = factor.to(torch.float64).pull(inward)
                    pulled[unit] = pulled[unit] + part if unit in pulled else part
        for unit, part in pulled.items():
            unit.scatter(part.square().sum(1), out)
