"""Entries of a run file as the objects that they mean."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from lightlike.errors import RunFileError, choice_error
from lightlike.length.priors import FromInitialisation, Isotropic, PerLayer, PerParameter, Prior
from lightlike.problem.likelihoods import NAMED, Likelihood, resolve_likelihood
from lightlike.runfile.factories import load_tensors
from lightlike.spectrum.quadrature import Quadrature
from lightlike.spectrum.sketch import Sketch

# Settings of each prior.
PRIORS = {
    "isotropic": {"variance", "mean"},
    "per_layer": {"variance", "mean"},
    "per_parameter": {"variance", "mean"},
    "from_initialisation": {"constants", "fresh", "mean", "seed"},
}


def check_kind(name: str, value: Any, kind: type, what: str) -> None:
    """Raise a RunFileError if an entry of [measure] is there and not of a kind."""
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return
    raise RunFileError(
        f"{name} = {value!r} in the run file is not {what}.",
        "It could not be used as it was meant.",
        f"Write {what}.",
    )


def expect(found: set[str], known: set[str], where: str, what: str) -> None:
    """Raise a RunFileError if something was found that is not known."""
    if unknown := sorted(found - known):
        raise RunFileError(
            f"{where} has an unknown {what} {unknown[0]!r}.",
            "A misspelt setting would be ignored silently.",
            f"Use: {', '.join(sorted(known))}.",
        )


def likelihood_of(value: Any) -> Likelihood:
    """The likelihood that an entry means."""
    if value is None:
        raise RunFileError(
            "The run file's [measure] table has no likelihood.",
            "Without it the outputs are no distribution.",
            f'Write likelihood = "..." there, one of: {", ".join(NAMED)}.',
        )
    if isinstance(value, dict):
        settings = dict(value)
        name = settings.pop("name", None)
        if name not in NAMED:
            raise choice_error("likelihood.name", name, [*map(repr, NAMED)])
        try:
            return NAMED[name](**settings)
        except TypeError as error:
            raise RunFileError(
                f"The likelihood {name!r} does not take these settings ({error}).",
                "Another distribution would be measured.",
                "See lightlike.likelihoods for its settings.",
            ) from error
    return resolve_likelihood(value)


def value_of(text: str) -> Any:
    """What a prior on the command line would be in a run file."""
    try:
        return tomllib.loads(f"prior = {text}")["prior"]
    except tomllib.TOMLDecodeError:
        return text


def prior_of(value: Any, folder: Path, fresh: Callable[[], nn.Module]) -> Prior:
    """The prior that an entry means, with files in a folder and a way to fresh models."""
    if not isinstance(value, dict):
        return Isotropic(value)
    settings = dict(value)
    name = settings.pop("name", "isotropic")
    if name not in PRIORS:
        raise choice_error("prior.name", name, [*map(repr, PRIORS)])
    expect(set(settings), PRIORS[name], f"prior {name!r}", "setting")
    if isinstance(settings.get("mean"), str):
        settings["mean"] = load_tensors(folder / settings["mean"], "prior mean")
    if name == "from_initialisation":
        check_kind("prior.fresh", settings.get("fresh"), bool, "true or false")
        check_kind("prior.seed", settings.get("seed"), int, "a whole number")
        settings["fresh"] = fresh if settings.get("fresh") else None
        return FromInitialisation(**settings)
    if name == "isotropic":
        return Isotropic(**settings)
    if "variance" not in settings:
        raise RunFileError(
            f"The prior {name!r} has no variance.",
            "A default would be a silent choice of prior.",
            'Write variance = { ".*" = 1.0 }, or "evidence".',
        )
    return PerLayer(**settings) if name == "per_layer" else _per_parameter(**settings)


def _per_parameter(variance: Any, **settings: Any) -> PerParameter:
    if not isinstance(variance, dict):
        raise choice_error("prior.variance", variance, ["a table from parameters to variances"])
    return PerParameter(variance, **settings)


def method_of(settings: dict[str, Any]) -> Sketch | Quadrature:
    """A quadrature if it has a setting of one, else a sketch."""
    quadrature = {field.name for field in fields(Quadrature)}
    if quadrature & set(settings):
        expect(set(settings), quadrature, "method", "setting")
        return Quadrature(**settings)
    expect(set(settings), {"draws", "repetitions", "distribution"}, "method", "setting")
    return Sketch(**settings)
