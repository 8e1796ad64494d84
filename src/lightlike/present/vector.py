"""A figure as part of a page: SVG that takes the page's colours and font."""

from __future__ import annotations

import html
import re
from io import StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightlike.figures.chart import BLUE, GREY, HEADING, INK, ORANGE

# Inks of the figures, and the page's names for them.
COLOURS = {INK: "var(--soft)", BLUE: "var(--blue)", ORANGE: "var(--orange)", GREY: "var(--grey)"}
# Inches, on a telephone.
NARROW = 4.7


def svg_of(figure: Figure, name: str, described: str, *, width: float | None = None) -> str:
    """The figure as inline SVG, scaled to its place, with a description for screen readers.

    Its title is left to the page, where lines can break.

    Args:
        figure: Anything of matplotlib's.
        name: Of this figure on the page, to keep its ids apart from other figures'.
        described: What there is to be seen.
        width: Inches that it is laid out in; its own unless given.
    """
    text = _saved(figure, name, width)
    start = text.index("<svg")
    head, _, rest = text[start:].partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    # Its style sheet would be the whole page's.
    rest = re.sub(r"<(metadata|style).*?</\1>", "", rest, flags=re.DOTALL)
    rest = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1inherit", rest)
    rest = re.sub(r"font-family: [^;\"]*", "font-family: inherit", rest)
    rest = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", rest)
    rest = re.sub(r'(?<= d=")[^"]*|(?<= points=")[^"]*', _rounded, rest)
    for ink, colour in COLOURS.items():
        rest = rest.replace(ink, colour)
    label = html.escape(described, quote=True)
    return f'<svg {box[0]} role="img" aria-label="{label}" class="figure">{rest}'


def _rounded(path: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point, finer than any screen."""
    return re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), path[0])


def _saved(figure: Figure, name: str, width: float | None) -> str:
    """The figure as an SVG file without its titles; afterwards it is as it was."""
    size = figure.get_size_inches().tolist()
    titles = [t for t in figure.findobj() if t.get_gid() == HEADING and t.get_visible()]
    out = StringIO()
    try:
        for title in titles:
            title.set_visible(False)
        if width is not None:
            figure.set_size_inches(width, size[1])
        # Text stays text: it can be searched, selected, and takes the page's font.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": name}):
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    finally:
        for title in titles:
            title.set_visible(True)
        figure.set_size_inches(size)
    return out.getvalue()
