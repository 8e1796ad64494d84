"""Run files: a measurement of anyone's own model and data, described in TOML.

[model]
factory = "mypackage.models:build"      # called with the arguments below, returns a module;
                                        # or "hf:NAME-OR-PATH", a model of Hugging Face
arguments = { width = 32 }
weights = "weights.safetensors"         # optional, loaded strictly into the module

[data]
factory = "mypackage.data:training_set" # returns anything that `measure` takes as data

[measure]
likelihood = "categorical"              # or { name = "gaussian", variance = 0.1 }, or "evidence"
prior = { variance = "evidence" }       # or { variance = 0.5 }, or one of those below
method = "auto"                         # or another, or one of those below with its options
dtype = "float64"                       # or "float32": faster, for large eigenvalues
preset = "standard"                     # or "quick", or "exact": what is measured beside
out = "result.safetensors"

[track]                                 # for `lightlike track`
weights = "step-*.safetensors"          # or a list of files; each is loaded into the module
out = "history.jsonl"
rotation = 0                            # leading directions to follow

Methods with options, of which any may be left out; without a name they must tell which it is:

{ name = "lanczos", count = 20, tolerance = 1e-7, block = 1, chance = 1e-6, maximum = 3000 }
{ name = "slq", probes = 16, steps = 200, deflate = 10, share = 0.05, block = 8,
  control = "ekfac", distinct = 0, tolerance = 1e-4, maximum = 2000 }
{ name = "columns", share = 0.125, replicates = 8 }
{ name = "kronecker", form = "ekfac", sharing = "expand", small = 1024, largest = 8192,
  check = true }
{ name = "sketch", draws = 8, repetitions = 4, distribution = "normal" }

Priors, each with mean = 0.0, another number, or the path of a safetensors file such as the initial
weights; without a name they are "isotropic":

{ name = "isotropic", variance = 0.5 }                            # or "evidence"
{ name = "per_layer", variance = { "0" = 0.1, ".*" = "evidence" } } # or "evidence" for all
{ name = "per_parameter", variance = { "0.weight" = 0.1, "0.bias" = 0.2 } }
{ name = "from_initialisation", constants = 0.01 }  # fresh = true: measured from the model factory
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lightlike.assess.presets import STANDARD, check_preset
from lightlike.errors import RunFileError
from lightlike.integrations.huggingface import prepare
from lightlike.problem.likelihoods import Likelihood
from lightlike.runfile.factories import call_factory, fresh_model, is_pretrained, load_weights
from lightlike.runfile.settings import (
    check_kind,
    expect,
    likelihood_of,
    method_of,
    prior_of,
    value_of,
)

TABLES = {
    "model": {"factory", "arguments", "weights"},
    "data": {"factory", "arguments"},
    "measure": {"likelihood", "prior", "parameters", "method", "units", "seed", "memory", "out",
                "layers", "dtype", "explain", "saturation", "projections", "preset"},
    "track": {"weights", "out", "rotation"},
}  # fmt: skip

# What entries must be that are not looked at elsewhere.
KINDS: dict[str, tuple[type, str]] = {
    "out": (str, "a path in quotes"),
    "seed": (int, "a whole number"),
    "layers": (bool, "true or false"),
    "explain": (bool, "true or false"),
    "saturation": (bool, "true or false"),
    "projections": (bool, "true or false"),
}


@dataclass(frozen=True)
class Run:
    """What a run file asks for.

    Attributes:
        model: The module, with its weights, in eval mode unless its factory says otherwise.
        data: What the data factory returned.
        likelihood: The output distribution.
        options: Keyword arguments of `measure`.
        fit_noise: Whether the variance of a Gaussian likelihood is to be fitted by the evidence.
        preset: "quick", "standard" or "exact"; see `lightlike.assess.presets`.
        folder: Of the run file: paths in it are relative to it.
        track: Entries of its [track] table, as they are written there.
    """

    model: nn.Module
    data: Any
    likelihood: Likelihood
    options: dict[str, Any]
    fit_noise: bool = False
    preset: str = STANDARD
    folder: Path = Path()
    track: dict[str, Any] = field(default_factory=dict)


def read_run(path: Path, prior: str | None = None) -> Run:
    """Read a run file and call its factories.

    Modules are looked for in the folder of the run file, in the present one, and where Python
    looks anyway. Paths in the file are relative to it.

    Args:
        path: The run file.
        prior: In place of the one in the file, as it would be written there: a number, a word, or a
            table in braces.

    Raises:
        RunFileError: if the file is missing, not TOML, has unknown entries, or a factory fails.
    """
    table = _read(path)
    options = dict(table["measure"])
    for name, (kind, what) in KINDS.items():
        check_kind(name, options.get(name), kind, what)
    check_kind("out", table["track"].get("out"), str, "a path in quotes")
    preset = check_preset(options.pop("preset", STANDARD))
    named = options.pop("likelihood", None)
    fit_noise = named == {"name": "gaussian", "variance": "evidence"}
    likelihood = likelihood_of("gaussian" if fit_noise else named)
    if prior is not None:
        options["prior"] = value_of(prior)
    if "prior" in options:
        fresh = lambda: _fresh(table["model"], path.parent)  # noqa: E731
        options["prior"] = prior_of(options["prior"], path.parent, fresh)
    if isinstance(options.get("method"), dict):
        options["method"] = method_of(options["method"])
    if "out" in options:
        options["out"] = path.parent / options["out"]
    # What factories print goes to stderr: stdout is for the result.
    with _importable(path.parent), redirect_stdout(sys.stderr):
        model = call_factory(table["model"], "model", path.parent)
        if not isinstance(model, nn.Module):
            raise RunFileError(
                f"The model factory returned a {type(model).__name__}.",
                "Only a torch.nn.Module can be measured.",
                "Let it return the module itself.",
            )
        if "weights" in table["model"]:
            load_weights(model, path.parent / table["model"]["weights"])
        data = call_factory(table["data"], "data")
        if is_pretrained(table["model"]["factory"]):
            model, data = prepare(model, data)
    return Run(model, data, likelihood, options, fit_noise, preset, path.parent, table["track"])


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RunFileError(
            f"The run file {str(path)!r} cannot be read ({error}).",
            "It names the model and the data.",
            "Check the path.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise RunFileError(
            f"{str(path)!r} is not valid TOML ({error}).",
            "Half of it could mean something else.",
            "Mend the line that is named.",
        ) from error
    expect(set(table), set(TABLES), str(path), "table")
    for name, known in TABLES.items():
        part = table.setdefault(name, {})
        if not isinstance(part, dict):
            raise RunFileError(
                f"{name!r} in {str(path)!r} is not a table.",
                "Its entries cannot be found.",
                f"Write them under [{name}].",
            )
        expect(set(part), known, f"[{name}]", "entry")
    for name in ("model", "data"):
        if "factory" not in table[name]:
            raise RunFileError(
                f"{str(path)!r} has no [{name}] factory.",
                "There is nothing to measure without it.",
                f'Write [{name}] and below it factory = "package.module:function".',
            )
    return table


def _fresh(part: dict[str, Any], folder: Path) -> nn.Module:
    """The model as its factory makes it, without the weights."""
    with _importable(folder), redirect_stdout(sys.stderr):
        return fresh_model(part, folder)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before
