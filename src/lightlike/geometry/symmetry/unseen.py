"""Streams whose mean LayerNorm takes away, while layers that can follow read them before that.

So it is where normalisation comes after the sum: x is read by attention and joined to its output,
then normalised. With x ↦ x + 1 wᵀx the normalisation sees nothing, and its other readers undo it,
W ↦ W − W 1 wᵀ: d directions; and for each writer, x ↦ x + 1, where biases take it back.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightlike.geometry.symmetry.actions import Action, Entries, Generators, ask
from lightlike.geometry.symmetry.attention import claims_from
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.means import STREAM, onward, reached, visible
from lightlike.geometry.symmetry.tracing import FIXED, Classes, Ints, Use
from lightlike.geometry.symmetry.wiring import Wiring


def claim_unseen(wiring: Wiring, classes: Classes, *, logits: bool) -> Iterator[Claim]:
    """Those directions, for each set of features that layers read ahead of a LayerNorm.

    Args:
        wiring: The trace.
        classes: Its classes of features.
        logits: Whether the model's output is blind to a shift of all its entries.
    """
    step = onward(wiring)
    blind = [norm.ins for norm in wiring.norms if norm.centred]
    seen = visible(wiring, logits=logits)
    for features in _early(wiring, classes, blind):
        # Of classes, features and what they are sums of alone are mapped.
        number = np.zeros(wiring.count, dtype=np.int64)
        number[features] = 1 + np.arange(len(features))
        slot = {c: 1 + i for i, c in enumerate(classes.number[features].tolist())}
        writers = []
        good = True
        for use in wiring.uses:
            shift = reached(step, use.outs, wiring.count)
            if not shift[features].any():
                continue
            writers.append((use, float(shift[features[0]])))
            number[use.outs] = [slot.get(c, 0) for c in classes.number[use.outs].tolist()]
            elsewhere = shift.copy()
            elsewhere[features] = 0.0
            good &= not elsewhere[seen].any()
            good &= all(np.ptp(shift[f]) == 0 for f in [features, *blind])
        if not good:
            continue
        asked, tags = [Entries() for _ in wiring.uses], list[str]()
        if not any(use.diagonal for use, _ in writers):
            width = len(features)
            j, i = (a.reshape(-1) for a in np.meshgrid(np.arange(width), np.arange(width)))
            action = Action(1 + np.arange(width), Generators(j, i, j, np.ones(len(j))))
            asked = [ask(use, [action], number) for use in wiring.uses]
            tags = [STREAM] * width
        for use, factor in writers:
            if use.offset is not None:
                _raise(wiring, use, factor, features, len(tags), asked)
                tags.append(STREAM)
        yield from claims_from(wiring, asked, tags)


def _early(wiring: Wiring, classes: Classes, blind: list[Ints]) -> list[Ints]:
    """Sets of features that layers read and that a LayerNorm sees as part of a sum."""
    found: dict[tuple[int, ...], None] = {}
    streams = [set(classes.number[f].tolist()) for f in blind]
    for use in wiring.uses:
        kinds = set(classes.number[use.ins].tolist())
        once = len(kinds) == len(use.ins) and FIXED not in use.ins
        if once and not use.diagonal and use.weight is not None and kinds in streams:
            found[tuple(use.ins.tolist())] = None
    return [np.array(f) for f in found]


def _raise(
    wiring: Wiring,
    raised: Use,
    factor: float,
    features: Ints,
    number: int,
    asked: list[Entries],
) -> None:
    """One writer adds a factor to all features, and their readers' biases take it back."""
    assert raised.offset is not None
    one = np.full(1, number)
    asked[wiring.uses.index(raised)].add(raised.offset, one, np.ones(1))
    for use, entries in zip(wiring.uses, asked, strict=True):
        if np.array_equal(use.ins, features) and use.values is not None and use.offset is not None:
            entries.add(use.offset, one, -factor * use.values.sum((1, 2))[:, None])
