"""Which parameters are measured, each counted once, in which slice of the flat vector θ ∈ R^D."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightlike.errors import ParameterError
from lightlike.vectors import Vector, check_finite, is_vector, read_real

# What tells a point of parameter space: a flat vector (D,), a state dict or a module.
Point = Vector | Mapping[str, Tensor] | nn.Module


@dataclass(frozen=True)
class Entry:
    """One selected parameter: its canonical name, other names it is tied to, shape and place."""

    name: str
    aliases: tuple[str, ...]
    shape: torch.Size
    start: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape.numel()

    @property
    def stop(self) -> int:
        """End of its slice of θ."""
        return self.start + self.size

    @property
    def layer(self) -> str:
        """Name of the module that owns it; empty for a raw parameter of the model itself."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Selection:
    """The selected parameters in the model's own order, and those left out."""

    entries: tuple[Entry, ...]
    excluded: tuple[str, ...]
    excluded_size: int

    @property
    def size(self) -> int:
        """D, the number of selected parameters."""
        return self.entries[-1].stop

    def layers(self) -> dict[str, list[Entry]]:
        """Entries by the module that owns them, in order."""
        grouped: dict[str, list[Entry]] = {}
        for entry in self.entries:
            grouped.setdefault(entry.layer, []).append(entry)
        return grouped

    def flatten(self, values: dict[str, Tensor]) -> Tensor:
        """The flat vector (D,) of named tensors."""
        return torch.cat([values[e.name].reshape(-1) for e in self.entries])

    def digest(self) -> str:
        """SHA-256 of the parameters' names and shapes."""
        named = ";".join(f"{entry.name}{tuple(entry.shape)}" for entry in self.entries)
        return hashlib.sha256(named.encode()).hexdigest()

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Named views of a flat vector (D,)."""
        return {e.name: vector[e.start : e.stop].view(e.shape) for e in self.entries}


def select(model: nn.Module, parameters: str | Sequence[str] | None = None) -> Selection:
    """Choose parameters: all that require grad, those a regular expression finds, or a list.

    Tied parameters (one tensor under several names) are one entry under their first name. Frozen
    parameters are never selected: they are listed in `excluded`, with trainable ones not chosen.

    Raises:
        ParameterError: if nothing is left, a name is unknown or frozen, the expression is invalid,
            or two parameters share memory without being one tensor.
    """
    names: dict[int, list[str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        tensors[id(parameter)] = parameter
    _check(names, tensors)
    chosen = _chosen(names, tensors, parameters)
    entries, excluded, excluded_size, start = [], [], 0, 0
    for key, aliases in names.items():
        if key not in chosen:
            excluded.append(aliases[0])
            excluded_size += tensors[key].numel()
        elif tensors[key].numel():
            entry = Entry(aliases[0], tuple(aliases[1:]), tensors[key].shape, start)
            entries.append(entry)
            start = entry.stop
    if not entries:
        raise ParameterError(
            f"No trainable parameter is selected out of {len(names)} in the model.",
            "With D = 0 there is no parameter space to measure.",
            "Set requires_grad on some parameters, or widen the selection.",
        )
    return Selection(tuple(entries), tuple(excluded), excluded_size)


def point(
    theta: Point,
    selection: Selection,
    present: Mapping[str, Tensor],
    slots: Mapping[str, str],
) -> dict[str, Tensor]:
    """Another point's tensors by canonical name, from a flat vector (D,), a module or a state dict.

    Args:
        theta: The vector, the module or its state dict; it may name a tied parameter by any of its
            names.
        selection: The selected parameters, all of which a state dict must give.
        present: The tensors of the present point, by canonical name.
        slots: The canonical name of each name.

    Raises:
        ParameterError: if something is missing, unknown or of another shape, or a selected
            parameter is not finite.
    """
    if is_vector(theta):
        vector = read_real(theta, "The point", ParameterError)
        if vector.shape != (selection.size,):
            raise ParameterError(
                f"The point has shape {tuple(vector.shape)}, not ({selection.size},).",
                "It needs one number for every selected parameter.",
                "Give them in the order of the model's parameters, or give a state dict.",
            )
        check_finite(vector, "The point", ParameterError)
        return dict(selection.split(vector))
    if isinstance(theta, nn.Module):
        theta = theta.state_dict()
    if not isinstance(theta, Mapping):
        raise ParameterError(
            f"The point is a {type(theta).__name__}.",
            "It needs one number for every selected parameter.",
            "Give a flat vector (D,), a state dict, or a module of the same architecture.",
        )
    found = {}
    for given, value in theta.items():
        name = slots.get(given)
        if name is None:
            raise ParameterError(
                f"The state dict has an entry {given!r} that the model does not have.",
                "It belongs to another model.",
                "Give a state dict of a model of the same architecture.",
            )
        found[name] = _entry(given, value, present[name])
    missing = [entry.name for entry in selection.entries if entry.name not in found]
    if missing:
        raise ParameterError(
            f"The state dict has no entry for {_listing(missing)}.",
            "A point of parameter space has a value for every selected parameter.",
            "Give a full state dict, or a flat vector.",
        )
    for entry in selection.entries:
        check_finite(found[entry.name], f"The point's {entry.name!r}", ParameterError)
    return found


def _entry(given: str, value: Any, present: Tensor) -> Tensor:
    """A tensor of a state dict, of the present one's shape."""
    # A buffer may hold anything; numbers are read as such.
    same = isinstance(value, Tensor) and value.dtype == present.dtype and not value.is_meta
    tensor = value if same else read_real(value, f"The state dict's {given!r}", ParameterError)
    if tensor.shape != present.shape:
        raise ParameterError(
            f"The state dict's {given!r} has shape {tuple(tensor.shape)}, the model's "
            f"{tuple(present.shape)}.",
            "They must correspond entry by entry.",
            "Give a state dict of a model of the same architecture.",
        )
    return tensor


