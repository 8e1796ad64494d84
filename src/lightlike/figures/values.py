"""Single numbers drawn: with what they may be off by, as bars, or as a curve with a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightlike.errors import ChoiceError
from lightlike.figures.chart import (
    BLUE,
    GREY,
    INK,
    LINE,
    ORANGE,
    SMALL,
    TEXT,
    THIN,
    Columns,
    Place,
    begin,
    brief,
    entitle,
    grouped,
    label,
    logarithmic,
    name_axes,
)


@dataclass(frozen=True)
class Value:
    """A number with its name and limits; both limits are the number itself if it is exact."""

    name: str
    value: float
    low: float
    high: float


def plot_values(
    values: Sequence[Value],
    title: str,
    below: str = "",
    axis: str = "",
    *,
    marks: Mapping[str, float] | None = None,
    ratio: bool = False,
    ax: Place = None,
) -> Figure:
    """Numbers as points with their limits, one below the other.

    Args:
        values: At least one; infinite limits are drawn to the edge.
        title: What is to be seen.
        below: A line under it.
        axis: Name of the horizontal axis, with its unit.
        marks: Numbers to compare with, by name, as vertical lines.
        ratio: Whether the axis is logarithmic; numbers that are not positive have no place there.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `name`, `value`, `low`, `high`.

    Raises:
        ChoiceError: if there is none.
    """
    _demand(values)
    columns: Columns = {
        "name": [v.name for v in values],
        "value": [v.value for v in values],
        "low": [v.low for v in values],
        "high": [v.high for v in values],
    }
    marks = marks or {}
    figure, (axes,) = begin(columns, ax, height=1.8 + 0.3 * len(values))
    seen = [x for v in values for x in (v.value, v.low, v.high) if math.isfinite(x)]
    seen += [x for x in marks.values() if math.isfinite(x)]
    _limit(axes, seen, ratio)
    left, right = axes.get_xlim()
    places = range(len(values))[::-1]
    for place, v in zip(places, values, strict=True):
        if v.low < v.high:
            ends = [max(v.low, left), min(v.high, right)]
            axes.plot(ends, [place, place], color=BLUE, lw=2.4, solid_capstyle="butt")
        axes.plot([v.value], [place], ls="", marker="o", ms=6, mew=0, color=BLUE, clip_on=False)
        label(axes, brief(v.value), (min(max(v.value, left), right), place), xytext=(0, 10),
              ha="center", color=BLUE, fontsize=SMALL)  # fmt: skip
    for name, value in marks.items():
        axes.axvline(value, color=ORANGE, lw=1.2, ls=(0, (3, 2)), zorder=0)
        far = value > (math.sqrt(left * right) if ratio else 0.5 * (left + right))
        label(axes, f"{name}, {brief(value)}", (value, -0.5), xytext=(-5 if far else 5, 0),
              ha="right" if far else "left", color=ORANGE, fontsize=SMALL)  # fmt: skip
    axes.set_ylim(-0.8, len(values) - 0.35)
    _name_rows(axes, [v.name for v in values])
    axes.set_xlabel(axis, fontsize=TEXT, color=INK, labelpad=6)
    entitle(axes, title, below)
    return figure


def plot_amounts(
    amounts: Sequence[tuple[str, float]],
    title: str,
    below: str = "",
    *,
    texts: Sequence[str] | None = None,
    marks: Mapping[str, float] | None = None,
    hues: Sequence[str] | None = None,
    ax: Place = None,
) -> Figure:
    """Amounts as horizontal bars that start at 0, in the order given.

    Args:
        amounts: Names and amounts, at least one.
        title: What is to be seen.
        below: A line under it.
        texts: What stands beside each bar; the amount unless given.
        marks: Amounts to compare with, by name, as vertical lines.
        hues: Colour of each bar; blue unless given.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `name`, `value`.

    Raises:
        ChoiceError: if there is none.
    """
    _demand(amounts)
    names, values = [name for name, _ in amounts], [float(value) for _, value in amounts]
    marks = marks or {}
    columns: Columns = {"name": names, "value": values}
    figure, (axes,) = begin(columns, ax, height=max(1.9, 1.25 + 0.28 * len(names)))
    places = list(range(len(names))[::-1])
    axes.barh(places, values, height=0.6, color=list(hues) if hues else BLUE, lw=0)
    ends = [0.0, *values, *marks.values()]
    room = (max(ends) - min(ends)) or 1.0
    axes.set_xlim(min(ends) - (0.02 if min(ends) else 0.0) * room, max(ends) + 0.14 * room)
    axes.set_ylim(-0.6, len(names) - 0.4 + 0.5 * bool(marks))
    for place, value, text in zip(
        places, values, texts or [brief(value) for value in values], strict=True
    ):
        label(axes, text, (max(value, 0.0), place), xytext=(5, 0))
    for name, value in marks.items():
        axes.axvline(value, color=ORANGE, lw=1.2, ls=(0, (3, 2)), zorder=0)
        label(axes, name, (value, len(names) - 0.3), xytext=(-5, 0), ha="right", color=ORANGE,
              fontsize=SMALL)  # fmt: skip
    axes.axvline(0.0, color=GREY, lw=THIN, zorder=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    _name_rows(axes, names)
    entitle(axes, title, below)
    return figure


def plot_band(
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    title: str,
    below: str = "",
    *,
    ax: Place = None,
) -> Figure:
    """Many numbers against their place, with their limits as a band.

    Returns:
        A figure with columns `index`, `value`, `low`, `high`.

    Raises:
        ChoiceError: if there is none.
    """
    _demand(values)
    index = list(range(len(values)))
    columns: Columns = {"index": index, "value": values, "low": low, "high": high}
    figure, (axes,) = begin(columns, ax)
    axes.fill_between(index, low, high, color=BLUE, alpha=0.25, lw=0, step="mid")
    axes.plot(
        index, values, color=BLUE, lw=LINE if len(index) < 200 else THIN, drawstyle="steps-mid"
    )
    grouped(axes, "x")
    grouped(axes, "y")
    name_axes(axes, "index", "value")
    entitle(axes, title, below)
    return figure


def _demand(values: Sequence[object]) -> None:
    if not values:
        raise ChoiceError(
            "There is nothing to draw.",
            "A figure without a number shows nothing.",
            "Give a result that has one at least.",
        )


def _limit(axes: Axes, seen: Sequence[float], ratio: bool) -> None:
    """Limits of the horizontal axis: from 0 unless it is logarithmic."""
    if ratio:
        positive = [x for x in seen if x > 0.0] or [1.0]
        axes.set_xlim(min(positive) / 10, max(positive) * 10)
        logarithmic(axes, "x")
        return
    low, high = min(0.0, *seen), max(0.0, *seen)
    room = (high - low) or 1.0
    axes.set_xlim(low - (0.08 * room if low < 0.0 else 0.0), high + 0.08 * room)
    grouped(axes, "x")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(list(range(len(names)))[::-1], list(names))
    axes.tick_params(axis="y", length=0, labelsize=TEXT, pad=6)
    axes.spines["left"].set_visible(False)
