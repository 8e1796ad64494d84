"""The description length, term by term, and beside the codes that know less."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from lightlike.errors import ChoiceError
from lightlike.figures.chart import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SMALL,
    TEXT,
    THIN,
    Columns,
    Place,
    begin,
    entitle,
    grouped,
    label,
)
from lightlike.length.codelength import CodeLength
from lightlike.length.description import UNITS, DescriptionLength

TERMS = {
    "fit": "fit: the labels given the network",
    "displacement": "displacement from the prior mean",
    "dimension_term": "dimension: (d/2) log N",
    "spectrum_term": "spectrum: ½ Σ log(λ + 1/N)",
    "prior_term": "prior beyond a Gaussian",
}
# In place of the last two where eigenvalues were not counted.
WHOLE = {"complexity": "complexity: ½ log det(I + N Σ^½ Î Σ^½)"}
# The last is 0 unless the prior is more than a Gaussian.
ALWAYS = ("fit", "displacement", "dimension_term", "spectrum_term")
# Codes that know nothing of the inputs, as lines to be beaten.
RIVALS = {"uniform": "uniform code", "label_entropy": "label entropy"}


def plot_length(
    length: DescriptionLength,
    criteria: Mapping[str, float | None] | None = None,
    *,
    ax: Place = None,
) -> Figure:
    """The terms of a length as steps of a waterfall, from nothing to the total.

    Args:
        length: With labels.
        criteria: As `lightlike.lengths.criteria` has them, in nats; of these the uniform code and
            the label entropy are drawn as lines.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `term`, `start`, `stop`, `value`; the last row is the total.

    Raises:
        ChoiceError: if the length has no fit term.
    """
    if length.total is None:
        raise ChoiceError(
            "A length without labels has no total.",
            "Its steps would end nowhere.",
            "Measure with labels.",
        )
    factor = UNITS[length.units] * length.scale
    counted = length.dimension_term is not None
    always = ALWAYS if counted else (*ALWAYS, *WHOLE)
    return plot_steps(
        {
            name: float(getattr(length, name))
            for name in (TERMS if counted else ("fit", "displacement", *WHOLE, "prior_term"))
            if name in always or length.prior_term
        },
        length.total,
        unit_of(length),
        f"{length.observations:,} labels, {length.kind}",
        rivals={RIVALS[k]: v * factor for k, v in (criteria or {}).items() if k in RIVALS and v},
        ax=ax,
    )


def plot_steps(
    terms: Mapping[str, float],
    total: float,
    unit: str,
    below: str,
    *,
    rivals: Mapping[str, float] | None = None,
    ax: Place = None,
) -> Figure:
    """Terms as steps of a waterfall, from nothing to their sum.

    Args:
        terms: Name → value, in order.
        total: Their sum.
        unit: Of all.
        below: A line under the title.
        rivals: Lengths to be beaten, by name, as lines.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `term`, `start`, `stop`, `value`; the last row is the total.
    """
    rivals = rivals or {}
    steps: list[tuple[str, float, float]] = []
    reached = 0.0
    for name, value in terms.items():
        steps.append((name, reached, reached + value))
        reached += value
    steps.append(("total", 0.0, total))
    columns: Columns = {
        "term": [name for name, *_ in steps],
        "start": [start for _, start, _ in steps],
        "stop": [stop for *_, stop in steps],
        "value": [stop - start for _, start, stop in steps],
    }
    figure, (axes,) = begin(columns, ax, height=1.4 + 0.4 * len(steps))
    ends = [e for _, a, b in steps for e in (a, b)] + list(rivals.values())
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = (high - low) or 1.0
    axes.set_xlim(low - 0.02 * room, high + 0.16 * room)
    axes.set_ylim(-0.5, len(steps) - 0.3 + 0.5 * bool(rivals))
    places = range(len(steps))[::-1]
    digits = 1 if max(abs(low), abs(high)) >= 10.0 else 4
    for place, (name, start, stop) in zip(places, steps, strict=True):
        colour = INK if name == "total" else BLUE if stop >= start else ORANGE
        axes.barh(place, stop - start, left=start, height=0.5, color=colour, lw=0)
        if name != "total":
            axes.plot([stop, stop], [place - 0.75, place - 0.25], color=GREY, lw=THIN)
        text = _signed(stop - start, digits, first=place == places[0] or name == "total")
        label(axes, text, (max(start, stop), place), xytext=(6, 0), fontsize=TEXT,
              fontweight="bold" if name == "total" else "normal")  # fmt: skip
    for value, names in _grouped(rivals, 0.03 * room).items():
        axes.axvline(value, color=GREY, lw=THIN, ls=(0, (3, 2)), zorder=0)
        right = value > low + 0.3 * room
        label(axes, names, (value, len(steps) - 0.3), xytext=(-5 if right else 5, 0),
              ha="right" if right else "left", fontsize=SMALL)  # fmt: skip
    axes.axvline(0.0, color=GREY, lw=THIN, zorder=0)
    axes.set_yticks(list(places), [(TERMS | WHOLE).get(name, name) for name, *_ in steps])
    axes.tick_params(axis="y", length=0, labelsize=TEXT, pad=6)
    grouped(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(unit, fontsize=TEXT, color=INK, labelpad=6)
    entitle(axes, f"{total:,.{digits}f} {unit} describe the labels", below)
    return figure


def unit_of(length: DescriptionLength | CodeLength) -> str:
    """Of its numbers."""
    return length.units if length.scale == 1.0 else f"{length.units} per label"


def _grouped(lines: Mapping[str, float], apart: float) -> dict[float, str]:
    """Names of lines, those that lie too near one another to be told apart together."""
    found: dict[float, str] = {}
    for name, value in lines.items():
        near = next((v for v in found if abs(v - value) < apart), None)
        found[value if near is None else near] = name if near is None else f"{found[near]}, {name}"
    return found


def _signed(value: float, digits: int, *, first: bool) -> str:
    sign = "" if first and value >= 0 else "+ " if value >= 0 else "− "
    return f"{sign}{abs(value):,.{digits}f}"
