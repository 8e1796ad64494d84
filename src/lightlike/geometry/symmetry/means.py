"""What a normalisation or a softmax does not see: one number added to all features of a stream.

LayerNorm takes away the mean over d features, a softmax of logits is blind to a shift of all of
them. So every column of a weight that writes such a stream, every bias and every row of a table may
gain a multiple of 1: one direction for each input. Layers that read the stream elsewhere may undo
it there, W ↦ W − W 1 wᵀ where the stream x gains 1 wᵀx.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csr_array

from lightlike.geometry.symmetry.actions import Entries, copies
from lightlike.geometry.symmetry.attention import claims_from
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.tracing import FIXED, Classes, Floats, Ints, Use
from lightlike.geometry.symmetry.wiring import Wiring

STREAM, LOGITS = "shift before normalisation", "softmax shift"


def claim_means(wiring: Wiring, classes: Classes, *, logits: bool) -> Iterator[Claim]:
    """Shifts of all features that write one stream, by one number for each of their inputs.

    Args:
        wiring: The trace.
        classes: Its classes of features.
        logits: Whether the model's output is blind to a shift of all its entries.
    """
    blind = [norm.ins for norm in wiring.norms if norm.centred]
    if logits and wiring.output is not None:
        blind.append(wiring.output)
    seen = visible(wiring, logits=logits)
    step = onward(wiring)
    asked: list[Entries] = [Entries() for _ in wiring.uses]
    tags: list[str] = []
    for use, entries in zip(wiring.uses, asked, strict=True):
        shift = reached(step, use.outs, wiring.count)
        alike = all(np.ptp(shift[features]) == 0 for features in blind)
        if not alike or shift[seen].any() or not any(shift[f].any() for f in blind):
            continue
        out = wiring.output
        kind = LOGITS if logits and out is not None and shift[out].any() else STREAM
        start = len(tags)
        tags += [kind] * _shift(use, start, entries, classes.number)
    yield from claims_from(wiring, asked, tags)


def onward(wiring: Wiring) -> csr_array:
    """What a shift of each feature is for those that are sums of it, (count, count)."""
    size = wiring.count
    if not wiring.sums:
        return csr_array((size, size))
    pairs = np.concatenate([p for p, _ in wiring.sums], 1)
    factors = np.concatenate([c for _, c in wiring.sums])
    found = csr_array(coo_array((factors, (pairs[0], pairs[1])), (size, size)))
    found.setdiag(0)
    return found


def reached(onward: csr_array, start: Ints, size: int) -> Floats:
    """The shift of every feature, (count,), when some are shifted by 1."""
    step: Floats = np.zeros(size)
    step[start] = 1.0
    step[0] = 0.0
    found: Floats = step
    # Sums are newer than what they are sums of, so this ends.
    while step.any():
        step = np.asarray(onward @ step)
        found = found + step
    return found


def visible(wiring: Wiring, *, logits: bool) -> Ints:
    """Features with a reader that any shift is seen by."""
    parts = [use.ins for use in wiring.uses]
    parts += [norm.ins for norm in wiring.norms if not norm.centred]
    parts += [side.reshape(-1) for p in wiring.pairings for side in (p.left, p.right)]
    parts += [*wiring.read, wiring.curved()]
    if not logits and wiring.output is not None:
        parts.append(wiring.output)
    found = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
    return found[found > 0]


def _shift(use: Use, start: int, entries: Entries, number: Ints) -> int:
    """One number added to all rows, for each input; how many directions that is."""
    count = 0
    if use.weight is not None and not use.diagonal:
        flat = use.weight.reshape(len(use.weight), -1)
        count = flat.shape[1]
        entries.add(flat, start + np.arange(count), np.ones(1))
    if use.offset is not None and use.base is not None:
        rows = use.offset.T
        if use.weight is None:
            # A parameter as it is: as many entries for each channel as it has places.
            found = number[use.outs]
            # Those of the output are all one: the parameter is added to it as it is.
            found = use.outs if found[0] == number[FIXED] else found
            each = np.array(copies(found, np.unique(found)))
            if each.min() < 0:
                return count
            rows = use.offset[each, 0]
        entries.add(rows, start + count + np.arange(len(rows))[:, None], np.ones(1))
        count += len(rows)
    return count
