"""What a run file names outside itself: factories, and files of tensors."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightlike.errors import RunFileError
from lightlike.integrations.pretrained import load_pretrained, new_pretrained

# What a model factory starts with that names a model of Hugging Face.
PRETRAINED = "hf:"


def is_pretrained(name: Any) -> bool:
    """Whether a factory names a model of Hugging Face."""
    return isinstance(name, str) and name.startswith(PRETRAINED)


def call_factory(part: dict[str, Any], what: str, folder: Path | None = None) -> Any:
    """What the factory of a table returns.

    Args:
        part: The table, with "factory" and "arguments".
        what: "model" or "data", for errors.
        folder: Where a model of Hugging Face may be.

    Raises:
        RunFileError: if the factory cannot be found, or fails.
        DependencyError, ModelError: if a model of Hugging Face cannot be had.
    """
    name, arguments = part["factory"], part.get("arguments", {})
    if what == "model" and is_pretrained(name):
        return load_pretrained(_place(name, folder), **arguments)
    factory = _find(name, what)
    try:
        return factory(**arguments)
    except Exception as error:
        raise RunFileError(
            f"The {what} factory {name!r} failed: {type(error).__name__}: {error}.",
            f"Without it there is no {what}.",
            "Call it in Python with the same arguments to see where.",
        ) from error


def fresh_model(part: dict[str, Any], folder: Path) -> nn.Module:
    """A model with initial weights."""
    if is_pretrained(part["factory"]):
        return new_pretrained(_place(part["factory"], folder), **part.get("arguments", {}))
    return call_factory(part, "model")  # type: ignore[no-any-return]


def _place(name: str, folder: Path | None) -> str:
    """A folder beside the run file if there is one of that name, else a name on the hub."""
    given = name.removeprefix(PRETRAINED)
    beside = (folder or Path()) / given
    return str(beside) if given and beside.is_dir() else given


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


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly into a module.

    Raises:
        RunFileError: if it cannot be read, or its names or shapes are not the module's.
    """
    tensors = load_tensors(path, "weights")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise _unloaded(path, "weights", error) from error


def load_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RunFileError: if it cannot be read.
    """
    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise _unloaded(path, what, error) from error


def _unloaded(path: Path, what: str, error: Exception) -> RunFileError:
    reason = "it is a folder" if path.is_dir() else error
    return RunFileError(
        f"The {what} {str(path)!r} cannot be loaded: {reason}.",
        "A network with other weights has other numbers.",
        "Save them with safetensors.torch.save_file(model.state_dict(), path).",
    )
