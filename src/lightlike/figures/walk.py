"""A walk along directions that change little: what it changes, and what it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightlike.errors import ChoiceError
from lightlike.figures.chart import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    SMALL,
    Chart,
    Place,
    axes_of,
    begin,
    brief,
    entitle,
    grouped,
    label,
    logarithmic,
    name_axes,
)

NAMES = ("distance", "divergence", "squared_norm", "zeros")


class Walked(Protocol):
    """An answer of `lightlike.walk`."""

    @property
    def steps(self) -> Sequence[Step]:
        """Its points."""

    @property
    def budget(self) -> float:
        """Bound on the divergence."""


class Step(Protocol):
    """One point of a walk."""

    @property
    def distance(self) -> float:
        """From the start."""

    @property
    def divergence(self) -> float:
        """Mean KL from the start's predictions, nats per observation."""

    @property
    def squared_norm(self) -> float:
        """|θ|²."""

    @property
    def zeros(self) -> int:
        """Weights that are exactly 0."""


@dataclass(frozen=True)
class Trail:
    """Distances and divergences of a control, by name; one point if only its end is known."""

    name: str
    distance: Sequence[float]
    divergence: Sequence[float]


def plot_walk(
    trace: Walked | Mapping[str, Sequence[float]] | Sequence[Step],
    control: Mapping[str, Sequence[float]] | Sequence[Trail] = (),
    *,
    budget: float | None = None,
    ax: Place = None,
) -> Figure:
    """Divergence, squared norm and zeros of a walk against the distance walked.

    Divergences are on a logarithmic axis; a divergence of 0, as at the start, has no place there
    and is left out of the drawing, not of the columns.

    Args:
        trace: Columns `distance`, `divergence` (mean KL from the start's predictions, nats per
            observation), `squared_norm` (|θ|²), `zeros` (weights that are exactly 0), or steps with
            these attributes, or what `lightlike.walk` gave, with its budget.
        control: Columns `distance`, `divergence` of a walk in a random direction, or several such.
        budget: Bound on the divergence that the walk keeps to, if it has one.
        ax: Three axes to draw in; a figure of its own unless given.

    Returns:
        A figure with these columns and `walk`, "walk" or the control's name; a control has no
        norms and zeros.

    Raises:
        ChoiceError: if a column is missing, or columns differ in length.
    """
    if not isinstance(trace, Mapping | Sequence):
        budget = trace.budget if budget is None else budget
        trace = trace.steps
    walk = _columns(trace, NAMES)
    trails = [control] if isinstance(control, Mapping) else list(control)
    controls = [t if isinstance(t, Trail) else _trail(t) for t in trails]
    columns = _all(walk, controls)
    if ax is None:
        figure: Figure = Chart(columns, width=7.2, height=5.6)
        left, *others = _panels(figure)
    else:
        figure, (left, *others) = begin(columns, ax, panels=3)
    _divergence(left, walk, controls, budget)
    for axes, key, name in zip(
        others, ("squared_norm", "zeros"), ("squared norm |θ|²", "weights at 0"), strict=True
    ):
        values = walk[key]
        axes.plot(walk["distance"], values, color=BLUE, lw=LINE, solid_capstyle="round",
                  drawstyle="steps-post" if key == "zeros" else "default")  # fmt: skip
        grouped(axes, "x")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=key == "zeros"))
        grouped(axes, "y")
        axes.margins(x=0.02, y=0.16)
        if key == "zeros":
            axes.set_ylim(0, 1.16 * max(*values, 1))
        name_axes(axes, "distance walked", name)
        _ends(axes, walk["distance"], values)
    return figure


def _ends(axes: Axes, places: Sequence[float], values: Sequence[float]) -> None:
    """The values at both ends, the greater above its end; once if nothing changes."""
    rising = values[-1] >= values[0]
    ends = [(-1, "right", rising)]
    if min(values) < max(values):
        ends.append((0, "left", not rising))
    low, high = axes.get_ylim()
    for index, side, above in ends:
        room = above or values[index] - low > 0.08 * (high - low)
        label(axes, f"{values[index]:,.4g}", (places[index], values[index]),
              xytext=(0 if room else 12, 9 if above else -9 if room else 4), ha=side, color=BLUE,
              fontweight="bold")  # fmt: skip


def _panels(chart: Figure) -> list[Axes]:
    """One wide panel above two."""
    grid = chart.add_gridspec(2, 2, height_ratios=(1.25, 1.0))
    found = axes_of(chart, 1, 3)
    for axes, place in zip(found, (grid[0, :], grid[1, 0], grid[1, 1]), strict=True):
        axes.set_subplotspec(place)
    return found


