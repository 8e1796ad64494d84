"""Differences between networks' lengths, with their errors."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightlike.errors import ChoiceError
from lightlike.figures.chart import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    TEXT,
    THIN,
    Place,
    begin,
    entitle,
    grouped,
    tail_of,
)

# Standard errors on either side that are drawn thin.
WIDE = 2.0


def plot_forest(
    entries: Sequence[tuple[str, float, float]], units: str = "nats", *, ax: Place = None
) -> Figure:
    """Each network's length minus the best one's, with one and two standard errors.

    Args:
        entries: Name, difference and standard error; the best first, with difference 0.
        units: Of the differences.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `network`, `difference`, `stderr`.

    Raises:
        ChoiceError: if there are none.
    """
    if not entries:
        raise ChoiceError(
            "There are no differences to draw.", "A forest needs a tree.", "Give at least one."
        )
    names, differences, errors = zip(*entries, strict=True)
    columns = {"network": names, "difference": differences, "stderr": errors}
    figure, (axes,) = begin(columns, ax, height=1.7 + 0.34 * len(names))
    for place, (_, difference, error) in zip(range(len(names))[::-1], entries, strict=True):
        # Undecided ones in another hue: zero lies within two errors.
        colour = BLUE if difference > WIDE * error or not error else ORANGE
        for reach, width in ((WIDE, THIN), (1.0, 3.0)):
            ends = [difference - reach * error, difference + reach * error]
            axes.plot(ends, [place, place], color=colour, lw=width, solid_capstyle="butt")
        axes.plot([difference], [place], ls="", marker="o", ms=6, mew=0, color=colour)
    axes.axvline(0.0, color=GREY, lw=THIN, zorder=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(list(range(len(names)))[::-1], [tail_of(name) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=TEXT, pad=6)
    axes.spines["left"].set_visible(False)
    grouped(axes, "x")
    axes.set_xlabel(f"{units} more than the best", fontsize=TEXT, color=INK, labelpad=6)
    clear = all(d > WIDE * e for _, d, e in entries[1:])
    entitle(
        axes,
        f"{names[0]} is the shortest" + ("" if clear else ", though not beyond doubt"),
        "thick: one standard error of the paired difference; thin: two",
    )
    return figure
