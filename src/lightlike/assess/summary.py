"""A measurement in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlike.length.criteria import NAMES
from lightlike.length.description import UNITS, DescriptionLength

if TYPE_CHECKING:
    from lightlike.assess.measurement import Measurement

MOST_LAYERS = 6
MOST_SOURCES = 3
BESIDE = ("uniform", "label_entropy", "bic_dimension", "bic", "aic")


def as_text(m: Measurement) -> str:
    """At most 20 lines for a terminal, each within 100 characters where names allow."""
    rows = lines(m)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def lines(m: Measurement) -> list[tuple[str, str]]:
    """Label and text of each line."""
    accounts = _accounts(m)
    rows = [
        ("measured", _measured(m)),
        ("dimension", _dimension(m)),
        ("spectrum", _spectrum(m)),
        ("soft counts", _soft(m)),
        *_length(m),
        *_layers(m, MOST_LAYERS - len(accounts)),
        *accounts,
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
    text += ", proven twice" if d.proven_twice else ""
    text += f"); {most}{null:,} null direction{'' if null == 1 else 's'}"
    return f"{text}; limited by the data" if d.data_limited else text


def _spectrum(m: Measurement) -> str:
    s = m.spectrum
    if not len(s) and s.whole:
        return "zero"
    if not s.whole:
        least = f" to {float(s.eigenvalues[-1]):.2g}" if len(s) else ""
        return (
            f"only the {len(s):,} largest: λ from {s.largest:.3g}{least}, others up to "
            f"{s.floor:.2g} ({s.kind} by {s.method}, {m.record['dtype']})"
        )
    return (
        f"λ from {s.largest:.3g} to {float(s.eigenvalues[-1]):.2g}, trace {s.trace:.4g} "
        f"({s.kind} by {s.method}, {m.record['dtype']}{_floor(m)})"
    )


def _bounded(m: Measurement) -> bool:
    """Whether dimensions are from below: of a sketch, a part, or in lower precision."""
    s = m.spectrum
    return s.kind in ("estimated", "approximate") or s.rounding is not None or not s.whole


def _floor(m: Measurement) -> str:
    s = m.spectrum
    if s.rounding is None:
        return ""
    return f", floor {s.floor:.1g}, λ_1 ± {float(s.errors[0]):.1g}"


def _soft(m: Measurement) -> str:
    s = m.spectrum
    if not s.whole:
        text = f"MacKay {m.length.effective_dimension:.1f}"
        if bounds := m.record.get("lanczos", {}).get("bounds"):
            low, high = (bounds["effective_dimension"][side] for side in ("lower", "upper"))
            text += f" ± {0.5 * (high - low):.2g}"
        return f"{text}; others need the whole spectrum"
    return (
        f"MacKay {m.length.effective_dimension:.1f}, participation {s.participation_ratio():.1f}, "
        f"stable rank {s.stable_rank():.1f}, entropy {s.entropy_dimension():.1f}"
    )


def _length(m: Measurement) -> list[tuple[str, str]]:
    length = m.length
    n, about = length.observations, "≈ " if length.kind == "approximate" else ""
    rows = [
        (
            "complexity",
            f"{about}{length.complexity:.1f}{'' if length.total is not None else _error(m)} "
            f"{length.units}{_split(length)}, {_prior(m)}",
        )
    ]
    if length.total is None or length.fit is None or length.displacement is None:
        rows.insert(0, ("length", "— (no labels, so no fit term)"))
        return rows
    total = (
        f"{about}{length.total:.1f}{_error(m)} {length.units} = {length.fit:.1f} (fit) "
        f"{_signed(length.displacement)} (displacement) {_signed(length.complexity)} (complexity)"
    )
    factor = UNITS[length.units]
    rows.insert(0, ("length", f"{total}; {length.total / n:.4g} a label"))
    if length.tuning_cost:
        rows.append(("", f"at most {length.tuning_cost:.1f} more for the fitted prior variance"))
    parts = [
        f"{NAMES[key]} {value * factor:.1f}"
        for key in BESIDE
        if (value := m.criteria.get(key)) is not None
    ]
    rows.append(("beside it", ", ".join(parts)))
    return rows


def _layers(m: Measurement, most: int) -> list[tuple[str, str]]:
    rows = []
    total = trace_of(m)
    for layer in m.layers[:most]:
        dimension = "—" if layer.dimension is None else f"{layer.dimension.value:,}"
        if _bounded(m) and layer.dimension and layer.dimension.kind != "exact":
            dimension = f"at least {dimension}"
        share = layer.trace / total if total else 0.0
        rows.append(
            (
                "layer",
                f"{layer.name or '(model)'}: dimension {dimension} of {layer.parameters:,}, "
                f"{share:.0%} of the trace",
            )
        )
    if len(m.layers) > most:
        rows.append(("layer", f"… {len(m.layers) - most} more in .layers"))
    return rows


def _accounts(m: Measurement) -> list[tuple[str, str]]:
    """What was asked for beside the rest: sources of null directions, and saturation."""
    rows = []
    if (e := m.explanation) is not None:
        kinds: dict[str, int] = {}
        for source in e.sources:
            kinds[source.kind] = kinds.get(source.kind, 0) + source.dimension
        largest = sorted(((n, kind) for kind, n in kinds.items() if n), reverse=True)
        named = [f"{kind} {n:,}" for n, kind in largest[:MOST_SOURCES]]
        named += ["…"] if len(largest) > MOST_SOURCES else []
        text = f"{e.explained:,} of {e.radical:,} null directions explained"
        rows.append(("sources", ": ".join([text, *([", ".join(named)] if named else [])])))
    if m.saturation is not None:
        rows.append(("saturation", m.saturation.verdict))
    return rows


def trace_of(m: Measurement) -> float:
    """Σ λ: of the spectrum where that is whole, else of the layers."""
    return m.spectrum.trace if m.spectrum.whole else sum(layer.trace for layer in m.layers)


def _prior(m: Measurement) -> str:
    prior = m.length.prior
    if prior.get("name") == "isotropic":
        fitted = " (fitted)" if "fitted_by" in prior else ""
        return f"prior variance {float(prior['variance']):.3g}{fitted}"
    return f"{prior.get('name')} prior"


def _error(m: Measurement) -> str:
    length = m.length
    text = f" ± {length.stderr:.2g}" if length.kind == "estimated" else ""
    if m.spectrum.method == "slq":
        # Beside chance it is nothing as a rule; a note has it in any case.
        shown = length.error > 0.1 * length.stderr
        return f"{text} ± {length.error:.1g} (quadrature)" if shown else text
    if m.spectrum.method == "lanczos":
        return f"{text} ± {length.error:.2g} (bounds)"
    return f"{text} ± {length.error:.1g} (rounding)" if length.error else text


def _split(length: DescriptionLength) -> str:
    dimension, spectrum = length.dimension_term, length.spectrum_term
    if dimension is None or spectrum is None:
        return " (dimension and spectrum terms —)"
    return f" = {dimension:.1f} (dimension) {_signed(spectrum)} (spectrum)"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '−'} {abs(value):.1f}"
