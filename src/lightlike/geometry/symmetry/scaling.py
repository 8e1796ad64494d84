"""Positive scales that pass through: the diagonal generators of all scale classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightlike.geometry.symmetry.claims import Claim, Part, assemble, by_layers
from lightlike.geometry.symmetry.mixing import mixable
from lightlike.geometry.symmetry.scales import scales_of
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.tracing import Classes, Use

NORMALISERS = ("layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm")


def claim_scales(scene: Scene) -> Iterator[Claim]:
    """For each class of features that scale together: what writes them × c, what reads them × 1/c.

    Positively homogeneous functions let c > 0 pass (rectifiers, maxima and means over places), a
    normalisation takes it out, and of a gate times a value either may have it.
    """
    trace = scene.trace
    if trace is None:
        return
    scales = scales_of(trace)
    classes = scales.classes
    parts = [scales.spread(*scale_part(use, classes)) for use in trace.uses]
    directions, valid = assemble(trace, parts, classes.size)
    valid &= scales.free
    bent = np.zeros(trace.count, dtype=bool)
    for mark in trace.bent:
        bent[mark] = True
    curved = np.bincount(classes.number, bent, classes.size) > 0
    normalised = np.zeros(classes.size, dtype=bool)
    for node in trace.graph.nodes:
        if node.name in NORMALISERS:
            normalised[classes.number[trace.features(node.inputs[0]).numpy().reshape(-1)]] = True
    # Those that more than their scales can be changed of are claimed as a whole.
    mixed = np.zeros(classes.size, dtype=bool)
    for roles in mixable(trace):
        for (use, side), places in roles.items():
            features = trace.uses[use].outs if side == "out" else trace.uses[use].ins
            mixed[classes.number[features[places.reshape(-1)]]] = True
    for kind, mask in (
        ("rescaling", curved & ~normalised),
        ("normalised scale", normalised),
        ("linear factorisation", ~curved & ~normalised & ~mixed),
    ):
        yield from by_layers(kind, directions[:, mask & valid], trace.selection)


def scale_part(use: Use, classes: Classes) -> Part:
    """What a use asks of its parameters where each class is a generator."""
    number = classes.number
    outs, ins = number[use.outs], number[use.ins]
    rows, columns, entries = [], [], []

    def ask(place: np.ndarray, generator: np.ndarray, values: np.ndarray) -> None:
        place, generator, values = np.broadcast_arrays(place, generator, values)
        # What keeps its scale asks for nothing.
        free = generator.reshape(-1) != classes.fixed
        rows.append(place.reshape(-1))
        columns.append(np.where(free, generator.reshape(-1), classes.fixed))
        entries.append(np.where(free, values.reshape(-1), 0.0))

    if use.weight is not None and use.values is not None:
        deep = (slice(None), *[None] * (use.weight.ndim - 1))
        ask(use.weight, outs[deep], use.values)
        read = ins[:, None] if use.diagonal else ins[None, :, None]
        ask(use.weight, read, -use.values)
    if use.base is not None and use.offset is not None:
        ask(use.offset, outs[:, None], use.base)
    if use.centre is not None and use.values is not None:
        slope = 1.0 if use.slope is None else use.slope
        moved = -use.values[:, 0] * slope * use.centre
        place = np.full(len(outs), -1) if use.offset is None else use.offset[:, 0]
        ask(place, ins, moved)
    if not rows:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(entries)