def _divergence(
    axes: Axes, walk: Mapping[str, Sequence[float]], controls: Sequence[Trail], budget: float | None
) -> None:
    drawn = [(x, y) for x, y in zip(walk["distance"], walk["divergence"], strict=True) if y > 0.0]
    seen = [y for _, y in drawn]
    for trail in controls:
        seen += [y for y in trail.divergence if 0.0 < y < math.inf]
    seen += [budget] if budget else []
    reach = max([*walk["distance"], *(x for t in controls for x in t.distance), 0.0]) or 1.0
    axes.set_xlim(-0.02 * reach, 1.02 * reach)
    grouped(axes, "x")
    if seen:
        axes.set_ylim(min(seen) / 3, max(seen) * 12)
        logarithmic(axes, "y")
    if budget:
        axes.axhline(budget, color=INK, lw=0.8, ls=(0, (1, 2)))
        label(axes, "budget", (1, budget), xycoords=("axes fraction", "data"), xytext=(5, 0),
              fontsize=SMALL)  # fmt: skip
    for trail in controls:
        _control(axes, trail)
    if drawn:
        axes.plot(*zip(*drawn, strict=True), color=BLUE, lw=LINE, solid_capstyle="round",
                  marker="o" if len(drawn) == 1 else "")  # fmt: skip
        label(axes, "walk", drawn[-1], xytext=(0, 9), ha="right", color=BLUE,
              fontweight="bold")  # fmt: skip
    name_axes(axes, "distance walked", "mean KL from the start,\nnats per observation (log)")
    end = walk["divergence"][-1]
    title = (
        f"After a walk of {brief(walk['distance'][-1])}, predictions differ by {brief(end)} nats"
    )
    below = "a logarithmic axis; 0, as at the start, is not on it"
    if controls and end > 0.0:
        worst = max(controls, key=lambda trail: trail.divergence[-1])
        if math.isfinite(worst.divergence[-1]):
            times = brief(float(f"{worst.divergence[-1] / end:.2g}"))
            below = (
                f"{worst.name}, at {brief(worst.distance[-1])}: "
                f"{brief(worst.divergence[-1])} nats, {times} times as much"
            )
    entitle(axes, title, below)


def _control(axes: Axes, trail: Trail) -> None:
    points = [(x, y) for x, y in zip(trail.distance, trail.divergence, strict=True) if y > 0.0]
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if len(finite) > 1:
        axes.plot(*zip(*finite, strict=True), color=ORANGE, lw=1.4, solid_capstyle="round")
    elif finite:
        axes.plot(*finite[0], ls="", marker="D", ms=5, mew=0, color=ORANGE)
    if finite:
        label(axes, trail.name, finite[-1], xytext=(-4 if len(finite) == 1 else 0, 9), ha="right",
              color=ORANGE, fontweight="bold")  # fmt: skip
    if len(finite) < len(points):
        label(axes, f"{trail.name}: outputs not finite", (1, 1), xycoords="axes fraction",
              xytext=(0, -6), ha="right", va="top", color=ORANGE, fontsize=SMALL)  # fmt: skip


def _columns(
    trace: Mapping[str, Sequence[float]] | Sequence[Step], names: Sequence[str]
) -> dict[str, list[Any]]:
    if not isinstance(trace, Mapping):
        trace = {name: [getattr(step, name) for step in trace] for name in names}
    missing = [name for name in names if name not in trace]
    sizes = {name: len(trace[name]) for name in names if name in trace}
    if missing or len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise ChoiceError(
            f"The walk lacks {missing}." if missing else f"Its columns are of lengths {sizes}.",
            "Each point has all of these.",
            f"Give {', '.join(names)}, one number a point.",
        )
    return {name: [v.item() if hasattr(v, "item") else v for v in trace[name]] for name in names}


def _trail(control: Mapping[str, Sequence[float]]) -> Trail:
    found = _columns(control, ("distance", "divergence"))
    return Trail("random direction", found["distance"], found["divergence"])


def _all(walk: Mapping[str, Sequence[Any]], controls: Sequence[Trail]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {"walk": ["walk"] * len(walk["distance"])}
    out |= {name: list(walk[name]) for name in NAMES}
    for trail in controls:
        out["walk"] += [trail.name] * len(trail.distance)
        out["distance"] += list(trail.distance)
        out["divergence"] += list(trail.divergence)
        for name in ("squared_norm", "zeros"):
            out[name] += [None] * len(trail.distance)
    return out
