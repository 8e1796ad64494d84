"""Rotations of a stream of features that only normalisations, and layers that can follow, read.

RMSNorm commutes with every rotation R of its d inputs, LayerNorm with those that keep the mean.
Behind its gain γ and offset β the map is γ R γ⁻¹ about β, which the layers that read it undo:
δW = W X for all that write the stream, X antisymmetric (X 1 = 0 for LayerNorm), and with
Y = diag(γ) X diag(γ)⁻¹, δβ = Y β and δW = −W Y for the readers of each normalisation. That is
d (d − 1) / 2 directions, or (d − 1)(d − 2) / 2 for LayerNorm (Ashkboos et al., arXiv 2401.15024,
use the finite form to compress language models).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lightlike.geometry.symmetry.actions import Action, Generators, rotations
from lightlike.geometry.symmetry.attention import claims_of, profile
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.counting import MOST
from lightlike.geometry.symmetry.tied import shares
from lightlike.geometry.symmetry.tracing import Classes, Floats, Ints, Use
from lightlike.geometry.symmetry.wiring import Norm, Wiring

KIND, GAIN, SCALE = (
    "rotation of a normalised stream", "gain of a normalisation", "normalised scale",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Gained:
    """A normalisation with its gain.

    Attributes:
        ins: Classes that it reads, (d,).
        outs: Classes behind its gain, (d,).
        gain: γ, (d,).
        use: What holds the gain and offset; None without them.
    """

    ins: Ints
    outs: Ints
    gain: Floats
    use: Use | None


def claim_rotations(wiring: Wiring, classes: Classes) -> Iterator[Claim]:
    """For each normalised stream, a basis of its rotations; at most as many as are ever counted."""
    streams: dict[frozenset[int], list[Norm]] = {}
    for norm in wiring.norms:
        streams.setdefault(frozenset(classes.number[norm.ins].tolist()), []).append(norm)
    profiles = profile(wiring, classes)
    actions: list[Action] = []
    count = 0
    for stream, norms in streams.items():
        order = classes.number[norms[0].ins]
        alike = {profiles.get(c) for c in stream}
        if len(stream) < len(order) or classes.fixed in stream or len(alike) > 1:
            continue
        gained = [_gained(norm, wiring, classes) for norm in norms]
        if any(g is None or not _free(g, wiring, classes) for g in gained):
            continue
        centred = any(norm.centred for norm in norms)
        basis = rotations(len(order), centred=centred, most=MOST)
        if not len(basis.number):
            continue
        basis = basis.numbered(count)
        count = int(basis.number.max()) + 1
        actions.append(Action(order, basis))
        slot = {c: i for i, c in enumerate(order.tolist())}
        for g in gained:
            assert g is not None
            place = np.empty(len(order), dtype=np.int64)
            place[[slot[c] for c in g.ins.tolist()]] = np.arange(len(order))
            actions.append(Action(g.outs, basis.moved(place).conjugated(g.gain), through=g.use))
    yield from claims_of(wiring, classes, actions, [KIND] * count)


def claim_scales(wiring: Wiring, classes: Classes) -> Iterator[Claim]:
    """All that writes a normalised stream × c: null only where no eps is added to the variance."""
    actions: list[Action] = []
    count = 0
    for stream in dict.fromkeys(
        tuple(sorted(set(classes.number[norm.ins].tolist()))) for norm in wiring.norms
    ):
        if classes.fixed not in stream:
            slot = np.arange(len(stream))
            scale = Generators(np.full(len(slot), count), slot, slot, np.ones(len(slot)))
            actions.append(Action(np.array(stream), scale))
            # A table that also makes the logits is read with 1/c.
            for head in _heads(wiring, classes, stream):
                actions.append(Action(np.unique(classes.number[head.ins]), scale.dual()))
            count += 1
    yield from claims_of(wiring, classes, actions, [SCALE] * count)


def _heads(wiring: Wiring, classes: Classes, stream: tuple[int, ...]) -> list[Use]:
    """Layers whose weights are tables that write a stream."""
    tables = [use for use in wiring.uses if np.isin(classes.number[use.outs], stream).all()]
    return [use for use in wiring.uses if any(shares(use, table) for table in tables)]


def claim_gains(wiring: Wiring, classes: Classes) -> Iterator[Claim]:
    """Gain and offset of a normalisation × c, what reads that feature × 1/c: d directions."""
    actions: list[Action] = []
    count = 0
    for norm in wiring.norms:
        gained = _gained(norm, wiring, classes)
        if gained is None or gained.use is None or not _free(gained, wiring, classes):
            continue
        slot = np.arange(len(gained.outs))
        basis = Generators(count + slot, slot, slot, np.ones(len(slot)))
        actions.append(Action(gained.outs, basis))
        count += len(slot)
    yield from claims_of(wiring, classes, actions, [GAIN] * count)


def _gained(norm: Norm, wiring: Wiring, classes: Classes) -> Gained | None:
    """A normalisation with the gain that belongs to it, or that alone reads it."""
    ins, outs = classes.number[norm.ins], classes.number[norm.outs]
    use = norm.use
    if use is None:
        readers = [u for u in wiring.uses if np.isin(classes.number[u.ins], outs).any()]
        if len(readers) != 1 or not readers[0].diagonal:
            return Gained(ins, outs, np.ones(len(ins)), None)
        use = readers[0]
        if not np.array_equal(classes.number[use.ins], outs):
            return None
    assert use.values is not None
    gain = use.values[:, 0]
    if not gain.all():
        return None
    return Gained(ins, classes.number[use.outs], gain, use)


def _free(gained: Gained, wiring: Wiring, classes: Classes) -> bool:
    """Whether linear layers alone read what a normalisation writes, and it alone writes it."""
    outs = gained.outs
    if classes.fixed in outs or len(set(outs.tolist())) < len(outs):
        return False

    def touches(features: Ints) -> bool:
        return bool(np.isin(classes.number[features], outs).any())

    return not (
        any(touches(u.outs) for u in wiring.uses if u is not gained.use)
        or any(touches(u.ins) for u in wiring.uses if u.diagonal)
        or any(touches(n.ins) for n in wiring.norms)
        or any(touches(p.left) or touches(p.right) for p in wiring.pairings)
        or any(map(touches, [*wiring.mixtures, *wiring.uneven]))
    )
