"""What all figures share: their look, and their numbers as columns.

Figures are made with matplotlib's objects alone: no pyplot, no global settings, none read that the
look depends on. Backgrounds are transparent and inks of middle lightness, so that one figure serves
on white and on black; hues are told apart by readers who are colour-blind, and each has a label
beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, NullFormatter

from lightlike.errors import ChoiceError

Columns = Mapping[str, Sequence[Any]]
# Where to draw: a figure of its own, given axes, or given axes for each panel.
Place = Axes | Sequence[Axes] | np.ndarray | None

INK = "#737883"  # contrast 4.4 on white, 4.2 on #111418
BLUE = "#3f7fd0"
ORANGE = "#d2762a"
GREY = "#9aa0aa"
# Shades of one hue for parts of one whole, dark and light in turn.
SHADES = ("#2f6cc0", "#6ea0e0", "#4a85d2", "#8fb6e8", "#3b78ca", "#7eabe4")

SMALL, TEXT, TITLE = 8.5, 9.5, 12.0
THIN, LINE = 0.8, 1.8
RESOLUTION = 150
# Marks titles, for pages that set them in their own type.
HEADING = "heading"


class Chart(Figure):
    """A matplotlib figure with the numbers that it shows.

    Args:
        columns: Name → values, all of one length.
        width: Inches.
        height: Inches.

    Attributes:
        columns: The same, as plain lists.
        heading: Title and the line under it, where the whole figure has one.
    """

    heading: tuple[str, str] = ("", "")

    def __init__(self, columns: Columns, width: float = 7.2, height: float = 4.2) -> None:
        super().__init__(
            figsize=(width, height), dpi=RESOLUTION, layout="constrained",
            facecolor="none", edgecolor="none",
        )  # fmt: skip
        self.columns = {name: list(values) for name, values in columns.items()}

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        out = BytesIO()
        self.savefig(out, format="png")
        return out.getvalue()


def data_of(figure: Figure) -> dict[str, list[Any]]:
    """The numbers that a figure shows: column name → values, all of one length.

    Raises:
        ChoiceError: if it is a figure of another kind.
    """
    if not isinstance(figure, Chart):
        raise ChoiceError(
            f"A {type(figure).__name__} does not know its numbers.",
            "Only figures made here hold them as columns.",
            "Pass what .plot() or a function of lightlike.present.plots returned without ax=.",
        )
    return {name: list(values) for name, values in figure.columns.items()}


def csv_of(figure: Figure) -> str:
    """`data_of` as CSV with a header (RFC 4180, but lines end in a line feed); None is empty."""
    columns = data_of(figure)
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def axes_of(chart: Figure, rows: int = 1, columns: int = 1) -> list[Axes]:
    """The axes of a chart in the common look: two thin spines, no grid, no background."""
    places = range(1, rows * columns + 1)
    return [_dressed(chart.add_subplot(rows, columns, place)) for place in places]


def begin(
    columns: Columns, ax: Place = None, *, panels: int = 1, width: float = 7.2, height: float = 4.2
) -> tuple[Figure, list[Axes]]:
    """A new chart with its axes below one another, or the axes that are given to be drawn in.

    Args:
        columns: The numbers to be shown; given axes do not keep them.
        ax: None, axes, or a sequence of as many as there are panels.
        panels: How many axes are needed.
        width: Inches, of a new chart.
        height: Inches, of a new chart.

    Raises:
        ChoiceError: if these are not as many axes.
    """
    if ax is None:
        chart = Chart(columns, width, height)
        return chart, axes_of(chart, rows=panels)
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) != panels or not all(isinstance(axes, Axes) for axes in given):
        raise ChoiceError(
            f"ax={ax!r} is not what this figure is drawn in.",
            f"It has {panels} panel{'' if panels == 1 else 's'}, each with axes of its own.",
            "Pass matplotlib axes" + ("." if panels == 1 else f", a sequence of {panels}."),
        )
    figure = given[0].figure
    whole = figure.figure if isinstance(figure, SubFigure) else figure
    return whole, [_dressed(axes) for axes in given]


def _dressed(axes: Axes) -> Axes:
    axes.set_facecolor("none")
    axes.grid(visible=False, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(THIN)
    axes.tick_params(
        which="major", colors=INK, labelsize=SMALL, labelcolor=INK, length=3.5, width=THIN,
        direction="out",
    )  # fmt: skip
    axes.tick_params(which="minor", color=INK, length=2.0, width=0.5, direction="out")
    axes.set_axisbelow(True)
    return axes


def entitle(axes: Axes, title: str, below: str = "") -> None:
    """A title that says what is to be seen, and a smaller line under it."""
    pad = 24.0 if below else 10.0
    axes.set_title(
        title, loc="left", fontsize=TITLE, color=INK, fontweight="bold", pad=pad, gid=HEADING
    )
    if isinstance(axes.figure, Chart):
        axes.figure.heading = title, below
    if below:
        axes.annotate(
            below, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
            fontsize=TEXT, color=INK, ha="left", va="bottom", annotation_clip=False, gid=HEADING,
        )  # fmt: skip


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Names of both axes, with units."""
    axes.set_xlabel(x, fontsize=TEXT, color=INK, labelpad=6)
    axes.set_ylabel(y, fontsize=TEXT, color=INK, labelpad=6)


def label(axes: Axes, text: str, at: tuple[float, float], **options: Any) -> None:
    """Text beside what it names; position in data, offset in points."""
    settings: dict[str, Any] = dict(
        xytext=(0, 0), textcoords="offset points", fontsize=TEXT, color=INK,
        ha="left", va="center", annotation_clip=False,
    ) | options  # fmt: skip
    axes.annotate(text, at, **settings)


def logarithmic(axes: Axes, which: str) -> None:
    """A log axis that shows whole numbers as such up to 100,000, powers of ten beyond."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="mask")
    low, high = axis.get_view_interval()
    if low >= 0.5 and high <= 3e5:
        if high < 300 * low:
            axis.set_major_locator(LogLocator(base=10.0, subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=True))
        axis.set_major_locator(LogLocator(base=10.0, numticks=8))
    axis.set_minor_formatter(NullFormatter())


def grouped(axes: Axes, which: str) -> None:
    """Numbers on a linear axis with commas, whole ones without decimals."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def brief(value: float) -> str:
    """A number to read in running text: 0.72, 1,500, 3 × 10⁻⁹."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.3g}" if abs(value) < 1e3 else f"{value:,.0f}"
    digits, _, power = f"{value:.1e}".partition("e")
    digits = digits.removesuffix(".0")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits} × 10{raised}"


def tail_of(name: str, width: int = 36) -> str:
    """A name with its end alone where it is long, as that of a file is: axes need room."""
    return name if len(name) <= width else "…" + name[1 - width :]
