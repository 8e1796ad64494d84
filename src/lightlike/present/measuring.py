"""Sections of the report of one measurement."""

from __future__ import annotations

import json
import math

from lightlike.assess.diagnosis import arranged
from lightlike.assess.measurement import Measurement
from lightlike.assess.summary import trace_of
from lightlike.figures.length import plot_length
from lightlike.figures.plateau import plot_plateau
from lightlike.figures.spectrum import plot_spectrum
from lightlike.present.page import Head, Number, Section, Table, drawn, nats

CRITERIA = {
    "uniform": "uniform code",
    "label_entropy": "label entropy",
    "aic": "AIC",
    "bic_dimension": "BIC with the dimension",
    "bic": "BIC with all parameters",
}


def measurement_sections(m: Measurement) -> list[Section]:
    """All sections; the last one says how to get the same again."""
    found = [Section("numbers", "In numbers", numbers=_numbers(m))]
    if any(check.status != "passed" for check in m.checks):
        found.append(_checks(m))
    if m.length.total is not None:
        found.append(_length(m))
    found += [_dimension(m), _layers(m)]
    if all(check.status == "passed" for check in m.checks):
        found.append(_checks(m))
    return [*found, _reproduce(m)]


def _numbers(m: Measurement) -> list[Number]:
    d, length = m.dimension, m.length.to("nats")
    counted = f"{d.value:,}" if d.lower == d.upper else f"{d.lower:,} – {d.upper:,}"
    of = f"of {m.parameters:,} parameters"
    found = [Number(counted, "dimension", kind=d.kind, note=of)]
    if length.total is not None:
        each = nats(length.total / m.observations, digits=3)
        total = nats(length.total)
        found.append(
            Number(
                total.text,
                "description length",
                total.bits,
                length.kind,
                f"{each.text} or {each.bits} a label",
            )
        )
    complexity = nats(length.complexity)
    found += [
        Number(complexity.text, "complexity", complexity.bits,
               note=f"effective dimension {length.effective_dimension:,.1f}"),
        Number(f"{m.observations:,}", "observations", note=f"{m.rows:,} rows, {_likelihood(m)}"),
    ]  # fmt: skip
    if math.isfinite(d.gap):
        found.append(
            Number(f"{d.gap:.1f} orders", "gap at the cut", note="of magnitude in singular values")
        )
    held_out = m.record.get("held_out")
    if isinstance(held_out, dict) and isinstance(held_out.get("accuracy"), float):
        found.append(
            Number(
                f"{held_out['accuracy']:.1%}",
                "held out",
                note=f"right of {held_out.get('observations', 0):,}",
            )
        )
    return found


def _likelihood(m: Measurement) -> str:
    return str(m.likelihood["name"])


def _length(m: Measurement) -> Section:
    nat = m.length.to("nats")
    charts = {u: plot_length(m.length.to(u), m.criteria) for u in ("nats", "bits")}
    assert nat.total is not None
    rows = [
        [Number("this network"), nats(nat.total), nats(nat.total / m.observations, digits=4)],
        *(
            [Number(CRITERIA[key]), nats(value), nats(value / m.observations, digits=4)]
            for key, value in m.criteria.items()
            if value is not None and key in CRITERIA
        ),
    ]
    heads = [Head("code", number=False), Head("length"), Head("per label")]
    return Section(
        "length",
        "What the labels cost",
        "The length of a code for the labels, given the inputs: what it takes to say which network "
        "of this kind it is, and the labels with its help.",
        figures=[drawn("length", "Description length, term by term", charts)],
        table=Table(heads, rows),
    )


def _dimension(m: Measurement) -> Section:
    s = m.spectrum
    charts = [drawn("spectrum", "Eigenvalues, floor and cut", plot_spectrum(s, m.dimension))]
    if len(s) and s.whole:
        plateau = plot_plateau(s, m.dimension)
        charts.append(drawn("rank", "Rank against tolerance", plateau))
    soft = (
        []
        if not s.whole
        else [
            Number(f"{s.participation_ratio():,.1f}", "participation ratio"),
            Number(f"{s.entropy_dimension():,.1f}", "entropy dimension"),
            Number(f"{s.stable_rank():,.1f}", "stable rank"),
        ]
    )
    soft.append(Number(f"{m.length.effective_dimension:,.1f}", "MacKay's effective dimension"))
    held = "" if s.whole else f"The {len(s):,} largest only. "
    return Section(
        "dimension",
        "Which directions matter",
        f"{held}The eigenvalues of the Fisher information matrix, {s.kind}, by way of "
        f"{s.method} ({s.reason}).",
        numbers=soft,
        figures=charts,
    )


def _layers(m: Measurement) -> Section:
    total = trace_of(m)
    rows = []
    for layer in m.layers:
        d = layer.dimension
        if d is None:
            cell = Number("—", sort=-1.0)
        elif d.lower == d.upper:
            cell = Number(f"{d.value:,}", sort=float(d.value))
        else:
            cell = Number(f"{d.lower:,} – {d.upper:,}", sort=float(d.lower))
        share = layer.trace / total if total else 0.0
        rows.append(
            [
                Number(layer.name or "(model)"),
                Number(f"{layer.parameters:,}", sort=float(layer.parameters)),
                cell,
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
        "whole. — means not measured.",
        table=Table(heads, rows),
    )


def _checks(m: Measurement) -> Section:
    bad = sum(check.status != "passed" for check in m.checks)
    lead = f"{bad} of {len(m.checks)} need attention." if bad else "All passed."
    return Section("checks", "Checks", lead, checks=arranged(m.checks))


def _reproduce(m: Measurement) -> Section:
    settings = {
        "likelihood": m.likelihood,
        "prior": m.length.prior,
        "excluded": list(m.excluded),
        **m.record,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False, default=str)
    return Section(
        "reproduce",
        "To reproduce",
        "The same weights, data and versions give the same numbers; fingerprints tell whether they "
        "are the same.",
        code=text,
    )
