"""Which features scale together, and which scales are products of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, eye_array

from lightlike.geometry.symmetry.tracing import FIXED, Classes, Floats, Ints, Trace


@dataclass(frozen=True, eq=False)
class Scales:
    """Classes of features that can only be scaled together, and what their scales are made of.

    Attributes:
        classes: The classes.
        powers: (classes, classes): row i holds the powers of the free scales that the scale of
            class i is a product of: itself, but where a product z = a b makes it that of others.
    """

    classes: Classes
    powers: csr_array

    @property
    def free(self) -> np.ndarray:
        """Classes with a scale of their own."""
        found = np.asarray(self.powers.diagonal() == 1)
        found[self.classes.fixed] = False
        return found

    def spread(self, place: Ints, number: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
        """Entries (coordinate, class, value) with the free classes in place of each class."""
        starts, counts = self.powers.indptr[number], np.diff(self.powers.indptr)[number]
        before = np.cumsum(counts) - counts
        inner = np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
        return (
            np.repeat(place, counts),
            self.powers.indices[inner].astype(np.int64),
            np.repeat(values, counts) * self.powers.data[inner],
        )


def scales_of(trace: Trace) -> Scales:
    """The scales of a trace's features.

    Of a product z = a b with b fixed, z and a scale together; if neither is fixed, z scales as the
    product of both, and if z is fixed, b as 1 / a. Where z scales as a, b is fixed; where it is a
    product in two ways, all are.
    """
    still = [np.stack([mark, np.zeros_like(mark)]) for mark in trace.still]
    links = [*trace.same, *trace.scaled, *trace.tied, *still]
    products = np.concatenate(trace.products, 1) if trace.products else np.zeros((3, 0), np.int64)
    while True:
        classes = Classes(trace.count, links)
        number = classes.number[products]
        fixed = number == classes.fixed
        settled = fixed[1] | fixed[2]
        if settled.any():
            z, a, b = products[:, settled]
            links.append(np.stack([z, np.where(fixed[1][settled], b, a)]))
            products = products[:, ~settled]
            continue
        # z = a b where z and a scale alike: b does not scale.
        for factor, other in ((1, 2), (2, 1)):
            alike = (number[0] == number[factor]) & ~fixed[0]
            links.append(np.stack([products[other, alike], np.full(int(alike.sum()), FIXED)]))
        if ((number[0] == number[1:]) & ~fixed[0]).any():
            continue
        made, bad = _made(number, classes.fixed)
        if not bad.any():
            return Scales(classes, _powers(made, classes.size))
        # All three, so that this ends.
        stopped = products[:, bad].reshape(-1)
        links.append(np.stack([stopped, np.full_like(stopped, FIXED)]))


def _made(number: Ints, fixed: int) -> tuple[dict[int, dict[int, float]], np.ndarray]:
    """Powers of other classes that a class is a product of; and which products cannot be had."""
    made: dict[int, dict[int, float]] = {}
    bad = np.zeros(number.shape[1], dtype=bool)
    for column, (z, a, b) in enumerate(number.T.tolist()):
        target, powers = z, {a: 1.0, b: 1.0} if a != b else {a: 2.0}
        if z == fixed:
            # What one of them gains, the other loses.
            target, powers = max(a, b), {min(a, b): -1.0}
        below, stack = set[int](), list(powers)
        while stack:
            here = stack.pop()
            if here not in below:
                below.add(here)
                stack.extend(made.get(here, ()))
        if target in below or made.get(target, powers) != powers:
            bad[column] = True
        else:
            made[target] = powers
    return made, bad


def _powers(made: dict[int, dict[int, float]], size: int) -> csr_array:
    """Powers of free scales, from factors that may themselves be made of others."""
    own = np.ones(size)
    own[list(made)] = 0.0
    powers = csr_array(eye_array(size).multiply(own[:, None]))
    entries = [(z, a, power) for z, factors in made.items() for a, power in factors.items()]
    rows, columns, values = np.array(entries).reshape(-1, 3).T
    where = rows.astype(np.int64), columns.astype(np.int64)
    step = csr_array((values, where), shape=(size, size))
    total, part = powers, step
    # No class is made of itself, so this ends.
    while part.nnz:
        total = total + part @ powers
        part = csr_array(part @ step)
        part.eliminate_zeros()
    found = csr_array(total)
    found.eliminate_zeros()
    return found
