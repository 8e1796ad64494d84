"""Run files: a measurement of anyone's own model and data, described in TOML.

[model]
factory = "mypackage.models:build"      # called with the arguments below, returns a module
arguments = { width = 32 }
weights = "weights.safetensors"         # optional, loaded strictly into the module

[data]
factory = "mypackage.data:training_set" # returns anything that `measure` takes as data

[measure]
likelihood = "categorical"              # or { name = "gaussian", variance = 0.1 }, or "evidence"
prior = { variance = "evidence" }       # or { variance = 0.5 }, or one of those below
method = "auto"                         # or { draws = 8 }, a sketch, or { probes = 16 }
dtype = "float64"                       # or "float32": faster, for large eigenvalues
out = "result.safetensors"

Priors, each with mean = 0.0, another number, or the path of a safetensors file such as the initial
weights; without a name they are "isotropic":

{ name = "isotropic", variance = 0.5 }                            # or "evidence"
{ name = "per_layer", variance = { "0" = 0.1, ".*" = "evidence" } } # or "evidence" for all
{ name = "per_parameter", variance = { "0.weight" = 0.1, "0.bias" = 0.2 } }
{ name = "from_initialisation", constants = 0.01 }  # fresh = true: measured from the model factory
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightlike.errors import RunFileError, choice_error
from lightlike.length.priors import FromInitialisation, Isotropic, PerLayer, PerParameter, Prior
from lightlike.problem.likelihoods import NAMED, Likelihood, resolve_likelihood
from lightlike.spectrum.quadrature import Quadrature
from lightlike.spectrum.sketch import Sketch

TABLES = {
    "model": {"factory", "arguments", "weights"},
    "data": {"factory", "arguments"},
    "measure": {"likelihood", "prior", "parameters", "method", "units", "seed", "memory", "out",
                "layers", "dtype", "explain", "saturation"},
}  # fmt: skip

# Settings of each prior.
PRIORS = {
    "isotropic": {"variance", "mean"},
    "per_layer": {"variance", "mean"},
    "per_parameter": {"variance", "mean"},
    "from_initialisation": {"constants", "fresh", "mean", "seed"},
}

# What entries must be that are not looked at elsewhere.
KINDS: dict[str, tuple[type, str]] = {
    "out": (str, "a path in quotes"),
    "seed": (int, "a whole number"),
    "layers": (bool, "true or false"),
    "explain": (bool, "true or false"),
    "saturation": (bool, "true or false"),
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
    """

    model: nn.Module
    data: Any
    likelihood: Likelihood
    options: dict[str, Any]
    fit_noise: bool = False


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
        _check_kind(name, options.get(name), kind, what)
    named = options.pop("likelihood", None)
    fit_noise = named == {"name": "gaussian", "variance": "evidence"}
    likelihood = _likelihood("gaussian" if fit_noise else named)
    if prior is not None:
        options["prior"] = _written(prior)
    if "prior" in options:
        fresh = lambda: _fresh(table["model"], path.parent)  # noqa: E731
        options["prior"] = _prior(options["prior"], path.parent, fresh)
    if isinstance(options.get("method"), dict):
        options["method"] = _method(options["method"])
    if "out" in options:
        options["out"] = path.parent / options["out"]
    # What factories print goes to stderr: stdout is for the result.
    with _importable(path.parent), redirect_stdout(sys.stderr):
        model = _call(table["model"], "model")
        if not isinstance(model, nn.Module):
            raise RunFileError(
                f"The model factory returned a {type(model).__name__}.",
                "Only a torch.nn.Module can be measured.",
                "Let it return the module itself.",
            )
        if "weights" in table["model"]:
            _load_weights(model, path.parent / table["model"]["weights"])
        data = _call(table["data"], "data")
    return Run(model, data, likelihood, options, fit_noise)


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
    _expect(set(table), set(TABLES), str(path), "table")
    for name, known in TABLES.items():
        part = table.setdefault(name, {})
        if not isinstance(part, dict):
            raise RunFileError(
                f"{name!r} in {str(path)!r} is not a table.",
                "Its entries cannot be found.",
                f"Write them under [{name}].",
            )
        _expect(set(part), known, f"[{name}]", "entry")
    for name in ("model", "data"):
        if "factory" not in table[name]:
            raise RunFileError(
                f"{str(path)!r} has no [{name}] factory.",
                "There is nothing to measure without it.",
                f'Write [{name}] and below it factory = "package.module:function".',
            )
    return table


