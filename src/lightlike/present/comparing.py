"""Sections of the report of a comparison."""

from __future__ import annotations

import json

from lightlike.assess.comparison import Comparison, Entry
from lightlike.assess.diagnosis import Check
from lightlike.figures.forest import plot_forest
from lightlike.length.description import UNITS
from lightlike.present.page import Head, Number, Section, Table, drawn, nats


def comparison_sections(c: Comparison) -> list[Section]:
    """All sections; the last one says what was compared."""
    scale = 1.0 / UNITS[c.units]
    charts = {
        unit: plot_forest(
            [
                (e.name, e.difference * scale * UNITS[unit], e.stderr * scale * UNITS[unit])
                for e in c.entries
            ],
            unit,
        )
        for unit in ("nats", "bits")
    }
    found = [
        Section(
            "networks",
            "The networks",
            f"On the same {c.observations:,} observations, under the same prior; the best first.",
            figures=[drawn("differences", "Difference to the best", charts)],
            table=_table(c, scale),
        )
    ]
    notes = [Check("comparison", "warning", text) for text in c.warnings]
    notes += [Check(e.name, "warning", note) for e in c.entries for note in e.notes]
    if notes:
        found.append(Section("checks", "What to keep in mind", checks=notes))
    settings = {"likelihood": c.likelihood, "prior": c.prior, "data": c.data}
    text = json.dumps(settings, indent=2, ensure_ascii=False, default=str)
    return [*found, Section("reproduce", "What was compared", code=text)]


def _table(c: Comparison, scale: float) -> Table:
    names = ["network", "length", "more than the best", "± (paired)", "fit", "complexity",
             "dimension", "parameters"]  # fmt: skip
    held_out = any(e.held_out is not None for e in c.entries)
    heads = [Head(name, number=place > 0) for place, name in enumerate(names)]
    if held_out:
        heads.append(Head("held out, per label"))
    return Table(heads, [_row(e, e is c.best, scale, held_out) for e in c.entries])


def _row(e: Entry, best: bool, scale: float, held_out: bool) -> list[Number]:
    counted = f"{e.dimension:,}" if e.lower == e.upper else f"{e.lower:,} – {e.upper:,}"
    row = [
        Number(e.name),
        nats(e.total * scale),
        Number("—", sort=0.0) if best else nats(e.difference * scale, sign=True),
        Number("—", sort=0.0) if best else nats(e.stderr * scale),
        nats(e.fit * scale),
        nats(e.complexity * scale),
        Number(counted, sort=float(e.dimension)),
        Number(f"{e.parameters:,}", sort=float(e.parameters)),
    ]
    if held_out:
        score = e.held_out
        row.append(Number("—") if score is None else nats(score * scale, digits=4))
    return row
