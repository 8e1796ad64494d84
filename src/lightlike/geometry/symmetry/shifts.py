"""Constants that one bias gains and later ones lose."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array, eye_array

from lightlike.geometry.symmetry.claims import Claim, Part, assemble, by_layers
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.tracing import FIXED, Classes, Ints, Trace, Use


def claim_shifts(scene: Scene) -> Iterator[Claim]:
    """For each bias: raised by 1, with what its readers need to stay as they were.

    A shift runs on through sums and through maps without a bias of their own; the bias of the next
    layer takes it back, and so does that of a normalisation with fixed statistics.
    """
    trace = scene.trace
    if trace is None:
        return
    writers, starts = _starts(trace)
    if not len(writers):
        return
    shift = _spread(trace, starts)
    parts: list[Part] = []
    for index, use in enumerate(trace.uses):
        place, generator, values = [], [], []
        if use.offset is not None:
            mine = np.flatnonzero(writers == index)
            entry = csc_array(starts[use.outs][:, mine]).tocoo()
            where = use.offset[entry.row]
            place.append(where.ravel())
            generator.append(np.repeat(mine[entry.col], where.shape[1]))
            values.append(np.ones(where.size))
            if use.base is not None and len(use.ins):
                entry = csc_array(_map(use) @ shift[use.ins]).tocoo()
                place.append(use.offset[entry.row, 0])
                generator.append(entry.col.astype(np.int64))
                values.append(-entry.data)
        if place:
            joined = np.concatenate(place), np.concatenate(generator), np.concatenate(values)
            parts.append(joined)
    directions, valid = assemble(trace, parts, len(writers))
    held = _held(trace, shift)
    good = valid & (np.diff(held.indptr) == 0)
    statistics = {i for i, use in enumerate(trace.uses) if use.node.name == "batch_norm"}
    ahead = np.zeros(len(writers), dtype=bool)
    for i in statistics:
        ahead |= np.asarray(abs(shift[trace.uses[i].ins]).sum(axis=0)).reshape(-1) > 0
    # Nothing takes two shifts back alone, but one undoes the other.
    pairs = _pairs(held, valid & ~good)
    for kind, matrix in (
        ("bias before normalisation", directions[:, good & ahead]),
        ("bias before bias", directions[:, good & ~ahead]),
        ("bias beside bias", directions @ pairs),
    ):
        yield from by_layers(kind, csc_array(matrix), trace.selection)


def _starts(trace: Trace) -> tuple[Ints, csc_array]:
    """Each use's shift of each class of its features: the use, and features (count, g)."""
    classes = Classes(trace.count, trace.same)
    owners, rows, columns, total = [], [], [], 0
    for index, use in enumerate(trace.uses):
        if use.offset is None:
            continue
        known, inverse = np.unique(classes.number[use.outs], return_inverse=True)
        owners.append(np.full(len(known), index))
        rows.append(use.outs)
        columns.append(inverse + total)
        total += len(known)
    if not total:
        return np.zeros(0, dtype=np.int64), csc_array((trace.count, 0))
    row, column = np.concatenate(rows), np.concatenate(columns)
    entries = coo_array((np.ones(len(row)), (row, column)), (trace.count, total))
    return np.concatenate(owners), csc_array(entries)


def _spread(trace: Trace, starts: csc_array) -> csr_array:
    """What a shift becomes at every feature that it reaches, (count, g)."""
    rows, columns, values = [], [], []
    for (z, a), c in trace.sums:
        rows.append(z)
        columns.append(a)
        values.append(c)
    for use in trace.uses:
        # A bias takes it back: it goes no further.
        if use.offset is None and use.weight is not None and len(use.ins):
            entry = _map(use).tocoo()
            rows.append(use.outs[entry.row])
            columns.append(use.ins[entry.col])
            values.append(entry.data)
    size = trace.count
    if not rows:
        return csr_array(starts)
    onward = csr_array(
        coo_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (size, size)
        )
    )
    onward.setdiag(0)
    found = step = csr_array(starts)
    # Features are numbered in order, so this ends.
    while step.nnz:
        step = csr_array(onward @ step)
        step.eliminate_zeros()
        found = csr_array(found + step)
    return found


def _map(use: Use) -> csr_array:
    """The outputs' shift by a shift of the inputs, (outs, ins)."""
    if use.weight is None or use.values is None:
        return csr_array((len(use.outs), len(use.ins)))
    if use.diagonal:
        slope = np.ones(len(use.outs)) if use.slope is None else use.slope
        return csr_array(eye_array(len(use.outs)).multiply((use.values[:, 0] * slope)[:, None]))
    return csr_array(use.values.sum(2))


def _held(trace: Trace, shift: csr_array) -> csc_array:
    """Where shifts reach what must not be shifted: one row for each such condition."""
    barred = np.zeros(trace.count, dtype=bool)
    for mark in (*trace.bent, *trace.rigid):
        barred[mark] = True
    for links in (*trace.same, *trace.scaled):
        barred[links[1][links[0] == FIXED]] = True
        barred[links[0][links[1] == FIXED]] = True
    for use in trace.uses:
        if not use.uniform:
            barred[use.ins] = True
    parts = [shift[np.flatnonzero(barred)]]
    for a, b in trace.level:
        parts.append(shift[a] - shift[b])
    rows = [part.tocoo() for part in parts]
    offset = np.cumsum([0, *(part.shape[0] for part in rows)])
    joined = coo_array(
        (
            np.concatenate([r.data for r in rows]),
            (
                np.concatenate([r.row + o for r, o in zip(rows, offset, strict=False)]),
                np.concatenate([r.col for r in rows]),
            ),
        ),
        (int(offset[-1]), shift.shape[1]),
    )
    found = csc_array(joined)
    found.eliminate_zeros()
    found.sort_indices()
    return found


def _pairs(held: csc_array, among: np.ndarray) -> csc_array:
    """Differences of columns that are held in the same way, sums of those in opposite ways."""
    first: dict[tuple[bytes, bytes], tuple[int, float]] = {}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for j in np.flatnonzero(among).tolist():
        part = slice(held.indptr[j], held.indptr[j + 1])
        data = held.data[part]
        sign = 1.0 if data[0] > 0 else -1.0
        key = held.indices[part].tobytes(), (sign * data).tobytes()
        other, its = first.setdefault(key, (j, sign))
        if other != j:
            rows += [j, other]
            columns += [len(columns) // 2] * 2
            values += [1.0, -sign * its]
    shape = held.shape[1], len(columns) // 2
    return csc_array(coo_array((values, (rows, columns)), shape))
