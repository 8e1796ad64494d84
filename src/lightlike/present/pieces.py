"""What a notebook shows of an answer: `_repr_html_`, its numbers and its figure."""

from __future__ import annotations

from dataclasses import replace

from lightlike.assess.comparison import Comparison
from lightlike.assess.measurement import Measurement
from lightlike.errors import LightlikeError
from lightlike.present.fragments import sections_of
from lightlike.present.page import Section
from lightlike.present.rendering import render_piece, still
from lightlike.results import Result


def fragment(result: Result) -> str:
    """A piece of HTML: static, self-contained, in the colours of the page around it.

    Its numbers, and its figure as SVG where there is something to draw.
    """
    units = "nats"
    if isinstance(result, Measurement):
        units = result.length.units
    elif isinstance(result, Comparison):
        units = result.units
    first, *rest = sections_of(result)
    return render_piece([_illustrated(first, result), *rest], units)


def _illustrated(section: Section, result: Result) -> Section:
    """With the figure of the answer, or with a note where that is too large."""
    try:
        figure = still(result.plot())
    except LightlikeError:  # which says that there is nothing to draw
        return section
    if figure is None:
        note = "The figure is too large to be kept here: .plot() draws it."
        return replace(section, notes=[*section.notes, note])
    return replace(section, figures=[figure])
