"""The spectrum, what is too small to be resolved, and the cut that decides the rank."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    brief,
    entitle,
    label,
    logarithmic,
    name_axes,
)
from lightlike.geometry.dimension import Dimension
from lightlike.spectrum.spectrum import Spectrum

# Orders of magnitude below the floor that are drawn.
STRIP = 2.5
ROUTES = {
    "gram": "the Gram matrix",
    "metric": "the Fisher matrix",
    "svd": "singular values",
    "sketch": "random sketches",
    "lanczos": "Lanczos steps",
    "dense": "the matrix itself",
    "ekfac": "EKFAC, an approximation",
    "kfac": "KFAC, an approximation",
    "blocks by layer": "the blocks of layers, an approximation",
    "diagonal": "the diagonal, an approximation",
}
# Eigenvalues that are drawn as single points.
POINTS = 80
# Shares of the width: a label that ends farther to the right leaves the one of the floor alone, as
# does one that begins here.
FAR, BESIDE = 0.8, 0.42
# Relative errors that can be seen on a logarithmic axis.
VISIBLE = 0.01


def plot_spectrum(spectrum: Spectrum, dimension: Dimension, *, ax: Place = None) -> Figure:
    """Eigenvalues λ_k of Î against k, both logarithmic, with floor and cut.

    Shaded is what lies below the route's floor, where rounding hides eigenvalues, or where none was
    computed if the spectrum holds the largest only; the vertical line is d̂, with a band where its
    bounds differ. A band about the curve is what eigenvalues may be off by, where that can be seen;
    the curve is dashed if they are estimates. An open point is the largest eigenvalue computed
    below the cut, if there is one.

    Args:
        spectrum: Of a Fisher matrix.
        dimension: Of the same.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `index`, `eigenvalue`, `error`.
    """
    values = spectrum.eigenvalues.cpu().numpy()
    index = np.arange(1, len(values) + 1)
    errors = spectrum.errors.cpu().numpy()
    columns = {"index": index.tolist(), "eigenvalue": values.tolist(), "error": errors.tolist()}
    figure, (axes,) = begin(columns, ax)
    most = spectrum.shape[1]
    entitle(
        axes,
        f"{_words(dimension)} of {most:,} directions change the predictions"
        if spectrum.whole
        else f"Only the {len(values):,} largest eigenvalues were computed",
        _below(spectrum, dimension),
    )
    name_axes(axes, "index k (log)", "eigenvalue λₖ of the Fisher matrix (log)")
    if not len(values):
        axes.set_xlim(1, most)
        axes.set_yticks([])
        why = "The matrix is zero: no direction changes the predictions."
        label(axes, why if spectrum.whole else "No single eigenvalue was computed.", (0.5, 0.5),
              xycoords="axes fraction", ha="center")  # fmt: skip
        return figure
    floor, low = spectrum.floor, float(values[-1])
    # What rounding hides is of no size that means anything: a strip of it is enough.
    bottom = min(low / 10, floor / 10**STRIP if floor else low / 10)
    top = float(values[0]) * 10**0.5
    axes.set_xlim(0.9, max(most, 2) * 1.12)
    axes.set_ylim(bottom, top)
    logarithmic(axes, "x")
    logarithmic(axes, "y")
    if floor:
        axes.axhspan(bottom, floor, color=GREY, alpha=0.18, lw=0, zorder=0)
        axes.axhline(floor, color=GREY, lw=THIN, zorder=1)
        why = "hidden by rounding" if spectrum.whole else "not computed"
        label(axes, f"{why}: below {brief(floor)}", (0, floor),
              xycoords=("axes fraction", "data"), xytext=(6, -5), va="top",
              fontsize=SMALL)  # fmt: skip
    reach = np.stack([np.clip(values - errors, bottom, None), values + errors])
    if (errors > VISIBLE * values).any():
        axes.fill_between(index, *reach, color=BLUE, alpha=0.2, lw=0, zorder=1)
    dashes = (0, (4, 1.5)) if spectrum.kind == "estimated" else "-"
    if len(values) <= POINTS:
        axes.plot(index, values, color=BLUE, lw=0.9, alpha=0.5, ls=dashes, zorder=2)
        axes.plot(index, values, ls="", marker="o", ms=3.4, mew=0, color=BLUE, zorder=3)
    else:
        axes.plot(index, values, color=BLUE, lw=LINE, ls=dashes, zorder=3, solid_capstyle="round")
    if spectrum.whole:  # else nothing is known of the cut
        _cut(axes, spectrum, dimension, top)
    return figure


def _cut(axes: Axes, spectrum: Spectrum, dimension: Dimension, top: float) -> None:
    d, most = dimension.value, spectrum.shape[1]
    # Between the last eigenvalue that counts and the first that does not.
    axes.axvline(d + 0.5, color=ORANGE, lw=1.2, zorder=2)
    if dimension.lower < dimension.upper:
        axes.axvspan(dimension.lower + 0.5, dimension.upper + 0.5, color=ORANGE, alpha=0.15, lw=0)
    text = f"d̂ = {d:,}"
    right = d < 0.2 * most
    label(axes, text, (d + 0.5, top), xytext=(6 if right else -6, -3), va="top", color=ORANGE,
          ha="left" if right else "right", fontweight="bold")  # fmt: skip
    if spectrum.residue > 0.0:
        bottom = axes.get_ylim()[0]
        inside = spectrum.residue > bottom
        height = spectrum.residue if inside else bottom
        axes.plot([d + 1], [height], ls="", marker="o" if inside else "v", ms=4.5, mew=1.0,
                  mfc="none", mec=INK, zorder=3, clip_on=False)  # fmt: skip
        text = f"largest below the cut: {brief(spectrum.residue)}"
        left, right = np.log(axes.get_xlim())
        along = float((np.log(d + 0.5) - left) / (right - left))
        if spectrum.residue <= spectrum.floor:
            # Below the line of the floor, which would strike it through, and beside its label.
            behind = along < FAR
            place = max(along, BESIDE) if behind else along
            label(axes, text, (place, spectrum.floor), xycoords=("axes fraction", "data"),
                  xytext=(12 if behind else -7, -5), va="top", ha="left" if behind else "right",
                  fontsize=SMALL)  # fmt: skip
        else:
            label(axes, text, (d + 1, height), xytext=(-9, 1 if inside else 6), ha="right",
                  fontsize=SMALL)  # fmt: skip


def _words(dimension: Dimension) -> str:
    if dimension.lower == dimension.upper:
        return f"{dimension.value:,}"
    return f"{dimension.lower:,} to {dimension.upper:,}"


def _below(spectrum: Spectrum, dimension: Dimension) -> str:
    text = f"{dimension.kind}, from {ROUTES.get(spectrum.method, spectrum.method)}"
    if math.isfinite(dimension.gap):
        text += f"; at the cut, singular values fall by {dimension.gap:.1f} orders of magnitude"
    elif dimension.data_limited:
        text += "; every row counts, and more data could add directions"
    return text
