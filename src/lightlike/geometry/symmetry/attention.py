"""Heads of attention: queries against keys, values against the output, and biases of keys.

With scores q_i · k_j, any invertible map M of one head's queries is undone by M⁻ᵀ on its keys:
δW_Q = X W_Q, δW_K = −Xᵀ W_K, size² directions for each head of keys, which all query heads that
share it follow. Positions are mixed alike for all features of a head, so that δW_V = X W_V is
undone by δW_O = −W_O X. Rotary positions leave one complex number for each plane that they turn; a
weight for queries and keys both leaves rotations; normalised queries and keys leave what their
gains can take up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lightlike.geometry.symmetry.actions import Action, Entries, Generators, ask, whole
from lightlike.geometry.symmetry.claims import Claim, assemble, by_layers
from lightlike.geometry.symmetry.tracing import Classes, Ints, Use
from lightlike.geometry.symmetry.wiring import Wiring

PAIRS = "queries and keys"
VALUES = "values and output"


@dataclass(frozen=True, eq=False)
class Component:
    """Lists of classes that one generator acts on, as X or as −Xᵀ.

    Attributes:
        lists: The classes, each list of the same length, and whether −Xᵀ acts on it.
        paired: Whether some of them are multiplied with each other.
        turning: Whether X must be antisymmetric, because a list is its own partner.
    """

    lists: dict[tuple[int, ...], bool] = field(default_factory=dict)
    paired: bool = False
    turning: bool = False


def claim_heads(wiring: Wiring, classes: Classes) -> Iterator[Claim]:
    """All generators of all heads."""
    profiles = profile(wiring, classes)
    actions: list[Action] = []
    tags: list[str] = []
    for component in components(wiring, classes):
        for found, kind in _generate(component, profiles, len(tags), wiring, classes):
            actions += found
            tags += [kind] * (1 + max(int(a.generators.number.max()) for a in found) - len(tags))
    yield from claims_of(wiring, classes, actions, tags)


def claims_of(
    wiring: Wiring, classes: Classes, actions: list[Action], tags: list[str]
) -> Iterator[Claim]:
    """The claims that actions come to; generator k is of the kind tags[k]."""
    if tags:
        asked = [ask(use, actions, classes.number) for use in wiring.uses]
        yield from claims_from(wiring, asked, tags)


def claims_from(wiring: Wiring, asked: list[Entries], tags: list[str]) -> Iterator[Claim]:
    """The claims that changes asked of each use come to; generator k is of the kind tags[k]."""
    if not tags:
        return
    directions, valid = assemble(wiring, [entries.part() for entries in asked], len(tags))
    kinds = np.array(tags)[valid]
    for kind in dict.fromkeys(tags):
        yield from by_layers(kind, directions[:, valid][:, kinds == kind], wiring.selection)


def profile(wiring: Wiring, classes: Classes) -> dict[int, tuple[object, ...]]:
    """Of each class, what must agree between features that can be mixed."""
    found: dict[int, list[object]] = defaultdict(list)

    def note(numbers: Ints, what: object, *, alone: bool) -> None:
        known, counts = np.unique(classes.number[numbers], return_counts=True)
        for c, n in zip(known.tolist(), counts.tolist(), strict=True):
            found[c].append((what, n, c if alone else None))

    for k, use in enumerate(wiring.uses):
        note(use.outs, ("written", k), alone=use.diagonal)
        note(use.ins, ("read", k), alone=use.diagonal)
    for k, norm in enumerate(wiring.norms):
        note(norm.ins, ("normalised", k), alone=False)
    for features in wiring.uneven:
        note(features, "uneven", alone=True)
    return {c: tuple(what) for c, what in found.items()}


def components(wiring: Wiring, classes: Classes) -> list[Component]:
    """The lists of heads, joined where they are multiplied with each other."""
    number = classes.number
    blocked = {classes.fixed}
    lists: set[tuple[int, ...]] = set()
    edges = []
    for rows in wiring.mixtures:
        lists.update(tuple(dict.fromkeys(row)) for row in number[rows].tolist())
    for pairing in wiring.pairings:
        for left, right in zip(
            number[pairing.left].tolist(), number[pairing.right].tolist(), strict=True
        ):
            both = list(dict.fromkeys(zip(left, right, strict=True)))
            a, b = (tuple(side) for side in zip(*both, strict=True))
            if len(set(a)) < len(a) or len(set(b)) < len(b):
                blocked.update(a, b)
                continue
            lists.update((a, b))
            edges.append((a, b))
    for norm in wiring.norms:
        blocked.update(number[norm.ins].tolist())
        if norm.use is None:
            blocked.update(number[norm.outs].tolist())
    owner: dict[int, tuple[int, ...]] = {}
    for found in lists:
        for c in found:
            if owner.setdefault(c, found) != found:
                blocked.update(found, owner[c])
    return _connect(lists, edges, blocked)


def _connect(
    lists: set[tuple[int, ...]],
    edges: list[tuple[tuple[int, ...], tuple[int, ...]]],
    blocked: set[int],
) -> list[Component]:
    neighbours = defaultdict(set)
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found, seen = [], set[tuple[int, ...]]()
    for start in sorted(lists):
        if start in seen:
            continue
        signs, turning, stack = {start: False}, False, [start]
        while stack:
            here = stack.pop()
            for there in neighbours[here]:
                if there not in signs:
                    signs[there] = not signs[here]
                    stack.append(there)
                turning |= signs[there] == signs[here]
        seen.update(signs)
        # A head some of whose features have other readers may still map the rest.
        found.append(Component(signs, bool(neighbours[start]), turning))
    free = [(c, [not any(x[i] in blocked for x in c.lists) for i in range(len(start_of(c)))])
            for c in found]  # fmt: skip
    return [kept for c, mask in free if (kept := _restricted(c, mask)) is not None]


def start_of(component: Component) -> tuple[int, ...]:
    """Any of its lists."""
    return next(iter(component.lists))


def _restricted(component: Component, mask: list[bool]) -> Component | None:
    if not any(mask):
        return None
    lists = {
        tuple(c for c, free in zip(found, mask, strict=True) if free): sign
        for found, sign in component.lists.items()
    }
    return Component(lists, component.paired, component.turning)


def _generate(
    component: Component,
    profiles: dict[int, tuple[object, ...]],
    start: int,
    wiring: Wiring,
    classes: Classes,
) -> Iterator[tuple[list[Action], str]]:
    """Actions of a component's generators, numbered from `start`."""
    size = len(start_of(component))
    allowed = np.ones((size, size), dtype=bool)
    for found in component.lists:
        kinds = {p: i for i, p in enumerate(dict.fromkeys(profiles.get(c, ()) for c in found))}
        label = np.array([kinds[profiles.get(c, ())] for c in found])
        allowed &= label[:, None] == label
    kind = PAIRS if component.paired else VALUES
    basis = whole(allowed, turning=component.turning)
    if not len(basis.number):
        return
    yield _act(component, basis.numbered(start)), kind
    if component.paired and not component.turning:
        start += int(basis.number.max()) + 1
        planes = _planes(component, wiring.uses, classes)
        if len(planes):
            number = start + np.arange(len(planes))
            turns = Generators(number, planes, planes, np.ones(len(planes)))
            lists = component.lists
            yield [Action(np.array(c), turns, turn=True) for c in lists], kind


def _act(component: Component, basis: Generators) -> list[Action]:
    return [
        Action(np.array(found), basis.dual() if dual else basis)
        for found, dual in component.lists.items()
    ]


def _planes(component: Component, uses: list[Use], classes: Classes) -> Ints:
    """Places whose classes are two features each of whatever writes them."""
    good = np.ones(len(start_of(component)), dtype=bool)
    for found in component.lists:
        for use in uses:
            counts = np.array([np.sum(classes.number[use.outs] == c) for c in found])
            read = np.isin(np.array(found), classes.number[use.ins])
            good &= ((counts == 0) | (counts == 2)) & ~read
            good &= ~((counts == 2) & use.diagonal)
    two = [
        np.isin(f, np.concatenate([_doubles(u, classes) for u in uses])) for f in component.lists
    ]
    return np.flatnonzero(good & np.all(two, axis=0))


def _doubles(use: Use, classes: Classes) -> Ints:
    known, counts = np.unique(classes.number[use.outs], return_counts=True)
    found: Ints = known[counts == 2]
    return found
