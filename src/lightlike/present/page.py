"""Parts of a page, without a word on how they look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lightlike.assess.diagnosis import Check

BITS = 1.0 / math.log(2)
# Stands for what was not measured, which is not 0.
ABSENT = "—"


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
    """Head of a column.

    Attributes:
        name: What stands in it.
        number: Whether that is numbers, flush right.
        unit: Whether they are code lengths: then the unit stands here, once.
    """

    name: str
    number: bool = True
    unit: bool = False


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
        headings: What is to be seen in it and a line under that, by unit as the drawings.
        drawings: SVG by unit, "nats" and "bits", or "any", and there by width, "wide" and "narrow".
        csv: Its numbers as a data URI.
    """

    name: str
    caption: str
    headings: Mapping[str, tuple[str, str]]
    drawings: Mapping[str, Mapping[str, str]]
    csv: str


@dataclass(frozen=True)
class Code:
    """A text to be copied, with its name."""

    name: str
    text: str


@dataclass(frozen=True)
class Section:
    """A section of the page; what is empty is left out.

    Attributes:
        id: Of its place on the page.
        title: Its heading.
        lead: A paragraph under it.
        numbers: Numbers that stand out.
        figures: Figures.
        table: A table.
        folded: Whether the table is folded away, as a figure shows the same.
        checks: Checks; those that passed are folded away if others did not.
        notes: Paragraphs after all these.
        codes: Texts to be copied.
        facts: Names and values.
        words: Words and what they mean.
    """

    id: str
    title: str
    lead: str = ""
    numbers: Sequence[Number] = ()
    figures: Sequence[Drawn] = ()
    table: Table | None = None
    folded: bool = False
    checks: Sequence[Check] = ()
    notes: Sequence[str] = ()
    codes: Sequence[Code] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


class Bounded(Protocol):
    """A count with bounds."""

    @property
    def value(self) -> int:
        """The count."""

    @property
    def lower(self) -> int:
        """Certain lower bound."""

    @property
    def upper(self) -> int:
        """Certain upper bound."""


def between(lower: int, upper: int) -> str:
    """A count, or its bounds where they differ."""
    return f"{lower:,}" if lower == upper else f"{lower:,} – {upper:,}"


def counted(count: Bounded) -> Number:
    """A count in a table."""
    return Number(between(count.lower, count.upper), sort=float(count.value))


def whole(value: int) -> Number:
    """A whole number in a table."""
    return Number(f"{value:,}", sort=float(value))


def real(value: float | None, digits: str = ".4g") -> Number:
    """A number without unit in a table; None and what is not finite is a dash."""
    if value is None or not math.isfinite(value):
        return Number(ABSENT)
    return Number(f"{value:,{digits}}".replace("-", "−"), sort=value)


def nats(value: float, *, digits: int = 1, sign: bool = False, bare: bool = False) -> Number:
    """A code length, in both units.

    Args:
        value: In nats.
        digits: After the point.
        sign: Whether a positive one has a sign.
        bare: Whether to leave the unit out, as the head of the column has it.
    """
    mark = "+" if sign else ""
    shown = [f"{v:{mark},.{digits}f}".replace("-", "−") for v in (value, value * BITS)]
    if not bare:
        shown = [f"{text} {unit}" for text, unit in zip(shown, ("nats", "bits"), strict=True)]
    return Number(shown[0], bits=shown[1], sort=value)
