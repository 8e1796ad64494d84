"""What can be seen of a function without running it: its code, and the plain values it holds."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


def digest_of_function(function: Any) -> str:
    """SHA-256 of a callable's code and of the plain values in reach of it.

    Values are numbers, texts, tensors and arrays, and tuples, lists, sets and mappings of such, in
    closure cells, defaults, arguments of `functools.partial`, and attributes of the object whose
    method or `__call__` it is. Functions among them are followed; of anything else only the class
    counts. Lists and sets in cells and attributes do not, as a function may write there what it
    did; nor do file names and line numbers.
    """
    digest = hashlib.sha256()
    for part in _parts(function, set()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    yield kind.encode()
    if isinstance(value, PLAIN):
        yield repr(value).encode()
        return
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        yield f"{plain.dtype} {tuple(plain.shape)}".encode()
        yield plain.resolve_conj().resolve_neg().reshape(-1).view(torch.uint8).numpy().tobytes()
        return
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode() + value.tobytes()
        return
    # A function may hold itself.
    if id(value) in seen:
        return
    seen.add(id(value))
    for inner in _inside(value):
        yield from _parts(inner, seen)


def _inside(value: Any) -> list[Any]:
    """What a value is made of, as far as it can be seen."""
    if isinstance(value, types.CodeType):
        names = value.co_names, value.co_varnames, value.co_freevars
        return [value.co_code, *value.co_consts, *names]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__, _attributes(value.__self__)]
    if isinstance(value, types.FunctionType):
        cells = [_held(cell) for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, *cells]
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, type):
        return [value.__qualname__]
    calls = [vars(k)["__call__"] for k in type(value).__mro__ if "__call__" in vars(k)][:1]
    if calls and isinstance(calls[0], types.FunctionType):
        return [calls[0], _attributes(value)]
    return []


def _attributes(value: Any) -> dict[str, Any]:
    """An object's own; of a class none, as the class itself counts."""
    held = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    return {name: _unless_a_log(v) for name, v in held.items()}


def _unless_a_log(value: Any) -> Any:
    """A value, or None for a list or set: calls often keep a record of themselves in one."""
    return None if isinstance(value, list | set) else value


def _held(cell: types.CellType) -> Any:
    try:
        return _unless_a_log(cell.cell_contents)
    except ValueError:  # not filled yet
        return None