def _chosen(
    names: dict[int, list[str]],
    tensors: dict[int, nn.Parameter],
    parameters: str | Sequence[str] | None,
) -> set[int]:
    trainable = {key for key in names if tensors[key].requires_grad}
    if parameters is None:
        return trainable
    if isinstance(parameters, str):
        try:
            pattern = re.compile(parameters)
        except re.error as error:
            raise ParameterError(
                f"parameters={parameters!r} is not a valid regular expression ({error}).",
                "No parameter can be matched against it.",
                "Escape special characters, or pass a list of names.",
            ) from error
        found = {key for key, aliases in names.items() if any(map(pattern.search, aliases))}
        if not found:
            raise ParameterError(
                f"No parameter name matches {parameters!r}.",
                "Measuring nothing is not what was meant.",
                f"The names are: {_listing([a[0] for a in names.values()])}.",
            )
        return found & trainable
    if not isinstance(parameters, Iterable):
        raise ParameterError(
            f"parameters={parameters!r} is neither a pattern nor a list of names.",
            "The parameters to measure are not known.",
            "Pass None for all, a regular expression, or a list of names.",
        )
    by_name = {alias: key for key, aliases in names.items() for alias in aliases}
    wanted = list(parameters)
    for name in wanted:
        if name not in by_name:
            close = difflib.get_close_matches(str(name), by_name, n=3) or list(by_name)
            raise ParameterError(
                f"The model has no parameter called {name!r}.",
                "Leaving it out silently would measure another model.",
                f"Did you mean one of: {_listing(close)}?",
            )
        if by_name[name] not in trainable:
            raise ParameterError(
                f"Parameter {name!r} is frozen (requires_grad is False).",
                "Frozen parameters are constants of the model, not coordinates.",
                "Call requires_grad_(True) on it first, or drop it from the list.",
            )
    return {by_name[name] for name in wanted}


def _check(names: dict[int, list[str]], tensors: dict[int, nn.Parameter]) -> None:
    places: dict[torch.device, list[tuple[int, int, str]]] = {}
    for key, parameter in tensors.items():
        name = names[key][0]
        if isinstance(parameter, UninitializedParameter):
            raise ParameterError(
                f"Parameter {name!r} has no shape yet (lazy module).",
                "D is not known before the first forward pass.",
                "Run the model once on a batch before measuring it.",
            )
        if not parameter.requires_grad or not parameter.numel():
            continue
        if parameter.is_complex():
            raise ParameterError(
                f"Parameter {name!r} is complex.",
                "The metric is defined on real coordinates.",
                "Keep real and imaginary parts as two real parameters, or freeze it.",
            )
        if parameter.is_meta:
            raise ParameterError(
                f"Parameter {name!r} is on the meta device and has no values.",
                "The metric is taken at the parameters' values.",
                "Materialise the model and load its weights first.",
            )
        start = parameter.data_ptr()
        stop = start + parameter.nbytes
        places.setdefault(parameter.device, []).append((start, stop, name))
    for spans in places.values():
        spans.sort()
        for (_, stop, first), (start, _, second) in pairwise(spans):
            if start < stop:
                raise ParameterError(
                    f"Parameters {first!r} and {second!r} share memory but are two tensors.",
                    "They would be counted as two sets of coordinates although a change of one "
                    "changes the other.",
                    "Tie them by assigning the same nn.Parameter to both names, or clone one.",
                )


def _listing(items: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(repr(i) for i in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
