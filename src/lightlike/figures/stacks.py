"""Null directions of several networks side by side, by what they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lightlike.errors import ChoiceError
from lightlike.figures.bars import Explained, percent
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
    tail_of,
)

# Hues of middle lightness that colour-blind readers tell apart; kinds beyond them share one.
HUES = (BLUE, ORANGE, "#8b5fbf", "#1f9d8a", "#b58a1b", "#c2557f")
UNEXPLAINED, OTHERS = "unexplained", "other sources"


def by_kind(explained: Explained) -> dict[str, int]:
    """Dimensions of each kind of source in the order given, what is unexplained last."""
    found: dict[str, int] = {}
    for source in explained.sources:
        if source.dimension:
            found[source.kind] = found.get(source.kind, 0) + source.dimension
    if explained.unexplained:
        found[UNEXPLAINED] = explained.unexplained
    return found


def largest_first(networks: Sequence[Mapping[str, int]]) -> list[str]:
    """Kinds by how many dimensions they have in all networks, what is unexplained last."""
    sums: dict[str, int] = {}
    for kinds in networks:
        for kind, size in kinds.items():
            sums[kind] = sums.get(kind, 0) + size
    return sorted(sums, key=lambda kind: (kind == UNEXPLAINED, -sums[kind], kind))


def plot_radicals(networks: Sequence[tuple[str, Explained | None]], *, ax: Place = None) -> Figure:
    """The radical of each network as a stacked bar of what its directions come from.

    A kind of source has the same hue in all bars. Beyond six kinds the smallest share one.

    Args:
        networks: Name, and what `lightlike.explain` gave or None, in the order to be shown.
        ax: Axes to draw in; a figure of its own unless given.

    Returns:
        A figure with columns `network`, `kind`, `dimension`, a row for each part of a bar.

    Raises:
        ChoiceError: if no network was explained.
    """
    bars = [(name, None if e is None else by_kind(e)) for name, e in networks]
    known = [kinds for _, kinds in bars if kinds is not None]
    if not known:
        raise ChoiceError(
            "No network has an explanation of its null directions.",
            "There is nothing to draw.",
            "Measure with explain=True.",
        )
    rows = [(name, k, n) for name, kinds in bars for k, n in (kinds or {}).items()]
    columns: Columns = {
        "network": [name for name, *_ in rows],
        "kind": [kind for _, kind, _ in rows],
        "dimension": [size for *_, size in rows],
    }
    order = largest_first(known)
    styles = _styles(order)
    lines = -(-len(set(styles.values())) // 2)
    figure, (axes,) = begin(columns, ax, height=1.6 + 0.42 * len(bars) + 0.22 * lines)
    longest = max([sum(kinds.values()) for kinds in known] + [1])
    for place, (_, kinds) in zip(range(len(bars))[::-1], bars, strict=True):
        start = 0
        for kind in order if kinds else ():
            size = (kinds or {}).get(kind, 0)
            if size:
                axes.barh(place, size, left=start, height=0.62, **_look(styles[kind]))
                start += size
        text = "not measured" if kinds is None else f"{start:,}"
        label(axes, text, (start, place), xytext=(5, 0))
    axes.set_xlim(0, 1.12 * longest)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_yticks(list(range(len(bars)))[::-1], [tail_of(name) for name, _ in bars])
    axes.tick_params(axis="y", length=0, labelsize=TEXT, pad=6)
    axes.spines["left"].set_visible(False)
    grouped(axes, "x")
    axes.set_xlabel("null directions", fontsize=TEXT, color=INK, labelpad=6)
    names = {style: kind for kind, style in reversed(styles.items())}
    if list(styles.values()).count(GREY) > 1:
        names[GREY] = OTHERS
    if names:
        handles = [Patch(label=name, **_look(style)) for style, name in reversed(names.items())]
        style: dict[str, Any] = dict(
            handles=handles, ncols=2, frameon=False, fontsize=SMALL, labelcolor=INK,
            handlelength=1.1, borderaxespad=0.2,
        )  # fmt: skip
        if ax is None:
            figure.legend(loc="outside lower left", **style)
        else:
            below = -0.55 / (0.42 * len(bars) + 0.3)
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, below), **style)
    total = sum(size for *_, size in rows)
    title = "No null directions"
    if total:
        most = sum(kinds.get(order[0], 0) for kinds in known)
        come = "have no name" if order[0] == UNEXPLAINED else f"come from: {order[0]}"
        title = f"{percent(most / total)} of all null directions {come}"
    entitle(axes, title, "what makes directions change no prediction, network by network")
    return figure


def _styles(order: Sequence[str]) -> dict[str, str]:
    """A hue for each of the largest kinds, grey for the others, nothing for what has no name."""
    named = [kind for kind in order if kind != UNEXPLAINED]
    styles = {kind: HUES[i] if i < len(HUES) else GREY for i, kind in enumerate(named)}
    return styles | {kind: "none" for kind in order if kind == UNEXPLAINED}


def _look(style: str) -> dict[str, Any]:
    if style == "none":
        return {"facecolor": "none", "edgecolor": GREY, "hatch": "////", "linewidth": THIN}
    return {"facecolor": style, "linewidth": 0}
