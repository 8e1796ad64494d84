"""Single parameters that change nothing, e_j with A e_j = 0, and why."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array

from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.tracing import FIXED, Classes, Ints, Trace
from lightlike.metric.capture import reached
from lightlike.problem.isolation import isolated

Mask = NDArray[np.bool]

# In the order in which they are listed; the last is for all that have no other reason.
# Of parameters without a gradient that predictions may change with all the same.
DETACHED = "detached parameter"
KINDS = (
    "unused parameter", DETACHED, "disconnected", "unseen embedding row", "dead unit",
    "zero input", "zero outgoing weights", "saturated unit", "constant unit", "inert parameter",
)  # fmt: skip


def claim_inert(scene: Scene) -> Iterator[Claim]:
    """All coordinates whose columns of A vanish, by kind and by layer."""
    if not len(scene.inert):
        return
    size = scene.selection.size
    inert = np.zeros(size, dtype=np.bool)
    inert[scene.inert] = True
    kind = np.full(size, KINDS.index("inert parameter"))
    if scene.trace is not None:
        _name_units(scene.trace, inert, kind)
        _name_rows(scene.trace, inert, kind)
    _name_unused(scene, kind)
    for number, name in enumerate(KINDS):
        for layer, entries in scene.selection.layers().items():
            mine = np.concatenate([np.arange(e.start, e.stop) for e in entries])
            mine = mine[inert[mine] & (kind[mine] == number)]
            if len(mine):
                where = layer or "the model's own parameters"
                yield Claim(name, where, coordinate_vectors(mine, size))


def coordinate_vectors(place: Ints, size: int) -> csc_array:
    """Unit vectors e_j as columns."""
    ones = np.ones(len(place))
    return csc_array(coo_array((ones, (place, np.arange(len(place)))), (size, len(place))))


def _name_unused(scene: Scene, kind: Ints) -> None:
    evaluator = scene.problem.reference.evaluator
    with isolated():
        outputs = evaluator.outputs(next(scene.problem.reference.batches()))
        connected = reached(outputs.h, evaluator.leaves)
    graph = None if scene.trace is None else scene.trace.graph
    reaching = set() if graph is None else graph.reaching()
    for entry in scene.selection.entries:
        if entry.name in connected:
            continue
        name = "disconnected"
        if graph is not None:
            value = graph.parameters.get(entry.name)
            name = "unused parameter" if value is None else name
            name = DETACHED if value is not None and value.index in reaching else name
        kind[entry.start : entry.stop] = KINDS.index(name)


def _name_rows(trace: Trace, inert: Mask, kind: Ints) -> None:
    """Rows of tables that no token names: all of their entries are inert."""
    for use in trace.uses:
        if use.node.name == "embedding" and use.weight is not None:
            place = use.weight[:, 0, :]
            measured = (place >= 0).all(0)
            unseen = place[:, measured][:, inert[place[:, measured]].all(0)]
            kind[unseen.reshape(-1)] = KINDS.index("unseen embedding row")


def _name_units(trace: Trace, inert: Mask, kind: Ints) -> None:
    """Units by what is inert around them: what writes them, what reads them, or both."""
    classes = Classes(
        trace.count, [*trace.units, *(p[:, (p != FIXED).all(0)] for p in trace.level)]
    )
    number = classes.number
    # For each class, whether it is written and read, and whether all of that is inert.
    written, read = np.zeros(classes.size, np.bool), np.zeros(classes.size, np.bool)
    silent, unheard = np.ones(classes.size, np.bool), np.ones(classes.size, np.bool)
    zero = np.ones(classes.size, np.bool)
    rows: list[tuple[int, Ints]] = []
    columns: list[tuple[int, Ints]] = []
    for use in trace.uses:
        if use.weight is None or use.values is None or use.diagonal:
            continue
        for o, feature in enumerate(use.outs):
            place = use.weight[o].reshape(-1)
            if use.offset is not None and use.base is not None:
                place = np.append(place, use.offset[o])
            place = place[place >= 0]
            unit = number[feature]
            written[unit] = True
            silent[unit] &= bool(inert[place].all())
            rows.append((unit, place))
        for i, feature in enumerate(use.ins):
            place = use.weight[:, i].reshape(-1)
            place = place[place >= 0]
            unit = number[feature]
            read[unit] = True
            unheard[unit] &= bool(inert[place].all())
            zero[unit] &= not use.values[:, i].any()
            columns.append((unit, place))
    fixed = classes.fixed
    dead, saturated = KINDS.index("dead unit"), KINDS.index("saturated unit")
    # What is never active lies on a floor that a rectifier has, or at one end of an S.
    silenced = np.full(classes.size, dead)
    for features in trace.bounded:
        silenced[number[features]] = saturated
    for unit, place in columns:
        if not bool(inert[place].all()):
            continue
        if unit == fixed:
            kind[place] = KINDS.index("zero input")
        elif written[unit] and silent[unit] and unheard[unit]:
            kind[place] = silenced[unit]
        else:
            kind[place] = KINDS.index("constant unit")
    for unit, place in rows:
        if not silent[unit] or not read[unit] or unit == fixed:
            continue
        if unheard[unit]:
            kind[place] = silenced[unit]
        else:
            kind[place] = KINDS.index("zero outgoing weights") if zero[unit] else saturated
