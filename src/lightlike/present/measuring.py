"""Sections of the report of one measurement."""

from __future__ import annotations

import math

from lightlike.assess.diagnosis import arranged
from lightlike.assess.measurement import Measurement
from lightlike.assess.summary import trace_of
from lightlike.figures.length import plot_length
from lightlike.figures.plateau import plot_plateau
from lightlike.figures.spectrum import plot_spectrum
from lightlike.length.criteria import NAMES
from lightlike.present.explaining import saturation_section, sources_section
from lightlike.present.page import (
    ABSENT,
    Head,
    Number,
    Section,
    Table,
    between,
    counted,
    nats,
    whole,
)
from lightlike.present.rendering import drawn
from lightlike.present.reproducing import reproduction_section
from lightlike.spectrum.spectrum import Spectrum


def measurement_sections(m: Measurement) -> list[Section]:
    """All sections; the last one says how to get the same again."""
    checks = checks_section(m)
    worrying = any(check.status != "passed" for check in m.checks)
    return [
        key_section(m),
        *([checks] if worrying else []),
        _length(m),
        _dimension(m),
        sources_section(m.explanation),
        saturation_section(m.saturation),
        _layers(m),
        *([] if worrying else [checks]),
        reproduction_section(m),
    ]


def key_section(m: Measurement) -> Section:
    """The numbers that matter most, each with what it is worth."""
    d, length = m.dimension, m.length.to("nats")
    note = f"of {m.parameters:,} parameters" + (", proven twice" if d.proven_twice else "")
    found = [Number(between(d.lower, d.upper), "dimension", kind=d.kind, note=note)]
    if length.total is None:
        found.append(Number(ABSENT, "description length", note="no labels, so no fit"))
    else:
        each = nats(length.total / m.observations, digits=3)
        total, error = nats(length.total), ""
        if length.stderr:
            error = f"± {length.stderr:,.2g} nats; "
        note = f"{error}{each.text} or {each.bits} a label"
        found.append(Number(total.text, "description length", total.bits, length.kind, note))
    complexity = nats(length.complexity)
    found += [
        Number(complexity.text, "complexity", complexity.bits, length.kind,
               note=f"effective dimension {length.effective_dimension:,.1f}"),
        Number(f"{m.observations:,}", "observations",
               note=f"{m.rows:,} rows, {m.likelihood['name']}"),
    ]  # fmt: skip
    if math.isfinite(d.gap):
        found.append(
            Number(f"{d.gap:.1f} orders", "gap at the cut", note="of magnitude in singular values")
        )
    if (e := m.explanation) is not None and e.radical:
        note = f"of {e.radical:,}" + ("" if e.unexplained else ", all of them")
        found.append(Number(f"{e.explained:,}", "null directions explained", note=note))
    if (s := m.saturation) is not None and s.point is not None:
        a, b = s.point
        place = between(a + 1, b)
        found.append(Number(place, "observations suffice", note=f"of {s.observations:,}"))
    held_out = m.record.get("held_out")
    if isinstance(held_out, dict) and isinstance(held_out.get("accuracy"), float):
        note = f"right of {held_out.get('observations', 0):,}"
        found.append(Number(f"{held_out['accuracy']:.1%}", "held out", note=note))
    return Section("numbers", "In numbers", numbers=found)


def checks_section(m: Measurement) -> Section:
    """All checks, failures first."""
    bad = sum(check.status != "passed" for check in m.checks)
    lead = f"{bad} of {len(m.checks)} need attention." if bad else "All passed."
    return Section("checks", "Checks", lead, checks=arranged(m.checks))


def _length(m: Measurement) -> Section:
    nat, title = m.length.to("nats"), "What the labels cost"
    if nat.total is None:
        return Section(
            "length", title, f"{ABSENT} not measured: without labels there is no fit. Measure with "
            "(x, y) for a description length.",
        )  # fmt: skip
    charts = {u: plot_length(m.length.to(u), m.criteria) for u in ("nats", "bits")}
    rows = [
        _code("this network", nat.total, m.observations),
        *(
            _code(NAMES.get(key, key), value, m.observations)
            for key, value in m.criteria.items()
            if value is not None
        ),
    ]
    heads = [Head("code", number=False), Head("length", unit=True), Head("per label", unit=True)]
    return Section(
        "length",
        title,
        "The length of a code for the labels, given the inputs: what it takes to say which network "
        "of this kind it is, and the labels with its help.",
        figures=[drawn("length", "Description length, term by term", charts)],
        table=Table(heads, rows),
        notes=[m.length.validity] if m.length.validity else [],
    )


def _code(name: str, length: float, observations: int) -> list[Number]:
    each = nats(length / observations, digits=4, bare=True)
    return [Number(name), nats(length, bare=True), each]


def _dimension(m: Measurement) -> Section:
    s = m.spectrum
    charts = [drawn("spectrum", "Eigenvalues, floor and cut", plot_spectrum(s, m.dimension))]
    if len(s) and s.whole:
        plateau = plot_plateau(s, m.dimension)
        charts.append(drawn("rank", "Rank against tolerance", plateau))
    effective = f"{m.length.effective_dimension:,.1f}"
    soft = soft_counts(s) if s.whole else []
    held = "" if s.whole else f"The {len(s):,} largest only. "
    return Section(
        "dimension",
        "Which directions matter",
        f"{held}The eigenvalues of the Fisher information matrix, {s.kind}, by way of "
        f"{s.method} ({s.reason}).",
        numbers=[*soft, Number(effective, "MacKay's effective dimension")],
        figures=charts,
    )


def soft_counts(s: Spectrum) -> list[Number]:
    """Numbers of directions that weigh them by their eigenvalues."""
    return [
        Number(f"{s.participation_ratio():,.1f}", "participation ratio"),
        Number(f"{s.entropy_dimension():,.1f}", "entropy dimension"),
        Number(f"{s.stable_rank():,.1f}", "stable rank"),
    ]


def _layers(m: Measurement) -> Section:
    total = trace_of(m)
    rows = []
    for layer in m.layers:
        share = layer.trace / total if total else 0.0
        rows.append(
            [
                Number(layer.name or "(model)"),
                whole(layer.parameters),
                Number(ABSENT, sort=-1.0) if layer.dimension is None else counted(layer.dimension),
                Number(f"{share:.1%}", sort=share, share=min(max(share, 0.0), 1.0)),
            ]
        )
    heads = [
        Head("layer", number=False), Head("parameters"), Head("dimension alone"),
        Head("share of the trace"),
    ]  # fmt: skip
    return Section(
        "layers",
        "Layer by layer",
        "A layer's dimension counts the directions of its own parameters; directions that only "
        "cancel against other layers count too, so that the parts may add up to more than the "
        f"whole. {ABSENT} means not measured.",
        table=Table(heads, rows),
    )
