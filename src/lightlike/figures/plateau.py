"""How the rank depends on the tolerance: a plateau where the dimension is no matter of choice."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lightlike.figures.chart import (
    BLUE,
    GREY,
    LINE,
    ORANGE,
    SMALL,
    Place,
    begin,
    brief,
    entitle,
    grouped,
    label,
    logarithmic,
    name_axes,
)
from lightlike.geometry.dimension import Dimension
from lightlike.spectrum.spectrum import Spectrum

POINTS = 400


def plot_plateau(spectrum: Spectrum, dimension: Dimension, *, ax: Place = None) -> Figure:
    """The number of singular values above t · s_1 against the tolerance t.

    Args:
        spectrum: Of a Fisher matrix.
        dimension: Of the same; its tolerance is marked.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `tolerance`, `rank`.

    Raises:
        UndefinedError: if the spectrum holds the largest eigenvalues only.
    """
    values = spectrum.all("rank at every tolerance").eigenvalues.cpu().numpy()
    relative = np.sqrt(values / values[0]) if len(values) else np.ones(0)
    smallest = float(relative[-1]) if len(values) else 1.0
    least = min(dimension.tolerance / 30.0, smallest / 3.0)
    tolerances = np.logspace(np.log10(least), 0.0, POINTS)
    ranks = [int((relative > t).sum()) for t in tolerances]
    columns = {"tolerance": tolerances.tolist(), "rank": ranks}
    figure, (axes,) = begin(columns, ax, height=3.4)
    axes.plot(tolerances, ranks, color=BLUE, lw=LINE, drawstyle="steps-post")
    axes.set_xlim(least, 1.0)
    axes.set_ylim(0, max(1, *ranks) * 1.15)
    logarithmic(axes, "x")
    grouped(axes, "y")
    axes.axvline(dimension.tolerance, color=ORANGE, lw=1.2)
    label(axes, f"tolerance used, {brief(dimension.tolerance)}", (dimension.tolerance, 0.0),
          xytext=(6, 8), color=ORANGE, fontsize=SMALL)  # fmt: skip
    width = float(np.log10(smallest / dimension.tolerance))
    if width > 0.0:
        axes.axvspan(dimension.tolerance, smallest, color=GREY, alpha=0.18, lw=0, zorder=0)
    orders = "orders" if width >= 1.5 else "order"
    entitle(
        axes,
        f"One dimension over {width:.0f} {orders} of magnitude of tolerance"
        if width >= 1.0
        else "The dimension depends on the tolerance",
        f"the smallest singular value counted is {brief(smallest)} of the largest",
    )
    name_axes(axes, "tolerance, relative to the largest singular value (log)", "rank")
    return figure