def _check_kind(name: str, value: Any, kind: type, what: str) -> None:
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return
    raise RunFileError(
        f"{name} = {value!r} in the run file's [measure] table is not {what}.",
        "It could not be used as it was meant.",
        f"Write {what}.",
    )


def _expect(found: set[str], known: set[str], where: str, what: str) -> None:
    if unknown := sorted(found - known):
        raise RunFileError(
            f"{where} has an unknown {what} {unknown[0]!r}.",
            "A misspelt setting would be ignored silently.",
            f"Use: {', '.join(sorted(known))}.",
        )


def _call(part: dict[str, Any], what: str) -> Any:
    name = part["factory"]
    factory = _find(name, what)
    try:
        return factory(**part.get("arguments", {}))
    except Exception as error:
        raise RunFileError(
            f"The {what} factory {name!r} failed: {type(error).__name__}: {error}.",
            f"Without it there is no {what}.",
            "Call it in Python with the same arguments to see where.",
        ) from error


def _find(name: Any, what: str) -> Callable[..., Any]:
    module_name, _, attribute = str(name).partition(":")
    if not module_name or not attribute:
        raise RunFileError(
            f"The {what} factory {name!r} is not of the form package.module:function.",
            "Nothing can be imported by it.",
            "Name a module, a colon, and a function in it.",
        )
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise RunFileError(
            f"The {what} factory {name!r} cannot be imported: {type(error).__name__}: {error}.",
            f"Without it there is no {what}.",
            "Put the module beside the run file, in the present folder, or install it.",
        ) from error
    if not callable(found):
        raise RunFileError(
            f"The {what} factory {name!r} is a {type(found).__name__}, not a function.",
            "It is called to make a fresh object.",
            "Name a function or a class.",
        )
    return found  # type: ignore[no-any-return]


def _load_weights(model: nn.Module, path: Path) -> None:
    tensors = _tensors(path, "weights")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise _unloaded(path, "weights", error) from error


def _tensors(path: Path, what: str) -> dict[str, Tensor]:
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise _unloaded(path, what, error) from error


def _unloaded(path: Path, what: str, error: Exception) -> RunFileError:
    return RunFileError(
        f"The {what} {str(path)!r} cannot be loaded: {error}.",
        "A network with other weights has other numbers.",
        "Save them with safetensors.torch.save_file(model.state_dict(), path).",
    )


def _likelihood(value: Any) -> Likelihood:
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


def _written(text: str) -> Any:
    """What a prior on the command line would be in a run file."""
    try:
        return tomllib.loads(f"prior = {text}")["prior"]
    except tomllib.TOMLDecodeError:
        return text


def _prior(value: Any, folder: Path, fresh: Callable[[], nn.Module]) -> Prior:
    if not isinstance(value, dict):
        return Isotropic(value)
    settings = dict(value)
    name = settings.pop("name", "isotropic")
    if name not in PRIORS:
        raise choice_error("prior.name", name, [*map(repr, PRIORS)])
    _expect(set(settings), PRIORS[name], f"prior {name!r}", "setting")
    if isinstance(settings.get("mean"), str):
        settings["mean"] = _tensors(folder / settings["mean"], "prior mean")
    if name == "from_initialisation":
        _check_kind("prior.fresh", settings.get("fresh"), bool, "true or false")
        _check_kind("prior.seed", settings.get("seed"), int, "a whole number")
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


def _fresh(part: dict[str, Any], folder: Path) -> nn.Module:
    """The model as its factory makes it, without the weights."""
    with _importable(folder), redirect_stdout(sys.stderr):
        return _call(part, "model")  # type: ignore[no-any-return]


def _method(settings: dict[str, Any]) -> Sketch | Quadrature:
    """A quadrature if it has a setting of one, else a sketch."""
    quadrature = {"probes", "steps", "deflate", "share", "block"}
    if quadrature & set(settings):
        _expect(set(settings), quadrature, "method", "setting")
        return Quadrature(**settings)
    _expect(set(settings), {"draws", "repetitions", "distribution"}, "method", "setting")
    return Sketch(**settings)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before
