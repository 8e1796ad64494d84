"""How to get the same numbers again: calls, a run file, and what they rested on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightlike.assess.measurement import Measurement
from lightlike.present.page import ABSENT, Code, Section
from lightlike.problem.likelihoods import NAMED
from lightlike.spectrum.memory import format_bytes

# What `measure` takes unless asked for something else.
DEFAULTS: dict[str, Any] = {
    "method": "auto", "units": "nats", "seed": 0, "dtype": "float64", "parameters": None,
    "layers": None, "explain": False, "saturation": False,
}  # fmt: skip


def reproduction_section(m: Measurement) -> Section:
    """Python call, run file with its command, versions, fingerprints, seed and timings."""
    return Section(
        "reproduce",
        "To reproduce",
        "The same weights, data and versions give the same numbers; fingerprints tell whether they "
        "are the same. Model and data are yours: put their names in.",
        codes=[Code("Python", _call(m)), Code("run.toml", _run_file(m)),
               Code("Command", "lightlike measure run.toml")],
        facts=_facts(m),
    )  # fmt: skip


def described(settings: Mapping[str, object]) -> str:
    """A name and its settings in one line."""
    rest = ", ".join(f"{k} {_short(v)}" for k, v in settings.items() if k != "name")
    return ", ".join(part for part in (str(settings.get("name", "")), rest) if part)


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _asked(m: Measurement) -> dict[str, Any]:
    """What was asked for beyond the defaults."""
    asked = {**m.record.get("asked", {}), "seed": m.record["seed"], "units": m.length.units}
    return {k: v for k, v in asked.items() if k in DEFAULTS and v != DEFAULTS[k]}


def _call(m: Measurement) -> str:
    options = _asked(m)
    parts = ["model", "data", _likelihood_call(m.likelihood)]
    if prior := _prior_call(m.length.prior):
        parts.append(f"prior={prior}")
    parts += [f"{name}={_python(value)}" for name, value in options.items()]
    inside = "".join(f"    {_with_comma(part)}\n" for part in parts)
    return f"import lightlike as ll\n\nm = ll.measure(\n{inside})"


def _with_comma(part: str) -> str:
    code, mark, comment = part.partition("  # ")
    return f"{code},{mark}{comment}"


def _python(value: Any) -> str:
    """A value as Python has it, texts in double quotes; options of a method as their class."""
    if isinstance(value, Mapping):
        kind = "Columns" if "replicates" in value else "Sketch"
        return f"ll.{kind}({', '.join(f'{k}={_python(v)}' for k, v in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _likelihood_call(likelihood: Mapping[str, Any]) -> str:
    """By its name, by its class with its settings, or a name to be filled in."""
    known = NAMED.get(str(likelihood["name"]))
    if known is None:
        return f"likelihood  # {described(likelihood)}"
    settings = _set(likelihood)
    if not settings:
        return _python(likelihood["name"])
    inside = ", ".join(f"{k}={_python(v)}" for k, v in settings.items())
    return f"ll.likelihoods.{known.__name__}({inside})"


def _set(likelihood: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not what its class has unasked."""
    known = NAMED.get(str(likelihood["name"]))
    usual = known().describe() if known is not None else {}
    return {k: v for k, v in likelihood.items() if k != "name" and usual.get(k) != v}


def _prior_call(prior: Mapping[str, Any]) -> str:
    """As it is asked for; "…" stands for numbers that a result does not keep."""
    name = str(prior.get("name"))
    if name != "isotropic":
        known = {"per_layer": "PerLayer", "per_parameter": "PerParameter",
                 "from_initialisation": "FromInitialisation"}  # fmt: skip
        return f"ll.priors.{known[name]}(…)" if name in known else f"…  # {described(prior)}"
    variance = "evidence" if "fitted_by" in prior else prior["variance"]
    mean = prior.get("mean", 0.0)
    inside = [] if variance == 1.0 else [_python(variance)]
    inside += [] if mean == 0.0 else [f"mean={mean!r}" if isinstance(mean, float) else "mean=…"]
    return f"ll.priors.Isotropic({', '.join(inside)})" if inside else ""


def _run_file(m: Measurement) -> str:
    lines = ["[model]", 'factory = "your.module:build"', "", "[data]",
             'factory = "your.module:data"', "", "[measure]"]  # fmt: skip
    settings, name = _set(m.likelihood), m.likelihood["name"]
    if name not in NAMED:
        lines.append("# a run file knows the likelihoods of lightlike only")
    lines.append(f"likelihood = {_toml({'name': name, **settings} if settings else name)}")
    prior = m.length.prior
    if prior.get("name") == "isotropic":
        variance = "evidence" if "fitted_by" in prior else prior["variance"]
        if variance != 1.0:
            lines.append(f"prior = {_toml({'variance': variance})}")
    else:
        lines.append(f"# prior: {described(prior)}; a run file knows isotropic ones only")
    lines += [f"{name} = {_toml(value)}" for name, value in _asked(m).items()]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """A value as TOML has it: plain values are as in JSON, tables are written inline."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{k} = {_toml(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inside} }}"
    return json.dumps(value, ensure_ascii=False)


def _facts(m: Measurement) -> dict[str, str]:
    r = m.record
    versions = " · ".join(f"{k} {v}" for k, v in r["versions"].items())
    fingerprint = r["fingerprint"]
    peak = r.get("peak_memory")
    facts = {
        "route": f"{r['method']}: {r['reason']}",
        "arithmetic": f"{r['dtype']} on {r['device']}",
        "tolerance": f"{r['tolerance']:.3g} ({r['tolerance_from']})",
        "likelihood": described(m.likelihood),
        "prior": described(m.length.prior),
        "seed": str(r["seed"]),
        "excluded": ", ".join(m.excluded) or "nothing",
        "model": f"SHA-256 {fingerprint['model']}",
        "data": f"SHA-256 {fingerprint['data']}",
        "versions": versions,
        "time": f"{r['seconds']:,.3g} s",
        "peak memory": ABSENT if peak is None else format_bytes(peak),
    }
    known = {
        "method", "reason", "dtype", "precision", "device", "tolerance", "tolerance_from", "seed",
        "fingerprint", "versions", "seconds", "peak_memory", "asked",
    }  # fmt: skip
    rest = {k: _told(v) for k, v in r.items() if k not in known}
    return facts | {k.replace("_", " "): v for k, v in rest.items()}


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return _short(value)
