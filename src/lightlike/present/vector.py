"""A figure as part of a page: SVG that takes the page's colours and font."""

from __future__ import annotations

import html
import re
from io import StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightlike.figures.chart import BLUE, GREY, INK, ORANGE

# Inks of the figures, and the page's names for them.
COLOURS = {INK: "var(--soft)", BLUE: "var(--blue)", ORANGE: "var(--orange)", GREY: "var(--line)"}


def svg_of(figure: Figure, name: str, described: str) -> str:
    """The figure as inline SVG, scaled to its place, with a description for screen readers.

    Args:
        figure: Anything of matplotlib's.
        name: Of this figure on the page, to keep its ids apart from other figures'.
        described: What there is to be seen.
    """
    out = StringIO()
    # Text stays text: it can be searched, selected, and takes the page's font.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.id": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    start = text.index("<svg")
    head, _, rest = text[start:].partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    # Its style sheet would be the whole page's.
    rest = re.sub(r"<(metadata|style).*?</\1>", "", rest, flags=re.DOTALL)
    rest = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1inherit", rest)
    rest = re.sub(r"font-family: [^;\"]*", "font-family: inherit", rest)
    rest = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", rest)
    for ink, colour in COLOURS.items():
        rest = rest.replace(ink, colour)
    label = html.escape(described, quote=True)
    return f'<svg {box[0]} role="img" aria-label="{label}" class="figure">{rest}'
