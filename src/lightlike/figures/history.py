"""Curves along a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    Place,
    begin,
    grouped,
    label,
)
from lightlike.length.description import UNITS, check_units

PANELS = (
    ("dimension", (("dimension", BLUE), ("effective_dimension", ORANGE))),
    ("nats", (("length", INK), ("fit", BLUE), ("complexity", ORANGE))),
    ("training loss", (("loss", INK),)),
    ("screen rotation, radians", (("rotation", INK),)),
)
NAMES = {"effective_dimension": "effective"}


def plot_history(
    columns: Mapping[str, Sequence[Any]], *, units: str = "nats", ax: Place = None
) -> Figure:
    """Dimension, length with its terms, loss and rotation of the screen against the step.

    Args:
        columns: Of a `lightlike.History`: `step` and what there is of the others; None is a gap.
            Lengths are in nats.
        units: "nats" or "bits", for lengths.
        ax: Axes to draw in, one for each of dimension, length, loss and rotation that there is.

    Returns:
        A figure with those columns, in these units.

    Raises:
        ChoiceError: if there is no snapshot, or for other units.
    """
    check_units(units)
    lengths = next([name for name, _ in lines] for title, lines in PANELS if title == "nats")
    columns = {
        name: [None if v is None else v * UNITS[units] for v in values]
        if name in lengths
        else list(values)
        for name, values in columns.items()
    }
    steps = list(columns.get("step", ()))
    if not steps:
        raise ChoiceError(
            "The history is empty.",
            "There is no curve to draw.",
            "Call the tracker at least once.",
        )
    shown = [
        (title, [(name, ink) for name, ink in lines if _known(columns.get(name, ()))])
        for title, lines in PANELS
    ]
    shown = [(title, lines) for title, lines in shown if lines]
    names = ["step", *(name for _, lines in shown for name, _ in lines)]
    figure, axes = begin(
        {name: list(columns[name]) for name in names},
        ax,
        panels=len(shown),
        height=1.9 * len(shown) + 0.4,
    )
    for panel, (title, lines) in zip(axes, shown, strict=True):
        for name, ink in lines:
            points = [
                (s, float(v)) for s, v in zip(steps, columns[name], strict=True) if v is not None
            ]
            x, y = zip(*points, strict=True)
            panel.plot(x, y, color=ink, lw=LINE, marker="o", ms=2.5, mew=0)
            label(panel, NAMES.get(name, name), points[-1], xytext=(6, 0), color=ink,
                  fontsize=SMALL)  # fmt: skip
        if title == "dimension" and {"lower", "upper"} <= set(columns):
            panel.fill_between(steps, columns["lower"], columns["upper"], color=GREY, alpha=0.25)
        panel.set_title(
            units if title == "nats" else title,
            loc="left",
            fontsize=TEXT,
            color=INK,
            fontweight="bold",
        )
        panel.set_xlim(steps[0], steps[-1] + 0.14 * max(steps[-1] - steps[0], 1))
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
        grouped(panel, "x")
        grouped(panel, "y")
    axes[-1].set_xlabel("step", fontsize=TEXT, color=INK, labelpad=6)
    return figure


def _known(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)
