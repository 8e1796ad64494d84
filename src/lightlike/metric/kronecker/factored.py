"""KFAC, EKFAC, the diagonal and exact blocks of the Fisher matrix, from the rows of its root."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightlike.errors import CapacityError, ChoiceError, choice_error
from lightlike.metric.contractions import Factor
from lightlike.metric.kronecker.approximation import ApproximateFisher, Part, part_of
from lightlike.metric.kronecker.arrangement import arranged
from lightlike.metric.kronecker.collecting import (
    Corrections,
    Factors,
    Gathering,
    Place,
    Products,
    Squares,
    collect,
    summands,
)
from lightlike.metric.kronecker.forms import Diagonal, Form, Kronecker, Spectral
from lightlike.metric.kronecker.uses import Uses
from lightlike.metric.root import Root
from lightlike.metric.units import Unit
from lightlike.numbers import check_truth, check_whole
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.memory import format_bytes

SHARINGS = ("expand", "reduce")
GROUPS = ("layer", "parameter")

# Blocks without structure are exact up to this many columns, and sides of Kronecker products full
# up to this length; both are diagonal beyond.
SMALL, LARGEST = 1024, 8192

Exact = Callable[[], Decomposition]


def kronecker_factored(
    root: Root,
    exact: Exact,
    *,
    eigenvalue_correction: bool = False,
    sharing: str = "expand",
    small: int = SMALL,
    largest: int = LARGEST,
) -> ApproximateFisher:
    """KFAC or EKFAC of a root: see `lightlike.Fisher.kronecker`."""
    if sharing not in SHARINGS:
        raise choice_error("sharing", sharing, [*map(repr, SHARINGS)])
    check_truth("eigenvalue_correction", eigenvalue_correction)
    check_whole("small", small, 0)
    check_whole("largest", largest, 0)

    def choose(_: Unit, place: Place, factor: Factor, unlike: bool) -> Gathering:
        parts = summands(factor)
        mine = arranged(parts[0])
        if mine is not None and not unlike and all(arranged(part) == mine for part in parts):
            return Factors(parts[0], Uses(sharing, largest))
        return Products() if place[1] - place[0] <= small else Squares()

    found = collect(root, "Kronecker factors", choose)
    if sharing == "reduce" and "whole" in found.ways:
        raise ChoiceError(
            "sharing='reduce' takes means over a sample's positions, and the samples of a batch "
            "cannot be told apart in this model.",
            "The mean would be over the positions of all of them.",
            "Use sharing='expand', or batches of one sample.",
        )
    forms = found.forms
    if eigenvalue_correction:

        def correct(unit: Unit, place: Place, _: Factor, __: bool) -> Gathering | None:
            form = forms[unit].get(place)
            return Corrections(form) if isinstance(form, Kronecker) else None

        corrected = collect(root, "Eigenvalue corrections", correct, found.unlike)
        forms = {unit: forms[unit] | corrected.forms[unit] for unit in forms}
    structure = "kronecker, corrected" if eigenvalue_correction else "kronecker"
    parts = [
        part_of(unit, place, form, structure if isinstance(form, Kronecker) else _name(form))
        for unit, places in forms.items()
        for place, form in places.items()
    ]
    method = "ekfac" if eigenvalue_correction else "kfac"
    return ApproximateFisher(root, method, parts, exact, found.ways)


def diagonal(root: Root, exact: Exact) -> ApproximateFisher:
    """The exact diagonal: see `lightlike.Fisher.diagonal`."""
    found = collect(root, "Diagonal", lambda *_: Squares())
    parts = [
        part_of(unit, place, form, "diagonal")
        for unit, places in found.forms.items()
        for place, form in places.items()
    ]
    return ApproximateFisher(root, "diagonal", parts, exact, found.ways)


def blocks(root: Root, exact: Exact, by: str, budget: float) -> ApproximateFisher:
    """The exact block diagonal: see `lightlike.Fisher.blocks`."""
    if by not in GROUPS:
        raise choice_error("by", by, [*map(repr, GROUPS)])
    layers = root.problem.selection.layers()
    parts, held = [], 0.0
    for layer in list(layers) if root.layer is None else [root.layer]:
        own = root.of_layer(layer) if root.layer is None else root
        rows, columns = own.shape
        # The rows, a decomposition, and the eigenvectors that are kept.
        need = held + 8.0 * (3 * rows * columns + 2 * min(rows, columns) ** 2)
        if need > budget:
            raise CapacityError(
                f"The block of layer {layer!r}, {columns:,} columns and {rows:,} rows, needs "
                f"{format_bytes(need)} of {format_bytes(budget)} with those before it.",
                "Going on would swap or be killed half-way.",
                "Use kronecker() or diagonal(), measure fewer observations, or raise memory=... if "
                "more is there.",
            )
        A, entries = own.dense(), layers[layer]
        first = entries[0].start
        base = first if root.layer is None else 0
        for group in [entries] if by == "layer" else [[entry] for entry in entries]:
            start, stop = group[0].start - first, group[-1].stop - first
            form = block_of(A[:, start:stop])
            if form is not None:
                names = tuple(entry.name for entry in group)
                where = (slice(base + start, base + stop),)
                parts.append(Part(layer, names, "dense", where, form))
                held += 8.0 * form.width * len(form.values)
    return ApproximateFisher(root, f"blocks by {by}", parts, exact, root.sweep.ways)


def block_of(rows: Tensor) -> Form | None:
    """RᵀR by its eigenvectors; None if it is zero."""
    if not bool((rows != 0).any()):
        return None
    count, width = rows.shape
    return Spectral.of_rows(rows) if count < width else Spectral.of(rows.T @ rows)


def _name(form: Form) -> str:
    return "diagonal" if isinstance(form, Diagonal) else "dense"
