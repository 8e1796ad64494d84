"""Parts become HTML: a page of its own, or a piece of one; no reference to anything outside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from lightlike.figures.chart import Chart, csv_of
from lightlike.present.page import Drawn, Section
from lightlike.present.vector import NARROW, svg_of

# Characters of a figure in a piece of a page, which notebooks keep with every answer.
LARGEST = 150_000


def drawn(name: str, caption: str, charts: Figure | Mapping[str, Figure]) -> Drawn:
    """One figure, or one for each unit, with the numbers of the first.

    Args:
        name: For its file of data, and for what is in it.
        caption: What it shows.
        charts: The figure, or by unit.
    """
    by_unit = {"any": charts} if isinstance(charts, Figure) else dict(charts)
    headings = {
        unit: chart.heading if isinstance(chart, Chart) else ("", "")
        for unit, chart in by_unit.items()
    }
    described = {
        unit: ". ".join(part for part in (caption, *heading) if part)
        for unit, heading in headings.items()
    }
    data = csv_of(next(iter(by_unit.values())))
    drawings = {
        unit: {
            "wide": svg_of(chart, f"{name}-{unit}", described[unit]),
            "narrow": svg_of(chart, f"{name}-{unit}-narrow", described[unit], width=NARROW),
        }
        for unit, chart in by_unit.items()
    }
    link = f"data:text/csv;charset=utf-8,{quote(data)}"
    return Drawn(name, caption, headings, drawings, link)


def still(chart: Figure) -> Drawn | None:
    """One figure for a piece of a page, or None if it is too large for one.

    It is named after what it shows, so that many pieces can stand on one page.

    Args:
        chart: The figure.
    """
    heading = chart.heading if isinstance(chart, Chart) else ("", "")
    text = f"{heading}{csv_of(chart)}"
    name = f"piece-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    svg = svg_of(chart, name, ". ".join(filter(None, heading)))
    if len(svg) > LARGEST:
        return None
    return Drawn(name, "", {"any": heading}, {"any": {"still": svg}}, "")


def render(title: str, verdict: str, sections: Sequence[Section], units: str) -> str:
    """The page."""
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            verdict=verdict,
            sections=sections,
            units=units,
            static=False,
            version=version("lightlike"),
            style=_text("parts.css") + _text("page.css"),
            script=_text("script.js"),
        )
    )


def render_piece(sections: Sequence[Section], units: str) -> str:
    """A piece for other pages, such as notebooks: in one unit, without scripts.

    It takes its host's colours and font, light or dark.
    """
    return (
        _templates()
        .get_template("piece.html.j2")
        .render(
            sections=sections,
            units=units,
            static=True,
            style=_text("parts.css") + _text("piece.css"),
        )
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("lightlike.present"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str) -> str:
    return (files("lightlike.present") / "templates" / name).read_text(encoding="utf-8")
