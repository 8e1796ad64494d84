"""Sections of the report of a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lightlike.assess.comparison import Comparison, Entry
from lightlike.assess.diagnosis import Check
from lightlike.figures.forest import plot_forest
from lightlike.figures.stacks import by_kind, largest_first, plot_radicals
from lightlike.geometry.symmetry.explanation import ExplanationSummary
from lightlike.length.description import UNITS
from lightlike.present.page import (
    ABSENT,
    Code,
    Head,
    Number,
    Section,
    Table,
    between,
    nats,
    whole,
)
from lightlike.present.rendering import drawn
from lightlike.present.reproducing import described


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
            f"On the same {c.observations:,} observations, under the same prior; the best first. "
            "More than the best one, ± the standard error of paired differences.",
            figures=[drawn("differences", "Difference to the best", charts)],
            table=comparison_table(c),
        )
    ]
    found.append(_sources(c))
    notes = [Check("comparison", "warning", text) for text in c.warnings]
    notes += [Check(e.name, "warning", note) for e in c.entries for note in e.notes]
    if notes:
        found.append(Section("checks", "What to keep in mind", checks=notes))
    facts = {
        "observations": f"{c.observations:,}",
        "likelihood": described(c.likelihood),
        "prior": described(c.prior),
        "data": f"SHA-256 {c.data}",
    }
    files = "".join(
        f'    {json.dumps(e.name, ensure_ascii=False)}: "….safetensors",\n' for e in c.entries
    )
    call = Code("Python", f"import lightlike as ll\n\nc = ll.compare({{\n{files}}})")
    text = "Lengths are compared only if data, likelihood and prior are the same."
    return [*found, Section("reproduce", "What was compared", text, facts=facts, codes=[call])]


def _sources(c: Comparison) -> Section:
    """Null directions of each network by their sources, or how to ask for them."""
    title = "Why directions change nothing"
    explained = {e.name: e.explanation for e in c.entries}
    known = {name: x for name, x in explained.items() if x is not None}
    if not known:
        text = f"{ABSENT} not measured. Ask with ll.measure(…, explain=True) for each network."
        return Section("sources", title, text)
    absent = [name for name, x in explained.items() if x is None]
    notes = [f"{name}: {note}" for name, x in known.items() for note in x.notes]
    if absent:
        notes.insert(0, f"Not explained: {', '.join(absent)}. Ask with explain=True.")
    return Section(
        "sources",
        title,
        "Null directions of each network by their sources. Each was held against its network and "
        "found to change no prediction; dependent ones count once.",
        figures=[
            drawn("radicals", "Null directions by source", plot_radicals([*explained.items()]))
        ],
        table=_sources_table(explained),
        notes=notes,
    )


def _sources_table(explained: Mapping[str, ExplanationSummary | None]) -> Table:
    """One row a kind of source, one column a network."""
    counted = {name: None if x is None else by_kind(x) for name, x in explained.items()}
    kinds = largest_first([k for k in counted.values() if k is not None])
    heads = [Head("source", number=False), *(Head(name) for name in explained)]
    rows = [
        [Number(kind), *(_part(None if k is None else k.get(kind, 0)) for k in counted.values())]
        for kind in kinds
    ]
    for name in ("radical", "parameters"):
        known = [None if x is None else int(getattr(x, name)) for x in explained.values()]
        what = "all null directions" if name == "radical" else "of parameters"
        rows.append([Number(what), *(_part(n) for n in known)])
    return Table(heads, rows)


def comparison_table(c: Comparison) -> Table:
    """One row a network, the best first."""
    scale = 1.0 / UNITS[c.units]
    held_out = any(e.held_out is not None for e in c.entries)
    heads = [
        Head("network", number=False), Head("length", unit=True), Head("more", unit=True),
        Head("±", unit=True), Head("fit", unit=True), Head("complexity", unit=True),
        Head("dimension"), Head("parameters"),
    ]  # fmt: skip
    if held_out:
        heads.append(Head("held out, per label", unit=True))
    return Table(heads, [_row(e, e is c.best, scale, held_out) for e in c.entries])


def _part(count: int | None) -> Number:
    return Number(ABSENT, sort=-1.0) if count is None else whole(count)


def _row(e: Entry, best: bool, scale: float, held_out: bool) -> list[Number]:
    row = [
        Number(e.name),
        nats(e.total * scale, bare=True),
        Number(ABSENT, sort=0.0) if best else nats(e.difference * scale, sign=True, bare=True),
        Number(ABSENT, sort=0.0) if best else nats(e.stderr * scale, bare=True),
        nats(e.fit * scale, bare=True),
        nats(e.complexity * scale, bare=True),
        Number(between(e.lower, e.upper), sort=float(e.dimension)),
        whole(e.parameters),
    ]
    if held_out:
        score = e.held_out
        row.append(Number(ABSENT) if score is None else nats(score * scale, digits=4, bare=True))
    return row
