"""What an approximation takes, roughly, told before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator

from lightlike.errors import CapacityError
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.root import Root
from lightlike.metric.units import Unit
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT, Route

# Matrices of a side or block that are held at once: it, its eigenvectors, and a workspace.
COPIES = 3


def approximation_route(root: Root, options: Kronecker) -> Route:
    """The approximation as a route: operations and peak memory."""
    rows, columns = root.shape
    cost = root.cost()
    sides = sides_of(root, options)
    decompositions = EIGENVALUE_WEIGHT * 4 / 3 * sum(float(size) ** 3 for size in sides)
    passes = 2 if options.form == "ekfac" else 1
    products = 2.0 * rows * sum(float(size) ** 2 for size in sides)
    held = 8.0 * COPIES * sum(float(size) ** 2 for size in sides) + 8.0 * columns
    if options.form == "blocks":
        widest = max((unit.width for unit in root.units), default=0)
        held += 8.0 * 2 * rows * widest
    return Route(
        "kronecker",
        passes * cost.row_operations + products + decompositions,
        cost.fixed_memory + held,
        f"{options.form}, a block a layer, largest side {max(sides, default=0):,}",
        exact=False,
    )


def sides_of(root: Root, options: Kronecker) -> list[int]:
    """Sizes of the square matrices that all blocks are made of."""
    return [size for unit in root.units for size in _sides(unit, root.shape[0], options)]


def check_memory(root: Root, options: Kronecker, budget: float) -> None:
    """Raise a CapacityError if an approximation does not fit in a budget of bytes."""
    route = approximation_route(root, options)
    if route.fits(budget):
        return
    raise CapacityError(
        f"The approximation ({route.reason}) needs {format_bytes(route.memory)} of "
        f"{format_bytes(budget)}.",
        "Going on would swap or be killed half-way.",
        "Give Kronecker a smaller largest=..., so that long sides are diagonal, or "
        "Kronecker('diagonal'); or raise memory=... if more is there.",
    )


def _sides(unit: Unit, rows: int, options: Kronecker) -> Iterator[int]:
    """Sizes of the square matrices that a unit's block is made of."""
    if options.form == "diagonal":
        return
    if options.form == "blocks":
        yield min(unit.width, rows)
        return
    weight = unit.entries[0].shape
    if unit.contracted and len(weight) > 1:
        left, bias = weight[0], len(unit.entries) > 1
        for size in (left, unit.entries[0].size // left + bias):
            if size <= options.largest:
                yield size
    elif unit.width <= options.small:
        yield unit.width
