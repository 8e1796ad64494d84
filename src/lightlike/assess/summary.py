"""A measurement in words: the same lines as text and as a small HTML table."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from lightlike.length.description import UNITS, DescriptionLength

if TYPE_CHECKING:
    from lightlike.assess.measurement import Measurement

MOST_LAYERS = 6


def as_text(m: Measurement) -> str:
    """At most 20 lines for a terminal, each within 100 characters where names allow."""
    rows = lines(m)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def as_html(m: Measurement) -> str:
    """The same lines as a table, without scripts or outside references."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for label, text in lines(m)
    )
    return f"<table class='lightlike-measurement'>{cells}</table>"


def lines(m: Measurement) -> list[tuple[str, str]]:
    """Label and text of each line."""
    rows = [
        ("measured", _measured(m)),
        ("dimension", _dimension(m)),
        ("spectrum", _spectrum(m)),
        ("soft counts", _soft(m)),
        *_length(m),
        *_layers(m),
    ]
    if changed := m.record.get("reanalysed"):
        rows.insert(1, ("re-analysed", ", ".join(_changes(changed))))
    rows += [("note", warning) for warning in m.warnings[:3]]
    if len(m.warnings) > 3:
        rows.append(("note", f"{len(m.warnings) - 3} more in .warnings"))
    return rows


def _changes(changed: dict[str, Any]) -> list[str]:
    """What is not as it was measured."""
    found = []
    for name, value in changed.items():
        if isinstance(value, dict):
            found.append(f"{name} variance {value['variance']:.4g}")
        elif name == "observations":
            found.append(f"as if there were {value:,} observations")
        else:
            found.append(f"{name} {value if isinstance(value, str) else f'{value:.3g}'}")
    return found


def _measured(m: Measurement) -> str:
    text = (
        f"D = {m.parameters:,} parameters, N = {m.observations:,} observations, "
        f"K = {m.rows:,} rows, {m.likelihood['name']}"
    )
    share = m.record["share_measured"]
    return text if share == 1 else f"{text}; {share:.1%} of all parameters"


def _dimension(m: Measurement) -> str:
    d = m.dimension
    text = f"{d.value:,} of {m.parameters:,} ({d.kind}"
    if d.lower != d.upper:
        text += f", {d.lower:,} to {d.upper:,}"
    if d.value and d.gap != float("inf"):
        text += f", gap 10^{d.gap:.1f}"
    null = m.parameters - d.value
    most = "at most " if _bounded(m) and d.kind != "exact" else ""
    text += f"); {most}{null:,} null direction{'' if null == 1 else 's'}"
    return f"{text}; limited by the data" if d.data_limited else text


def _spectrum(m: Measurement) -> str:
    s = m.spectrum
    if not len(s):
        return "zero"
    return (
        f"λ from {s.largest:.3g} to {float(s.eigenvalues[-1]):.2g}, trace {s.trace:.4g} "
        f"({s.kind} by {s.method}, {m.record['dtype']}{_floor(m)})"
    )


def _bounded(m: Measurement) -> bool:
    """Whether dimensions are from below: of a sketch, or in lower precision."""
    return m.spectrum.kind == "estimated" or m.spectrum.rounding is not None


def _floor(m: Measurement) -> str:
    s = m.spectrum
    if s.rounding is None:
        return ""
    return f", floor {s.floor:.1g}, λ_1 ± {float(s.errors[0]):.1g}"


def _soft(m: Measurement) -> str:
    s = m.spectrum
    return (
        f"MacKay {m.length.effective_dimension:.1f}, participation {s.participation_ratio():.1f}, "
        f"stable rank {s.stable_rank():.1f}, entropy {s.entropy_dimension():.1f}"
    )


def _length(m: Measurement) -> list[tuple[str, str]]:
    length = m.length
    n = length.observations
    rows = [
        (
            "complexity",
            f"{length.complexity:.1f}{'' if length.total is not None else _error(length)} "
            f"{length.units} = {length.dimension_term:.1f} (dimension) "
            f"{_signed(length.spectrum_term)} (spectrum), {_prior(m)}",
        )
    ]
    if length.total is None or length.fit is None or length.displacement is None:
        rows.insert(0, ("length", "— (no labels, so no fit term)"))
        return rows
    total = (
        f"{length.total:.1f}{_error(length)} {length.units} = {length.fit:.1f} (fit) "
        f"{_signed(length.displacement)} (displacement) {_signed(length.complexity)} (complexity)"
    )
    factor = UNITS[length.units]
    rows.insert(0, ("length", f"{total}; {length.total / n:.4g} a label"))
    if length.tuning_cost:
        rows.append(("", f"at most {length.tuning_cost:.1f} more for the fitted prior variance"))
    names = {
        "uniform": "uniform code",
        "label_entropy": "label entropy",
        "bic_dimension": "BIC with d",
        "bic": "BIC with D",
        "aic": "AIC",
    }
    parts = [
        f"{name} {value * factor:.1f}"
        for key, name in names.items()
        if (value := m.criteria.get(key)) is not None
    ]
    rows.append(("beside it", ", ".join(parts)))
    return rows


def _layers(m: Measurement) -> list[tuple[str, str]]:
    rows = []
    for layer in m.layers[:MOST_LAYERS]:
        dimension = "—" if layer.dimension is None else f"{layer.dimension.value:,}"
        if _bounded(m) and layer.dimension and layer.dimension.kind != "exact":
            dimension = f"at least {dimension}"
        share = layer.trace / m.spectrum.trace if m.spectrum.trace else 0.0
        rows.append(
            (
                "layer",
                f"{layer.name or '(model)'}: dimension {dimension} of {layer.parameters:,}, "
                f"{share:.0%} of the trace",
            )
        )
    if len(m.layers) > MOST_LAYERS:
        rows.append(("layer", f"… {len(m.layers) - MOST_LAYERS} more in .layers"))
    return rows


def _prior(m: Measurement) -> str:
    prior = m.length.prior
    if prior.get("name") == "isotropic":
        fitted = " (fitted)" if "fitted_by" in prior else ""
        return f"prior variance {float(prior['variance']):.3g}{fitted}"
    return f"{prior.get('name')} prior"


def _error(length: DescriptionLength) -> str:
    text = f" ± {length.stderr:.2g}" if length.kind == "estimated" else ""
    return f"{text} ± {length.error:.1g} (rounding)" if length.error else text


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '−'} {abs(value):.1f}"
