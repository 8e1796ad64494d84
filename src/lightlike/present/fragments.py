"""What a notebook says of an answer, one entry for each kind of answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

from lightlike.assess.comparison import Comparison
from lightlike.assess.diagnosis import Check, Diagnosis
from lightlike.assess.history import History
from lightlike.assess.measurement import Measurement
from lightlike.assess.planning import Plan
from lightlike.assess.table import LengthTable
from lightlike.geometry.chain import DimensionChain
from lightlike.geometry.dimension import Dimension, SignificantDimension
from lightlike.geometry.path import PathLength
from lightlike.geometry.saturation import Saturation
from lightlike.geometry.share import Share
from lightlike.geometry.symmetry.explanation import Explanation, ExplanationSummary
from lightlike.geometry.variation import DimensionNear, DimensionPath
from lightlike.geometry.walk import Walk
from lightlike.length.codelength import CodeLength
from lightlike.length.coefficient import LearningCoefficient, SingularLength
from lightlike.length.criteria import NAMES, Criteria
from lightlike.length.description import DescriptionLength
from lightlike.length.noise import NoiseVariance
from lightlike.length.region import EffectiveDimension
from lightlike.meter import format_seconds
from lightlike.present.comparing import comparison_table
from lightlike.present.explaining import saturation_table, sources_table
from lightlike.present.following import history_lead, history_table
from lightlike.present.measuring import checks_section, key_section, soft_counts
from lightlike.present.page import (
    ABSENT,
    Head,
    Number,
    Section,
    Table,
    between,
    counted,
    nats,
    real,
    whole,
)
from lightlike.present.words import comparison_verdict, history_verdict, measurement_verdict
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.spectrum import Spectrum


@singledispatch
def sections_of(result: Any) -> list[Section]:
    """The parts of an answer; by default its numbers and texts by name."""
    values = {k: v for k, v in result.to_dict().items() if not isinstance(v, dict | list)}
    facts = {name.replace("_", " "): _cell(value) for name, value in values.items()}
    return [Section("", type(result).__name__, facts=facts)]


@sections_of.register
def _(result: Measurement) -> list[Section]:
    key = key_section(result)
    found = [_piece(measurement_verdict(result), "", numbers=key.numbers)]
    checks = checks_section(result)
    if bad := [check for check in checks.checks if check.status != "passed"]:
        found.append(_piece("Checks", checks.lead, checks=bad))
    return found


@sections_of.register
def _(result: Comparison) -> list[Section]:
    notes = [Check("comparison", "warning", text) for text in result.warnings]
    return [_piece(comparison_verdict(result), table=comparison_table(result), checks=notes)]


@sections_of.register
def _(result: History) -> list[Section]:
    lead = history_lead(result) if len(result) else ""
    return [_piece(history_verdict(result), lead, table=history_table(result))]


@sections_of.register
def _(result: Diagnosis) -> list[Section]:
    return [_piece("Healthy" if result.healthy else "Some checks failed", checks=result.checks)]


@sections_of.register
def _(result: Plan) -> list[Section]:
    heads = _heads("route", "time", "memory", *("*exact", "*fits", "*what it does"))
    rows = [
        [
            Number(r["method"] + (" (chosen)" if r["chosen"] else "")),
            Number(format_seconds(r["seconds"])),
            Number(format_bytes(r["memory"])),
            Number("exact" if r["exact"] else "estimated"),
            Number("fits" if r["fits"] else "does not fit"),
            Number(r["reason"]),
        ]
        for r in result._records()
    ]
    lead = (
        f"{result.parameters:,} parameters, {result.observations:,} observations, "
        f"{result.rows:,} rows; {format_bytes(result.budget)} may be used."
    )
    return [_piece("Plan", lead, table=Table(heads, rows))]


@sections_of.register
def _(result: LengthTable) -> list[Section]:
    heads = _heads("length", result.units, "±", "per label", "*kind", "*note")
    rows = [
        [Number(r.title), real(r.total, ".1f"), real(r.stderr), real(r.per_observation),
         Number(r.kind), Number(r.note)]
        for r in result
    ]  # fmt: skip
    return [_piece(f"Lengths of {result.observations:,} labels", table=Table(heads, rows))]


@sections_of.register(Dimension)
@sections_of.register(SignificantDimension)
def _(result: Dimension | SignificantDimension) -> list[Section]:
    note = "limited by the data" if result.data_limited else f"bounded by {result.bound}"
    counted_ = between(result.lower, result.upper)
    if isinstance(result, SignificantDimension):
        found = [Number(counted_, f"eigenvalues above {result.above:.4g}", "", result.kind, note)]
        return [_piece("", numbers=found)]
    note += ", proven twice" if result.proven_twice else ""
    gap = real(result.gap, ".1f").text
    found = [
        Number(counted_, "dimension", "", result.kind, note),
        Number(gap, "gap at the cut", note="orders of magnitude in singular values"),
        Number(f"{result.tolerance:.2g}", "tolerance", note="of the largest singular value"),
    ]
    return [_piece("", numbers=found)]


@sections_of.register
def _(result: Spectrum) -> list[Section]:
    least = float(result.eigenvalues[-1]) if len(result) else 0.0
    found = [
        Number(f"{len(result):,}", "eigenvalues", "", result.kind, f"by way of {result.method}"),
        Number(f"{result.largest:.4g}", "largest", note=f"smallest {least:.2g}"),
        Number(f"{result.trace:.4g}", "trace"),
        *soft_counts(result),
    ]
    return [_piece("", numbers=found)]


@sections_of.register(Explanation)
@sections_of.register(ExplanationSummary)
def _(result: Explanation | ExplanationSummary) -> list[Section]:
    summary = result.summary() if isinstance(result, Explanation) else result
    heading = f"{summary.explained:,} of {summary.radical:,} null directions have a name"
    return [_piece(heading, table=sources_table(summary), notes=summary.notes)]


@sections_of.register
def _(result: Saturation) -> list[Section]:
    return [_piece(result.verdict, table=saturation_table(result))]


@sections_of.register
def _(result: DimensionPath) -> list[Section]:
    heads = _heads("point", "distance", "dimension", "kind", "gap")
    listed = enumerate(zip(result.distances, result.dimensions, strict=True))
    rows = [
        [whole(i), real(x), counted(d), Number(d.kind), real(d.gap, ".1f")]
        for i, (x, d) in listed
    ]  # fmt: skip
    return [_piece(f"Dimension at {len(rows):,} points", table=Table(heads, rows))]


@sections_of.register
def _(result: DimensionNear) -> list[Section]:
    rows = [[Number("at θ"), counted(result.here), whole(1)]]
    rows += [[Number("nearby"), whole(value), whole(n)] for value, n in result.counts.items()]
    return [_piece(result.verdict, table=Table(_heads("where", "dimension", "points"), rows))]


@sections_of.register
def _(result: DimensionChain) -> list[Section]:
    heads = _heads("layer", "parameters", "alone", "from here on", "adds")
    rows = [
        [Number(one.name or "(model)"), whole(one.parameters), counted(one.alone),
         counted(one.onwards), whole(one.added)]
        for one in result.layers
    ]  # fmt: skip
    found = [_piece("Layers, input first", table=Table(heads, rows))]
    if result.modules is not None:
        heads = _heads("output of", "*class", "width", "rank", "*kind")
        rows = [
            [Number(one.module or "(model)"), Number(one.layer), whole(one.width), counted(one),
             Number(one.kind)]
            for one in result.modules
        ]  # fmt: skip
        found.append(_piece("Outputs of modules", table=Table(heads, rows)))
    return found


@sections_of.register
def _(result: PathLength) -> list[Section]:
    error = f"± {result.error:.2g}; {result.evaluations:,} evaluations"
    numbers = [Number(f"{result.value:.5g}", "Fisher–Rao length", "", "estimated", error)]
    rows = [[Number(f"{i} to {i + 1}"), real(v)] for i, v in enumerate(result.segments)]
    return [_piece("", numbers=numbers, table=Table(_heads("segment", "length"), rows))]


@sections_of.register
def _(result: Walk) -> list[Section]:
    first, last = result.steps[0], result.steps[-1]
    rows = [
        [Number("objective"), real(first.objective), real(last.objective)],
        [Number("squared norm"), real(first.squared_norm), real(last.squared_norm)],
        [Number("weights at 0"), whole(first.zeros), whole(last.zeros)],
        [Number("divergence, nats a label"), real(first.divergence), real(last.divergence)],
    ]
    for name, seen in (("data", result.data), ("held out", result.held_out)):
        if seen is not None and seen.nll_before is not None:
            losses = real(seen.nll_before), real(seen.nll_after)
            rows.append([Number(f"loss, {name}"), *losses])
    lead = f"Budget {result.budget:.3g} nats a label; displacement {result.displacement:.4g}."
    notes = [f"{c.name}: {c.divergence:.3g} nats over the same distance." for c in result.controls]
    heading = f"{result.objective}: {len(result.steps) - 1:,} steps, {result.stopped}"
    return [_piece(heading, lead, table=Table(_heads("", "before", "after"), rows), notes=notes)]


@sections_of.register
def _(result: Share) -> list[Section]:
    heads = _heads("layer", "share", "inside")
    rows = [
        [Number(name or "(model)"),
         Number(f"{share:.1%}", sort=share, share=min(max(share, 0.0), 1.0)),
         Number(f"{result.fractions[name]:.1%}")]
        for name, share in result.layers.items()
    ]  # fmt: skip
    return [_piece(f"A subspace of dimension {result.dimension:,}", table=Table(heads, rows))]


@sections_of.register
def _(result: DescriptionLength) -> list[Section]:
    terms = {
        "fit": result.fit, "displacement": result.displacement,
        "dimension term": result.dimension_term, "spectrum term": result.spectrum_term,
    }  # fmt: skip
    if result.prior_term:
        terms["prior term"] = result.prior_term
    return _length(result, terms, result.validity)


@sections_of.register
def _(result: CodeLength) -> list[Section]:
    note = " ".join([*result.warnings, result.note])
    return _length(result, {"fit": result.fit, "penalty": result.penalty}, note)


@sections_of.register
def _(result: SingularLength) -> list[Section]:
    terms = {"fit": result.fit, "λ log n": result.penalty, "multiplicity": result.multiplicity_term}
    return _length(result, terms)


@sections_of.register
def _(result: NoiseVariance) -> list[Section]:
    numbers = [Number(f"{result.variance:.5g}", "noise variance", note="that fits best")]
    return [_piece("", numbers=numbers), *sections_of(result.length)]


@sections_of.register
def _(result: Criteria) -> list[Section]:
    rows = [
        [Number(NAMES.get(key, key)), Number(ABSENT) if value is None else nats(value)]
        for key, value in result.items()
    ]
    return [_piece("", table=Table(_heads("code", "length"), rows))]


@sections_of.register
def _(result: LearningCoefficient) -> list[Section]:
    bound = "" if result.rank_bound is None else f"; at most {result.rank_bound:g} by the rank"
    note = f"± {result.stderr:.2g}{bound}"
    numbers = [Number(f"{result.value:.4g}", "learning coefficient", "", result.kind, note)]
    heads = _heads("temperature", "loss", "±", "R̂", "effective draws", "chains")
    rows = [
        [real(d.temperature), real(d.loss), real(d.loss_stderr), real(d.rhat, ".3f"),
         real(d.effective_draws, ".0f"), whole(len(d.chain_means))]
        for d in result.diagnostics
    ]  # fmt: skip
    return [_piece("", numbers=numbers, table=Table(heads, rows))]


@sections_of.register
def _(result: EffectiveDimension) -> list[Section]:
    numbers = [
        Number(f"{result.value:.4g}", "effective dimension", "", result.kind,
               f"± {result.stderr:.2g}, of {result.parameters:,} parameters"),
        Number(f"{result.observations:,}", "observations", note=f"γ = {result.gamma:g}"),
        Number(f"{result.largest_rank:,}", "largest rank", note=f"over {result.draws:,} draws"),
        Number(f"{result.effective_draws:,.1f}", "effective draws"),
    ]  # fmt: skip
    return [_piece("", numbers=numbers)]


def _length(
    length: DescriptionLength | CodeLength | SingularLength,
    terms: Mapping[str, float | None],
    note: str = "",
) -> list[Section]:
    """Total and terms, in the units that the length is in."""
    each = getattr(length, "scale", 1.0) != 1.0
    unit = f"{length.units} per label" if each else length.units
    digits = ".4f" if each else ".1f"
    error = f"± {length.stderr:,.2g}, " if length.stderr else ""
    numbers = [
        Number(f"{real(length.total, digits).text} {unit}", "length", "", length.kind,
               f"{error}{length.observations:,} labels"),
    ]  # fmt: skip
    rows = [[Number(name), real(value, digits)] for name, value in terms.items()]
    table = Table(_heads("term", unit), rows)
    return [_piece("", numbers=numbers, table=table, notes=[note] if note else [])]


def _piece(heading: str, lead: str = "", **parts: Any) -> Section:
    return Section("", heading, lead, **parts)


def _heads(*names: str) -> list[Head]:
    """Heads of columns; the first names rows, and those with a star are texts too."""
    return [
        Head(n.removeprefix("*"), not (n.startswith("*") or not i)) for i, n in enumerate(names)
    ]


def _cell(value: Any) -> str:
    if value is None:
        return ABSENT
    return f"{value:.6g}" if isinstance(value, float) else str(value)
