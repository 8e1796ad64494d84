"""Models of Hugging Face by name or folder, in the class that their configuration names."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from lightlike.errors import DependencyError, ModelError


def load_pretrained(name: str, **arguments: Any) -> nn.Module:
    """A model with its trained weights, in eval mode.

    Args:
        name: On the hub, or a folder that `save_pretrained` wrote.
        arguments: Of `from_pretrained`, such as `revision`.

    Raises:
        DependencyError: if transformers is not installed.
        ModelError: if there is no such model, or transformers has no class for it.
    """
    kind, _ = _kind(name, arguments)
    try:
        model: nn.Module = kind.from_pretrained(name, **arguments)
    except Exception as error:
        raise _unloaded(name, error) from error
    return model.eval()


def new_pretrained(name: str, **arguments: Any) -> nn.Module:
    """The same model with new initial weights, drawn from the global random state.

    Raises:
        DependencyError, ModelError: as `load_pretrained`.
    """
    kind, config = _kind(name, arguments)
    model: nn.Module = kind(config)
    return model.eval()


def _kind(name: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The class of a model, and its configuration."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise DependencyError(
            f"The model {name!r} of Hugging Face needs transformers, which is not installed.",
            "It is not among what lightlike itself requires.",
            "Run: pip install 'lightlike[hf]'.",
        ) from error
    try:
        config = transformers.AutoConfig.from_pretrained(name, **arguments)
    except Exception as error:
        raise _unloaded(name, error) from error
    named = list(getattr(config, "architectures", None) or [])
    kind = getattr(transformers, named[0], None) if len(named) == 1 else None
    if kind is None:
        raise ModelError(
            f"The configuration of {name!r} names the architectures {named}, of which transformers "
            "has no single class.",
            "It is not clear which head the model has.",
            "Write a factory of your own that loads it with the class that you mean, such as "
            "AutoModelForSequenceClassification.",
        )
    return kind, config


def _unloaded(name: str, error: Exception) -> ModelError:
    said = " ".join(str(error).split())
    return ModelError(
        f"The model {name!r} cannot be loaded ({type(error).__name__}: {said[:300]}).",
        "Without it there is nothing to measure.",
        "Name a folder that save_pretrained wrote, relative to the run file, or a model on the "
        "hub that can be reached.",
    )
