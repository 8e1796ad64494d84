"""What LayerNorm writes lacks a direction: with h = γ n + β and 1ᵀn = 0, Σ h/γ = Σ β/γ = s.

So each row of a weight W that reads h may gain a multiple of 1/γ, its bias losing s times as much.
Where a layer has no bias, this takes the place of one: β may change by any δ if s ≠ 0, with
δW = −W δ (1/γ)ᵀ / s.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightlike.geometry.symmetry.actions import Entries
from lightlike.geometry.symmetry.attention import claims_from
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.tracing import Floats, Ints, Use
from lightlike.geometry.symmetry.wiring import Norm, Wiring

READER, OFFSET = "mean behind normalisation", "offset of a normalisation"


def claim_missing(wiring: Wiring) -> Iterator[Claim]:
    """The missing direction of each LayerNorm, in all that reads it; and offsets it takes in."""
    asked = [Entries() for _ in wiring.uses]
    tags: list[str] = []
    for norm in wiring.norms:
        held = norm.use
        if not norm.centred or held is None or held.values is None or not held.values.all():
            continue
        inverse = 1.0 / held.values[:, 0]
        total = 0.0 if held.base is None else float(inverse @ held.base[:, 0])
        readers = [
            (k, columns)
            for k, use in enumerate(wiring.uses)
            if (columns := _columns(norm, use)) is not None
        ]
        for k, columns in readers:
            use, number = wiring.uses[k], len(tags) + np.arange(len(wiring.uses[k].outs))
            assert use.weight is not None
            asked[k].add(use.weight[:, columns, 0], number[:, None], inverse)
            if use.offset is not None and total:
                asked[k].add(use.offset[:, 0], number, np.full(len(number), -total))
            tags += [READER] * len(number)
        if not total or all(wiring.uses[k].offset is not None for k, _ in readers):
            continue
        assert held.offset is not None
        number = len(tags) + np.arange(len(norm.outs))
        asked[wiring.uses.index(held)].add(held.offset[:, 0], number, np.ones(len(number)))
        for k, columns in readers:
            _settle(wiring.uses[k], columns, inverse / total, number, asked[k])
        tags += [OFFSET] * len(number)
    yield from claims_from(wiring, asked, tags)


def _columns(norm: Norm, use: Use) -> Ints | None:
    """Where a dense layer reads each feature of a normalisation's; None if it does not."""
    if use.diagonal or use.weight is None or use.weight.shape[2] != 1:
        return None
    place = {feature: i for i, feature in enumerate(use.ins.tolist())}
    found = np.array([place.get(feature, -1) for feature in norm.outs.tolist()])
    return found if len(place) == len(use.ins) and found.min() >= 0 else None


def _settle(use: Use, columns: Ints, share: Floats, number: Ints, entries: Entries) -> None:
    """A layer takes back an offset that its inputs gain, generator number[j] for input j."""
    assert use.weight is not None
    assert use.values is not None
    lost = -use.values[:, columns, 0]
    if use.offset is not None:
        entries.add(use.offset, number[None, :], lost)
        return
    place = use.weight[:, None, columns, 0]
    entries.add(place, number[None, :, None], lost[:, :, None] * share)
