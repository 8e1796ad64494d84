"""Claims: directions that a reason says are null, still to be verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array

from lightlike.geometry.symmetry.tracing import FROZEN, Floats, Ints, Trace
from lightlike.problem.parameters import Selection

Part = tuple[Ints, Ints, Floats]


@dataclass(frozen=True, eq=False)
class Claim:
    """Directions of one kind in one place.

    Attributes:
        kind: A short fixed phrase.
        where: Names of the layers.
        directions: Columns (D, k).
    """

    kind: str
    where: str
    directions: csc_array


def assemble(trace: Trace, parts: Sequence[Part], count: int) -> tuple[csc_array, NDArray[np.bool]]:
    """Generators from what each use of parameters asks of them.

    A parameter that several calls use must be changed in the way that each of them asks for; and a
    frozen parameter, or one with a use that is not understood, not at all.

    Args:
        trace: Whose parameters these are.
        parts: For each use, coordinates, numbers of generators and entries; repeated ones add up.
        count: Number of generators.

    Returns:
        The generators (D, count), and a mask of those that satisfy all uses.
    """
    size = trace.selection.size
    valid = np.ones(count, dtype=np.bool)
    total = csc_array((size, count))
    shared = trace.touched > 1
    found = []
    for place, generator, values in parts:
        # One more row for frozen parameters, which stands last.
        rows = np.where(place == FROZEN, size, place)
        entries = coo_array((values, (rows, generator)), (size + 1, count)).tocsc()
        scale = float(np.abs(values).max()) if len(values) else 0.0
        entries.data[np.abs(entries.data) <= 1e-14 * scale] = 0.0
        entries.eliminate_zeros()
        coordinates = entries.tocoo()
        bad = (coordinates.row == size) | np.append(trace.opaque, False)[coordinates.row]
        valid[coordinates.col[bad]] = False
        entries = csc_array(entries[:size])
        total = total + entries
        if shared.any():
            found.append((place, entries))
    if shared.any():
        weights = np.maximum(trace.touched, 1)
        total = csc_array(total.multiply((1.0 / weights)[:, None]))
        covered = np.zeros(size, dtype=np.int64)
        for place, entries in found:
            mine = np.unique(place[place != FROZEN])
            covered[mine] += 1
            mine = mine[shared[mine]]
            apart = (entries[mine] - total[mine]).tocoo()
            bad = np.abs(apart.data) > 1e-12 * max(1e-300, float(np.abs(total.data).max(initial=0)))
            valid[apart.col[bad]] = False
        # A use that asks for nothing asks for no change.
        missing = np.flatnonzero(shared & (covered < trace.touched))
        valid[csc_array(total[missing]).tocoo().col] = False
    return csc_array(total), valid


def by_layers(
    kind: str, directions: csc_array, selection: Selection, tags: Sequence[object] | None = None
) -> Iterator[Claim]:
    """One claim for each set of layers that directions touch, in the model's order.

    Args:
        kind: Of all.
        directions: Columns (D, k); those without an entry are dropped.
        selection: Names of layers.
        tags: What else keeps columns apart.
    """
    names = list(selection.layers())
    layer_of = np.concatenate([np.full(e.size, names.index(e.layer)) for e in selection.entries])
    groups: dict[tuple[object, tuple[int, ...]], list[int]] = {}
    for column in range(directions.shape[1]):
        rows = directions.indices[directions.indptr[column] : directions.indptr[column + 1]]
        if len(rows):
            key = tuple(np.unique(layer_of[rows]).tolist())
            groups.setdefault((tags[column] if tags else None, key), []).append(column)
    for (_, key), columns in sorted(groups.items(), key=lambda item: item[0][1]):
        where = " → ".join(names[i] or "the model's own parameters" for i in key)
        yield Claim(kind, where, csc_array(directions[:, columns]))
