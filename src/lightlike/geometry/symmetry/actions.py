"""Linear maps of features, and what they ask of the parameters that write and read these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightlike.geometry.symmetry.claims import Part
from lightlike.geometry.symmetry.tracing import FROZEN, Floats, Ints, Use


@dataclass(frozen=True, eq=False)
class Generators:
    """Sparse matrices X_1 … X_k (n, n), by their entries.

    Attributes:
        number: Which of the matrices, counted from 0.
        row, column: Where the entry is.
        value: The entry.
    """

    number: Ints
    row: Ints
    column: Ints
    value: Floats

    def dual(self) -> Generators:
        """−Xᵀ."""
        return Generators(self.number, self.column, self.row, -self.value)

    def moved(self, place: Ints) -> Generators:
        """The same with index i called place[i]."""
        return replace(self, row=place[self.row], column=place[self.column])

    def conjugated(self, gain: Floats) -> Generators:
        """diag(γ) X diag(γ)⁻¹."""
        return replace(self, value=self.value * gain[self.row] / gain[self.column])

    def numbered(self, start: int) -> Generators:
        """The same, counted from another number."""
        return replace(self, number=self.number + start)


@dataclass(frozen=True, eq=False)
class Action:
    """Features y ↦ y + X y, for the classes of features in a list.

    Where a layer has several features of each class, the first of all are mapped, the second of
    all, and so on.

    Attributes:
        classes: The classes, (n,), each once.
        generators: The matrices X.
        through: A normalisation that hands the map on to what it writes, all but its offset
            untouched; None for none.
        turn: Whether instead y ↦ y + J y for the two features (a, b) of each class, J (a, b) =
            (−b, a), weighted by the diagonal of X.
    """

    classes: Ints
    generators: Generators
    through: Use | None = None
    turn: bool = False


def whole(allowed: np.ndarray, *, turning: bool = False) -> Generators:
    """A basis of matrices with entries where allowed (n, n), of the antisymmetric ones if turning.

    These are E_ij − E_ji and E_ij + E_ji, so that both parts of a generator stand by themselves.
    """
    i, j = np.nonzero(np.triu(allowed & allowed.T, 1))
    count = len(i)
    number = np.arange(count)
    number, row = np.concatenate([number, number]), np.concatenate([i, j])
    column, ones = np.concatenate([j, i]), np.ones(count)
    anti = Generators(number, row, column, np.concatenate([ones, -ones]))
    if turning:
        return anti
    even = Generators(number + count, row, column, np.ones(2 * count))
    (diagonal,) = np.nonzero(np.diag(allowed))
    last = Generators(
        2 * count + np.arange(len(diagonal)), diagonal, diagonal, np.ones(len(diagonal))
    )
    return joined([anti, even, last])


def joined(parts: Sequence[Generators]) -> Generators:
    """The entries of several, numbers as they are."""
    return Generators(
        *(
            np.concatenate([getattr(p, name) for p in parts])
            for name in ("number", "row", "column", "value")
        )
    )


def rotations(width: int, *, centred: bool, most: int) -> Generators:
    """A basis of the antisymmetric matrices, with X 1 = 0 if centred; the first `most` of them.

    These are e_a e_bᵀ − e_b e_aᵀ, with e_a − e_d in place of e_a if centred.
    """
    last = width - 1
    a, b = np.triu_indices(width - 1 if centred else width, 1)
    a, b = a[:most], b[:most]
    k, one = np.arange(len(a)), np.ones(len(a))
    end = np.full(len(a), last)
    found = [Generators(k, a, b, one), Generators(k, b, a, -one)]
    if centred:
        found += [
            Generators(k, end, a, one), Generators(k, a, end, -one),
            Generators(k, b, end, one), Generators(k, end, b, -one),
        ]  # fmt: skip
    return joined(found)


def ask(use: Use, actions: Sequence[Action], number: Ints) -> Entries:
    """What some actions ask of the parameters of a use.

    Writers follow, δW = X W and δb = X b; readers take it back, δW = −W X.

    Args:
        use: The use.
        actions: The actions.
        number: Class of each feature.
    """
    entries = Entries()
    for action in actions:
        i, j, k, v = _pairs(number[use.outs], action)
        if len(i):
            if use.weight is not None and use.values is not None and use is not action.through:
                deep = (slice(None), *[None] * (use.weight.ndim - 1))
                # A gain cannot take in another feature.
                place = use.weight[i]
                place = np.where((i == j)[deep], place, FROZEN) if use.diagonal else place
                entries.add(place, k[deep], v[deep] * use.values[j])
            if use.base is not None and use.offset is not None:
                entries.add(use.offset[i], k[:, None], v[:, None] * use.base[j])
        i, j, k, v = _pairs(number[use.ins], action)
        if len(i) and use.weight is not None and use.values is not None:
            if use.diagonal:
                place = np.where((i == j)[:, None], use.weight[j], FROZEN)
                entries.add(place, k[:, None], -v[:, None] * use.values[i])
                if use.centre is not None:
                    entries.add(np.full(len(k), FROZEN), k, v * use.centre[i])
            else:
                entries.add(
                    use.weight[:, j], k[:, None], -v[:, None] * use.values[:, i]
                )  # fmt: skip
    return entries


class Entries:
    """Coordinates, numbers of generators and values, collected."""

    def __init__(self) -> None:
        self._found: list[tuple[Ints, Ints, Floats]] = []

    def add(self, place: Ints, number: Ints, value: Floats) -> None:
        """More of them, of shapes that are broadcast to each other."""
        arrays = np.broadcast_arrays(place, number, value)
        self._found.append(tuple(a.reshape(-1) for a in arrays))  # type: ignore[arg-type]

    def part(self) -> Part:
        """All of them, as `claims.assemble` takes them."""
        if not self._found:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty, np.zeros(0)
        place, number, value = (np.concatenate(a) for a in zip(*self._found, strict=True))
        return place, number, value


def _pairs(found: Ints, action: Action) -> tuple[Ints, Ints, Ints, Floats]:
    """Rows i that take in v times rows j under generator k, given the class of each row."""
    g, each = action.generators, copies(found, action.classes)
    if action.turn:
        if len(each) % 2:
            return (*np.zeros((3, 0), dtype=np.int64), np.zeros(0))
        half = len(each) // 2
        turned = [(a, b, -1.0) for a, b in zip(each[:half], each[half:], strict=True)]
        ways = turned + [(b, a, 1.0) for a, b, _ in turned]
    else:
        ways = [(rows, rows, 1.0) for rows in each]
    parts = []
    for to, of, sign in ways:
        here = (to[g.row] >= 0) & (of[g.column] >= 0)
        parts.append((to[g.row[here]], of[g.column[here]], g.number[here], sign * g.value[here]))
    if not parts:
        return (*np.zeros((3, 0), dtype=np.int64), np.zeros(0))
    i, j, k, v = (np.concatenate(a) for a in zip(*parts, strict=True))
    return i, j, k, v


def copies(found: Ints, classes: Ints) -> list[Ints]:
    """For each repetition of the classes, the row that has each of them, −1 for none."""
    order = np.argsort(classes, kind="stable")
    slot = np.searchsorted(classes[order], found).clip(max=len(classes) - 1)
    position = np.where(classes[order][slot] == found, order[slot], -1)
    (rows,) = np.nonzero(position >= 0)
    if not len(rows):
        return []
    rows = rows[np.argsort(position[rows], kind="stable")]
    which = position[rows]
    starts = np.flatnonzero(np.r_[True, which[1:] != which[:-1]])
    repeat = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    out = np.full((int(repeat.max()) + 1, len(classes)), -1)
    out[repeat, which] = rows
    return list(out)
