"""Features that any matrix may mix: W_2 W_1 = (W_2 X⁻¹)(X W_1) with nothing nonlinear between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from lightlike.geometry.symmetry.claims import Claim, Part, assemble, by_layers
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.tracing import Classes, Floats, Ints, Trace, Use

# Entries of the generators of one group of features; of more features, only some are mixed.
MOST = 10_000_000
# What writes or reads a class of features: number of the use, which side, how many times.
Signature = tuple[tuple[int, str, int], ...]


def claim_mixtures(scene: Scene) -> Iterator[Claim]:
    """For features a, b that the same calls write and read: a gets b added, and b's readers lose a.

    All r² pairs of r features, for each group of them.
    """
    trace = scene.trace
    if trace is None:
        return
    for roles in mixable(trace):
        parts, count = _generators(trace, roles)
        directions, valid = assemble(trace, parts, count)
        yield from by_layers("linear factorisation", directions[:, valid], trace.selection)


def mixable(trace: Trace) -> list[dict[tuple[int, str], Ints]]:
    """Groups of features: for each use and side, which rows or columns each of r features has.

    Returns:
        For each group, arrays (r, n) by use and side; r features that are written and read in the
        same places, and by nothing that is not linear.
    """
    classes = Classes(trace.count, [*trace.same, *trace.tied])
    number = classes.number
    barred = np.zeros(classes.size, dtype=bool)
    barred[classes.fixed] = True
    for mark in (*trace.bent, *trace.still):
        barred[number[mark]] = True
    roles: dict[int, dict[tuple[int, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, use in enumerate(trace.uses):
        for side, features in (("out", use.outs), ("in", use.ins)):
            for place, kind in enumerate(number[features].tolist()):
                if use.diagonal:
                    barred[kind] = True
                elif not barred[kind]:
                    roles[kind][index, side].append(place)
    groups: dict[Signature, list[dict[tuple[int, str], list[int]]]] = defaultdict(list)
    for kind, mine in roles.items():
        sides = {side for _, side in mine}
        if not barred[kind] and sides == {"in", "out"}:
            signature = tuple(sorted((use, side, len(p)) for (use, side), p in mine.items()))
            groups[signature].append(mine)
    return [
        {key: np.array([m[key] for m in group]) for key in group[0]} for group in groups.values()
    ]


def _generators(trace: Trace, roles: dict[tuple[int, str], Ints]) -> tuple[list[Part], int]:
    size = len(next(iter(roles.values())))
    entries = sum(
        part[0].size * (1 + _taps(trace.uses[use], side)) for (use, side), part in roles.items()
    )
    # Pairs (a, b) with b among the first few, if there are too many.
    few = max(1, min(size, MOST // (size * entries)))
    a, b = (m.reshape(-1) for m in np.meshgrid(np.arange(size), np.arange(few), indexing="ij"))
    generator = np.arange(len(a))
    parts: list[Part] = []
    for index, use in enumerate(trace.uses):
        found = [_written(use, roles[index, "out"], a, b)] if (index, "out") in roles else []
        found += [_read(use, roles[index, "in"], a, b)] if (index, "in") in roles else []
        pieces = [piece for group in found for piece in group]
        if pieces:
            places, values = zip(*pieces, strict=True)
            numbers = [np.repeat(generator, p.size // len(a)) for p in places]
            parts.append(
                (
                    np.concatenate([p.ravel() for p in places]),
                    np.concatenate(numbers),
                    np.concatenate([v.ravel() for v in values]),
                )
            )
    return parts, len(a)


def _taps(use: Use, side: str) -> int:
    if use.weight is None:
        return 1
    return use.weight[0].size if side == "out" else use.weight[:, 0].size


def _written(use: Use, rows: Ints, a: Ints, b: Ints) -> list[tuple[Ints, Floats]]:
    """Row a gains row b."""
    found = []
    if use.weight is not None and use.values is not None:
        found.append((use.weight[rows[a]], use.values[rows[b]]))
    if use.offset is not None and use.base is not None:
        found.append((use.offset[rows[a]], use.base[rows[b]]))
    return found


def _read(use: Use, columns: Ints, a: Ints, b: Ints) -> list[tuple[Ints, Floats]]:
    """Column b loses column a."""
    if use.weight is None or use.values is None:
        return []
    place = use.weight.transpose(1, 0, 2)[columns[b]]
    return [(place, -use.values.transpose(1, 0, 2)[columns[a]])]
