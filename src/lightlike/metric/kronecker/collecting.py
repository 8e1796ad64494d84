"""One pass over the rows of A: each stretch of columns gathers what its form of block needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.metric.blocks import merge
from lightlike.metric.contractions import Factor, Grouped, Lookup, Outer, Total
from lightlike.metric.contractions.factor import Weighted, by_sample, strips
from lightlike.metric.contractions.grouped import pieces
from lightlike.metric.kronecker.arrangement import arranged
from lightlike.metric.kronecker.forms import Diagonal, Form, Kronecker, Spectral
from lightlike.metric.kronecker.squares import squares
from lightlike.metric.kronecker.uses import Uses
from lightlike.metric.root import Root
from lightlike.metric.units import Unit
from lightlike.problem.isolation import isolated

# A stretch of a unit's columns: first and last.
Place = tuple[int, int]


class Gathering(ABC):
    """What is added up for one stretch of columns."""

    @abstractmethod
    def add(self, factor: Factor) -> bool:
        """Add the rows of one block; False if they do not have the form of the others."""

    @abstractmethod
    def form(self) -> Form:
        """The block."""


class Squares(Gathering):
    """The diagonal."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None

    def add(self, factor: Factor) -> bool:
        """Add the squares of the rows' entries."""
        found = squares(factor)
        self.sum = found if self.sum is None else self.sum + found
        return True

    def form(self) -> Form:
        """A diagonal matrix."""
        assert self.sum is not None
        return Diagonal(self.sum)


class Products(Gathering):
    """All entries."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None

    def add(self, factor: Factor) -> bool:
        """Add the products of the rows' entries."""
        rows = by_sample(torch.cat(list(strips(factor)), -1))
        found = rows.T @ rows
        self.sum = found if self.sum is None else self.sum + found
        return True

    def form(self) -> Form:
        """The matrix by its eigenvectors."""
        assert self.sum is not None
        return Spectral.of(self.sum)


class Factors(Gathering):
    """Kronecker factors of a weight's uses."""

    def __init__(self, like: Factor, uses: Uses) -> None:
        self.like, self.uses = like, uses
        self.arrangement = arranged(like)

    def add(self, factor: Factor) -> bool:
        """Add to the moments of each use."""
        parts = summands(factor)
        if any(arranged(part) != self.arrangement for part in parts):
            return False
        self.uses.add(parts)
        return True

    def form(self) -> Kronecker:
        """L ⊗ R."""
        return self.uses.form(self.like)


class Corrections(Gathering):
    """Second moments of the rows in the eigenbasis of a Kronecker product."""

    def __init__(self, product: Kronecker) -> None:
        self.product = product
        self.sum = torch.zeros_like(product.values)

    def add(self, factor: Factor) -> bool:
        """Add the squares of the rows' coordinates."""
        turned = [turn(part, self.product) for part in summands(factor)]
        self.sum += squares(turned[0] if len(turned) == 1 else Total(turned))
        return True

    def form(self) -> Form:
        """The product with these as eigenvalues."""
        return self.product.corrected(self.sum)


def turn(factor: Factor, product: Kronecker) -> Factor:
    """Rows in the eigenbasis of a product: columns (left, right)."""
    left, right = product.left, product.right
    if isinstance(factor, Lookup):
        g = right.turn(factor.g)
        if left.vectors is None:
            return Lookup(factor.tokens, g, factor.size)
        return Outer(left.vectors[factor.tokens], g, bias=False, transposed=True)
    assert isinstance(factor, Outer)
    inputs, outputs = (left, right) if factor.transposed else (right, left)
    x, g = inputs.turn(factor.x), outputs.turn(factor.g)
    return Outer(x, g, bias=False, transposed=factor.transposed)


def summands(factor: Factor) -> Sequence[Factor]:
    """The factors of the same rows that one is the sum of; weights that are all one number inside.

    Rows of a table whose columns are weighted alike are rows of a table.
    """
    if isinstance(factor, Total):
        return [inner for part in factor.parts for inner in summands(part)]
    if isinstance(factor, Weighted) and bool((factor.weights == factor.weights[0]).all()):
        weight = factor.weights[0]
        inner = summands(factor.inner)
        if all(isinstance(part, Outer | Lookup) for part in inner):
            return [_times(part, weight) for part in inner]
    return [factor]


def stretches(factor: Factor, start: int = 0) -> Iterator[tuple[Place, Factor]]:
    """The parts of a factor that stand side by side, by their columns."""
    if isinstance(factor, Grouped):
        for (first, _), part in pieces(factor).items():
            yield from stretches(part, start + first)
    else:
        yield (start, start + factor.width), factor


@dataclass(frozen=True)
class Collection:
    """Blocks that were gathered.

    Attributes:
        forms: By unit and stretch of columns; columns in no stretch are zero.
        unlike: Units whose rows came in forms that cannot be added up: all their columns are one
            stretch.
        ways: How the batches were back-propagated.
    """

    forms: dict[Unit, dict[Place, Form]]
    unlike: frozenset[Unit]
    ways: list[str]


# What to gather for a stretch of a unit, from the first rows on it: nothing if None. The last
# argument says whether the rows are of a unit whose forms cannot be added up.
Choice = Callable[[Unit, Place, Factor, bool], Gathering | None]


def collect(
    root: Root, stage: str, choose: Choice, unlike: frozenset[Unit] = frozenset()
) -> Collection:
    """Blocks of all units of a root, in one pass unless forms turn out to be unlike.

    Args:
        root: A, or A with its columns weighted.
        stage: What progress is called.
        choose: What to gather.
        unlike: Units that are known to be.
    """
    while True:
        gathered: dict[Unit, dict[Place, Gathering | None]] = {unit: {} for unit in root.units}
        culprit = _gather(root, stage, choose, unlike, gathered)
        if culprit is None:
            break
        unlike |= {culprit}
    forms = {
        unit: {place: g.form() for place, g in sorted(found.items()) if g is not None}
        for unit, found in gathered.items()
    }
    return Collection(forms, unlike, list(root.sweep.ways))


def _gather(
    root: Root,
    stage: str,
    choose: Choice,
    unlike: frozenset[Unit],
    gathered: dict[Unit, dict[Place, Gathering | None]],
) -> Unit | None:
    """Go over all rows; the first unit whose forms cannot be added up ends it."""
    for unit, factor in factors(root, stage):
        whole, mine = unit in unlike, gathered[unit]
        parts = [((0, unit.width), factor)] if whole else stretches(factor)
        for place, part in parts:
            if place not in mine:
                if any(place[0] < stop and start < place[1] for start, stop in mine):
                    return unit
                mine[place] = choose(unit, place, part, whole)
            gathering = mine[place]
            if gathering is not None and not gathering.add(part):
                return unit
    return None


def factors(root: Root, stage: str) -> Iterator[tuple[Unit, Factor]]:
    """The rows of each unit in float64, batch by batch, with the root's weights."""
    batches = root.sweep.blocks(root.units, stage)
    while True:
        with isolated(root.problem.dtype):
            blocks = next(batches, None)
        if blocks is None:
            return
        for block in merge(blocks, root.units):
            for unit, factor in block.factors.items():
                wide = factor.to(torch.float64)
                if root.weights is not None:
                    wide = wide.scaled(unit.gather(root.weights[:, None])[:, 0])
                yield unit, wide


def _times(factor: Factor, weight: Tensor) -> Factor:
    if isinstance(factor, Lookup):
        return Lookup(factor.tokens, factor.g * weight, factor.size)
    assert isinstance(factor, Outer)
    return Outer(factor.x, factor.g * weight, bias=factor.bias, transposed=factor.transposed)
