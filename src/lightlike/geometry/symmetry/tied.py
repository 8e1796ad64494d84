"""A table of tokens that also gives the logits: E x for the tokens x, and E h for the output.

Adding c to all rows of E shifts the stream by c and the logits by hᵀc, the same for all tokens.
A table of positions, or whatever else enters the stream in the same places, takes c back; so does a
stream whose readers take away its mean, for c = 1. The logits' shift is nothing to a softmax. To
others it is a constant for one c, 1/γ where LayerNorm writes h = γ n + β, which a bias takes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lightlike.geometry.symmetry.actions import Entries
from lightlike.geometry.symmetry.attention import claims_from
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.means import onward, reached
from lightlike.geometry.symmetry.tracing import Classes, Floats, Ints, Use
from lightlike.geometry.symmetry.wiring import Wiring

KIND = "shift of a tied table"


@dataclass(frozen=True, eq=False)
class Shift:
    """All rows of a table gain c.

    Attributes:
        vector: c, (d,).
        taken: Whether what enters beside the table takes it back.
        lost: What each bias of the layer that reads the table loses.
    """

    vector: Floats
    taken: bool
    lost: float = 0.0


@dataclass(frozen=True, eq=False)
class Partner:
    """What enters a stream beside a table.

    Attributes:
        use: What writes it.
        place: For each feature of the table, the coordinates which raise the same one.
        factor: How much they raise it by, relative to the table.
    """

    use: Use
    place: list[Ints]
    factor: float


def claim_tied(wiring: Wiring, classes: Classes, *, logits: bool) -> Iterator[Claim]:
    """Shifts of all rows of tables that are also read as weights of a layer.

    Args:
        wiring: The trace.
        classes: Its classes of features.
        logits: Whether the model's output is blind to a shift of all its entries.
    """
    for table in wiring.uses:
        heads = [use for use in wiring.uses if shares(use, table)]
        if len(heads) != 1:
            continue
        partner = _partner(wiring, classes, table)
        shifts = list(_shifts(wiring, classes, heads[0], partner is not None, logits))
        asked = [_ask(use, table, heads[0], partner, shifts) for use in wiring.uses]
        yield from claims_from(wiring, asked, [KIND] * len(shifts))


def _shifts(
    wiring: Wiring, classes: Classes, head: Use, taken: bool, logits: bool
) -> Iterator[Shift]:
    width = len(head.ins)
    if logits:
        yield Shift(np.ones(width), taken=False)
    if logits and taken:
        for vector in np.eye(width):
            yield Shift(vector, taken=True)
    read = classes.number[head.ins]
    for norm in wiring.norms:
        held = norm.use
        if taken and norm.centred and held is not None and held.values is not None:
            gain = held.values[:, 0]
            if gain.all() and np.array_equal(classes.number[norm.outs], read):
                lost = 0.0 if held.base is None else float((held.base[:, 0] / gain).sum())
                yield Shift(1.0 / gain, taken=True, lost=lost)


def _ask(use: Use, table: Use, head: Use, partner: Partner | None, shifts: list[Shift]) -> Entries:
    entries = Entries()
    for number, shift in enumerate(shifts):
        one = np.full(1, number)
        if (use is table or use is head) and table.weight is not None:
            entries.add(table.weight[:, 0], one, shift.vector[:, None])
        if use is head and use.offset is not None and shift.lost:
            entries.add(use.offset, one, np.full(1, -shift.lost))
        if partner is not None and use is partner.use and shift.taken:
            for i in np.flatnonzero(shift.vector):
                back = np.full(1, -shift.vector[i] / partner.factor)
                entries.add(partner.place[i], one, back)
    return entries


def shares(use: Use, table: Use) -> bool:
    """Whether a layer's weight (V, d) is a table, whose features are its columns."""
    if use is table or use.weight is None or table.weight is None or use.diagonal:
        return False
    if table.offset is None or table.base is not None or use.weight.shape[2] != 1:
        return False
    return np.array_equal(use.weight[:, :, 0], table.weight[:, 0].T)


def _partner(wiring: Wiring, classes: Classes, table: Use) -> Partner | None:
    """What else can shift each feature of a table's wherever it is read."""
    step = onward(wiring)
    read = np.unique(np.concatenate([*wiring.rigid, *(use.ins for use in wiring.uses)]))
    read = read[read > 0]
    mine = reached(step, table.outs, wiring.count)[read]
    kinds = classes.number[table.outs]
    for use in wiring.uses:
        found = classes.number[use.outs]
        if use is table or use.offset is None or set(found.tolist()) != set(kinds.tolist()):
            continue
        # Of a parameter that is added as it is, the first place of each channel stands for all.
        _, first = np.unique(found, return_index=True)
        start = use.outs if use.weight is not None else use.outs[first]
        other = reached(step, start, wiring.count)[read]
        factor = float(other @ mine) / (float(mine @ mine) or 1.0)
        if factor and np.allclose(other, factor * mine, rtol=1e-12, atol=0.0):
            place = [use.offset[found == kind].reshape(-1) for kind in kinds]
            return Partner(use, place, factor)
    return None
