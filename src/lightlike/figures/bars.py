"""Parts of the radical: by layer, and by what they come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightlike.errors import ChoiceError
from lightlike.figures.chart import (
    BLUE,
    GREY,
    INK,
    SHADES,
    TEXT,
    THIN,
    Columns,
    Place,
    begin,
    entitle,
    label,
)

# Bars beyond these are added up in a last one.
MOST = 24


class Source(Protocol):
    """Null directions of one kind in one place."""

    @property
    def kind(self) -> str:
        """What they come from."""

    @property
    def where(self) -> str:
        """The layer, "" for the whole model."""

    @property
    def dimension(self) -> int:
        """How many there are."""


def plot_share(
    shares: Mapping[str, float], *, subspace: str = "radical", ax: Place = None
) -> Figure:
    """The share of a subspace in each layer, as horizontal bars in the order given.

    Args:
        shares: Layer → share, from 0 to 1, as `Subspace.share().layers` has it.
        subspace: What is shared out, for the title.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `layer`, `share`; beyond 24 layers the smallest are one bar, though
        the columns have all.

    Raises:
        ChoiceError: if there is none, or one is negative or not finite.
    """
    if not shares or not all(0.0 <= value < math.inf for value in shares.values()):
        raise ChoiceError(
            f"There are no shares to draw in {dict(shares)!r}.",
            "Each is a part of one whole.",
            "Give one number from 0 to 1 for each layer.",
        )
    columns: Columns = {"layer": list(shares), "share": [float(v) for v in shares.values()]}
    names, values = _few(shares)
    figure, (axes,) = begin(columns, ax, height=max(1.9, 1.15 + 0.27 * len(names)))
    places = range(len(names))[::-1]
    colours = [BLUE] * len(names)
    if len(names) < len(shares):
        colours[-1] = GREY
    axes.barh(list(places), values, height=0.62, color=colours, lw=0)
    most = max(values) or 1.0
    axes.set_xlim(0, most * 1.1)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(list(places), names)
    axes.tick_params(axis="y", length=0, labelsize=TEXT, pad=5)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    for place, value in zip(places, values, strict=True):
        label(axes, percent(value), (value, place), xytext=(5, 0))
    largest, part = max(shares.items(), key=lambda item: item[1])
    title = f"The {subspace} is empty"
    if part:
        where = layer_name(largest) if largest else "the model's own parameters"
        title = f"{percent(part)} of the {subspace} lies in {where}"
    entitle(
        axes,
        title,
        f"share of the {subspace} in each layer's parameters, input first; bars start at 0",
    )
    return figure


class Explained(Protocol):
    """An answer of `lightlike.explain`."""

    @property
    def sources(self) -> Sequence[Source]:
        """What has a name."""

    @property
    def unexplained(self) -> int:
        """Dimensions that have none."""


def plot_sources(
    sources: Explained | Sequence[Source | tuple[str, str, int]],
    unexplained: int = 0,
    *,
    ax: Place = None,
) -> Figure:
    """The radical as one stacked bar of what its directions come from.

    Sources of one kind stand side by side, one segment each, under one label.

    Args:
        sources: What `lightlike.explain` gave, which knows what is unexplained too; or objects with
            `kind`, `where`, `dimension`, as it lists them, or such triples.
        unexplained: Dimensions left over, drawn hollow.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `kind`, `where`, `dimension`; what is unexplained is the last row.

    Raises:
        ChoiceError: if a dimension is negative.
    """
    if not isinstance(sources, Sequence):
        unexplained = sources.unexplained
        sources = sources.sources
    triples = [s if isinstance(s, tuple) else (s.kind, s.where, s.dimension) for s in sources]
    rows = [*triples, ("unexplained", "", unexplained)]
    if min(size for *_, size in rows) < 0:
        raise ChoiceError(
            f"A source has a negative dimension: {rows!r}.",
            "Each is a number of directions.",
            "Give whole numbers, 0 or more.",
        )
    columns: Columns = {
        "kind": [kind for kind, *_ in rows],
        "where": [where for _, where, _ in rows],
        "dimension": [size for *_, size in rows],
    }
    kinds: dict[str, list[tuple[str, int]]] = {}
    for kind, where, size in rows:
        if size:
            kinds.setdefault(kind, []).append((where, size))
    total = sum(size for *_, size in rows)
    figure, (axes,) = begin(columns, ax, height=1.6 + 0.27 * len(kinds))
    lines = len(kinds)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    # Room for the last label, which begins near the bar's end.
    axes.set_xlim(0, 1.25 * max(total, 1))
    axes.set_ylim(-0.75 * lines, 1.15)
    start = 0
    for place, (kind, parts) in enumerate(kinds.items()):
        size = sum(n for _, n in parts)
        hollow = kind == "unexplained"
        shade = SHADES[place % len(SHADES)]
        left = start
        for _, n in parts:
            gap = min(0.004 * total, 0.2 * n)
            style: dict[str, Any] = (
                {"facecolor": "none", "edgecolor": GREY, "hatch": "////", "linewidth": THIN}
                if hollow
                else {"facecolor": shade, "linewidth": 0}
            )
            axes.add_patch(Rectangle((left + gap / 2, 0), n - gap, 1, **style))
            left += n
        height = -0.75 * (lines - place) + 0.3
        middle = start + size / 2
        axes.plot([middle, middle], [height, -0.06], color=INK, lw=THIN, clip_on=False)
        # Left ones reach lower, so that no line runs through a label.
        label(axes, _source(kind, parts, size, total), (middle, height), xytext=(5, 0))
        start += size
    explained = total - unexplained
    entitle(
        axes,
        f"{explained:,} of {total:,} null directions are explained"
        if total
        else "No null directions",
        "the radical, by what makes a direction change no prediction",
    )
    return figure


def _source(kind: str, parts: Iterable[tuple[str, int]], size: int, total: int) -> str:
    places = [where for where, _ in parts if where]
    text = f"{kind}  {size:,}  ({percent(size / total)})"
    if len(places) == 1:
        return f"{text}  in {layer_name(places[0])}"
    return f"{text}  in {len(places)} places" if places else text


def layer_name(name: str) -> str:
    """A layer in running text: bare numbers, as in a sequence, need the word."""
    return f"layer {name}" if name[:1].isdigit() else name


def _few(shares: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """At most `MOST` bars: the largest in their order, and the rest as one."""
    named = [(name or "(model)", float(value)) for name, value in shares.items()]
    if len(named) > MOST:
        least = sorted(range(len(named)), key=lambda i: named[i][1])[: len(named) - MOST + 1]
        rest = sum(named[i][1] for i in least)
        named = [pair for i, pair in enumerate(named) if i not in set(least)]
        named.append((f"{len(least)} other layers", rest))
    return [name for name, _ in named], [value for _, value in named]


def percent(share: float) -> str:
    """A share to read in running text."""
    if 0.0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
