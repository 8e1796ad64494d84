"""Parts of a page, and the page that they make: one file, without a reference to anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from lightlike.assess.diagnosis import Check
from lightlike.figures.chart import Chart, csv_of
from lightlike.present.vector import svg_of

BITS = 1.0 / math.log(2)


@dataclass(frozen=True)
class Number:
    """A number with its name.

    Attributes:
        name: Of the number; unused in tables.
        text: As it is shown, in nats if it has a unit.
        bits: The same in bits; empty if it has no unit.
        kind: "exact", "certified", "estimated", "approximate" or nothing.
        note: A few words under it.
        sort: What a table sorts it by.
        share: From 0 to 1, drawn as a bar.
    """

    text: str
    name: str = ""
    bits: str = ""
    kind: str = ""
    note: str = ""
    sort: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Head:
    """Head of a column."""

    name: str
    number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row names it."""

    heads: Sequence[Head]
    rows: Sequence[Sequence[Number]]


@dataclass(frozen=True)
class Drawn:
    """A figure on the page.

    Attributes:
        name: For its file of data.
        caption: What it shows.
        drawings: SVG by unit: "nats" and "bits", or "any".
        csv: Its numbers as a data URI.
    """

    name: str
    caption: str
    drawings: Mapping[str, str]
    csv: str


@dataclass(frozen=True)
class Section:
    """A section of the page; what is empty is left out."""

    id: str
    title: str
    lead: str = ""
    numbers: Sequence[Number] = ()
    figures: Sequence[Drawn] = ()
    table: Table | None = None
    checks: Sequence[Check] = ()
    code: str = ""
    words: Mapping[str, str] = field(default_factory=dict)


def nats(value: float, *, digits: int = 1, sign: bool = False) -> Number:
    """A code length, in both units."""
    mark = "+" if sign else ""
    shown = [f"{v:{mark},.{digits}f}".replace("-", "−") for v in (value, value * BITS)]
    return Number(f"{shown[0]} nats", bits=f"{shown[1]} bits", sort=value)


def drawn(name: str, caption: str, charts: Chart | Mapping[str, Chart]) -> Drawn:
    """One chart, or one for each unit, with the numbers of the first."""
    by_unit = {"any": charts} if isinstance(charts, Chart) else dict(charts)
    drawings = {u: svg_of(chart, f"{name}-{u}", caption) for u, chart in by_unit.items()}
    data = csv_of(next(iter(by_unit.values())))
    return Drawn(name, caption, drawings, f"data:text/csv;charset=utf-8,{quote(data)}")


def render(title: str, verdict: str, sections: Sequence[Section], units: str) -> str:
    """The page."""
    folder = files("lightlike.present") / "templates"
    environment = Environment(
        loader=PackageLoader("lightlike.present"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        verdict=verdict,
        sections=sections,
        units=units,
        version=version("lightlike"),
        style=(folder / "style.css").read_text(encoding="utf-8"),
        script=(folder / "script.js").read_text(encoding="utf-8"),
    )
