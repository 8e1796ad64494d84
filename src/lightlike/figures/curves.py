"""The dimension as a curve: against observations, and along a path."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightlike.errors import ChoiceError
from lightlike.figures.chart import (
    BLUE,
    GREY,
    INK,
    LINE,
    ORANGE,
    SMALL,
    THIN,
    Place,
    begin,
    entitle,
    grouped,
    label,
    logarithmic,
    name_axes,
)
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.saturation import Saturation
from lightlike.geometry.variation import DimensionPath

# Ratio of the largest to the smallest number of observations from which both axes are logarithmic.
WIDE = 12.0
# Points of a path that are drawn one by one.
POINTS = 60


def plot_saturation(saturation: Saturation, *, ax: Place = None) -> Figure:
    """The dimension against the number of observations, under the line K = n · rank Λ.

    Both axes are logarithmic where the numbers of observations span more than a factor of 12; the
    line is straight either way. Bounds that differ are drawn as vertical bars.

    Args:
        saturation: From `lightlike.saturation`.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `observations`, `rows`, `dimension`, `lower`, `upper`, `kind`.
    """
    s = saturation
    columns = {"observations": s.sizes, "rows": s.rows, **_columns(s.dimensions)}
    figure, (axes,) = begin(columns, ax)
    d, last = s.dimension.value, s.sizes[-1]
    values = [x.value for x in s.dimensions]
    wide = last > WIDE * s.sizes[0] and min(values) > 0
    entitle(axes, *_verdict(s))
    name = " (log)" if wide else ""
    name_axes(axes, f"observations n{name}", f"dimension d̂{name}")
    top = max(d, 1) * (1.9 if wide else 1.25)
    if wide:
        axes.set_xlim(s.sizes[0] / 1.1, last * 1.08)
        axes.set_ylim(max(0.5, min(values) / 1.4), top)
        logarithmic(axes, "x")
        logarithmic(axes, "y")
    else:
        axes.set_xlim(0, last * 1.04)
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        grouped(axes, "x")
        grouped(axes, "y")
    start, end = (s.sizes[0] if wide else 0), min(last, top / s.rank)
    axes.plot([start, end], [start * s.rank, end * s.rank], color=GREY, lw=1.2, ls=(0, (4, 3)))
    _name_line(axes, s, start, end, wide=wide)
    _curve(axes, s.sizes, s.dimensions, points=True)
    if s.point is not None:
        a, b = s.point
        exact = b == a + 1
        axes.plot([b, b], [axes.get_ylim()[0], d], color=ORANGE, lw=THIN, ls=(0, (1, 2)), zorder=1)
        axes.plot([b], [d], ls="", marker="o", ms=7, mfc="none", mec=ORANGE, mew=1.4, zorder=5)
        label(axes, f"n = {b:,}" if exact else f"n from {a + 1:,} to {b:,}",
              (b, axes.get_ylim()[0]), xytext=(5, 9), color=ORANGE, fontweight="bold")  # fmt: skip
    label(axes, f"d̂ = {d:,}", (last, values[-1]), xytext=(0, 10), ha="right", color=BLUE,
          fontweight="bold")  # fmt: skip
    return figure


def plot_path(
    dims: DimensionPath | Sequence[Dimension],
    at: Sequence[float] | None = None,
    *,
    name: str = "point",
    ax: Place = None,
) -> Figure:
    """The dimension at each point of a path, such as checkpoints.

    Args:
        dims: From `lightlike.dimension_path`, or dimensions in order.
        at: Where each stands on the horizontal axis, such as steps of training; 0, 1, 2, … unless
            given.
        name: Of the horizontal axis, with its unit.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `at`, `dimension`, `lower`, `upper`, `kind`.

    Raises:
        ChoiceError: if there is no point, or `at` has another length.
    """
    dimensions = dims.dimensions if isinstance(dims, DimensionPath) else tuple(dims)
    places = list(range(len(dimensions))) if at is None else list(at)
    if not dimensions or len(places) != len(dimensions):
        raise ChoiceError(
            f"There are {len(dimensions)} dimensions and {len(places)} places for them.",
            "Each point of the path has one of both.",
            "Give one or more dimensions and as many places, or none.",
        )
    figure, (axes,) = begin({"at": places, **_columns(dimensions)}, ax)
    values = [d.value for d in dimensions]
    low, high = min(d.lower for d in dimensions), max(d.upper for d in dimensions)
    room = max(1.0, 0.12 * (high - low))
    axes.set_ylim(max(low - room, -0.5), high + room)
    margin = 0.03 * ((max(places) - min(places)) or 1.0)
    axes.set_xlim(min(places) - margin, max(places) + margin)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    if all(float(p).is_integer() for p in places):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8))
    grouped(axes, "x")
    grouped(axes, "y")
    _curve(axes, places, dimensions, points=len(places) <= POINTS)
    for index in dict.fromkeys((0, values.index(min(values)), len(values) - 1)):
        lowest = values[index] == min(values) < max(values)
        edge = {0: "left", len(values) - 1: "right"}.get(index, "center")
        label(axes, f"{values[index]:,}", (places[index], values[index]),
              xytext=(0, -11 if lowest else 11), ha=edge,
              color=ORANGE if lowest else BLUE, fontweight="bold")  # fmt: skip
    kinds = {d.kind for d in dimensions}
    worth = "each exact" if kinds == {"exact"} else "vertical bars: certain bounds"
    entitle(axes, _course(values), f"{len(values)} points, {worth}; the axis does not start at 0"
            if axes.get_ylim()[0] > 0 else f"{len(values)} points, {worth}")  # fmt: skip
    name_axes(axes, name, "dimension d̂")
    return figure


def _columns(dimensions: Sequence[Dimension]) -> dict[str, list[int | str]]:
    return {
        "dimension": [d.value for d in dimensions],
        "lower": [d.lower for d in dimensions],
        "upper": [d.upper for d in dimensions],
        "kind": [d.kind for d in dimensions],
    }


def _curve(
    axes: Axes, places: Sequence[float], dimensions: Sequence[Dimension], *, points: bool
) -> None:
    values = [d.value for d in dimensions]
    open_ = [(x, d) for x, d in zip(places, dimensions, strict=True) if d.lower < d.upper]
    if open_:
        axes.vlines([x for x, _ in open_], [d.lower for _, d in open_],
                    [d.upper for _, d in open_], color=INK, lw=1.2, zorder=3)  # fmt: skip
    axes.plot(places, values, color=BLUE, lw=LINE, zorder=4, marker="o" if points else "",
              ms=4.2, mew=0, solid_capstyle="round")  # fmt: skip


def _name_line(axes: Axes, s: Saturation, start: float, end: float, *, wide: bool) -> None:
    """Beside the line where it goes on above the curve, if there is room; else halfway up."""
    text = f"K = {s.rank} n: every row counts" if s.rank > 1 else "K = n: every row counts"
    low, high = axes.get_xlim()
    share = math.log(end / low) / math.log(high / low) if wide else end / high
    if s.point is not None and share < 0.6:
        where = end / (1.2 if wide else 1.08)
        label(axes, text, (where, where * s.rank), xytext=(9, 0), fontsize=SMALL)
    else:
        where = math.sqrt(start * end) if wide else 0.5 * (start + end)
        # Below, where it is free: the curve runs on the line or under it, and both rise.
        label(axes, text, (where, where * s.rank), xytext=(12, -16), fontsize=SMALL)


def _verdict(s: Saturation) -> tuple[str, str]:
    kinds = {d.kind for d in s.dimensions}
    worth = "every rank exact" if kinds == {"exact"} else "vertical bars: certain bounds"
    below = f"nested subsets of {s.observations:,} observations, D = {s.parameters:,}; {worth}"
    if not s.dimension.value:
        return "No direction changes the predictions", below
    if s.point is None:
        if kinds != {"exact"}:
            return "Where the dimension saturates is hidden by rounding", below
        return "Not saturated: the last observations still add dimensions", below
    a, b = s.point
    where = f"{b:,}" if b == a + 1 else f"{a + 1:,} to {b:,}"
    return f"{where} observations pin down all {s.dimension.value:,} dimensions", below


def _course(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    if low == high:
        return f"The dimension stays at {low:,}"
    if values[0] == values[-1]:
        return f"The dimension is {values[0]:,} at both ends, {low:,} to {high:,} between"
    return f"The dimension goes from {values[0]:,} to {values[-1]:,}"
