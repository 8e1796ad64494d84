"""Vectors as callers give them: tensors, NumPy arrays or lists of finite real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import DataError, LightlikeError, ParameterError

Vector = Tensor | np.ndarray | list[float] | tuple[float, ...]


def is_vector(given: object) -> bool:
    """Whether something is meant as a vector, well or badly formed."""
    return isinstance(given, Tensor | np.ndarray | list | tuple)


def read_real(given: Any, name: str, kind: type[LightlikeError]) -> Tensor:
    """A tensor of real numbers from a tensor, an array or nested lists.

    Args:
        given: What the caller gave.
        name: What it is called, as in "The vector".
        kind: Of the error.

    Raises:
        LightlikeError: of that kind, for anything else: None, text, complex numbers, truth values,
            ragged lists, sparse tensors, and tensors without values.
    """
    if isinstance(given, np.ndarray) and min(given.strides, default=0) < 0:
        given = given.copy()  # PyTorch reads no array backwards
    try:
        found = torch.as_tensor(given) if is_vector(given) else None
        if isinstance(given, list | tuple) and found is not None and found.is_floating_point():
            # Python's numbers are float64, PyTorch's default seldom is.
            found = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None:
        raise kind(
            f"{name} is {_described(given)}, not an array of numbers.",
            "Nothing can be computed with it.",
            "Give a tensor, a NumPy array or a list of numbers.",
        )
    wrong = "complex numbers" if found.is_complex() else None
    wrong = "truth values" if found.dtype == torch.bool else wrong
    wrong = "a sparse tensor" if found.layout != torch.strided else wrong
    wrong = "a tensor without values, on the meta device" if found.is_meta else wrong
    if wrong is not None:
        raise kind(
            f"{name} holds {wrong}." if wrong.endswith("s") else f"{name} is {wrong}.",
            "It takes real numbers, all of them.",
            "Convert it to real, dense numbers, such as torch.float64.",
        )
    return found.detach()


def read_vectors(given: Any, size: int, device: torch.device) -> Tensor:
    """A tangent vector (D,) or a block of them (D, c), as float64 on a device.

    Raises:
        ParameterError: if it is no such thing, has another shape, or an entry is not finite.
    """
    return _fitting(
        given, size, device, ParameterError,
        "A tangent vector has one number for every selected parameter.",
        "Flatten parameters in the model's order, as `F.problem.selection.flatten` does.",
    )  # fmt: skip


def read_rows(given: Any, size: int, device: torch.device) -> Tensor:
    """A vector (K,) with a number for each row of A, or a block (K, c), as float64 on a device.

    Raises:
        DataError: if it is no such thing, has another shape, or an entry is not finite.
    """
    return _fitting(
        given, size, device, DataError,
        "A has rank Λ rows for each observation, and Aᵀ weights each of them.",
        "Give numbers in the order of the observations.",
    )  # fmt: skip


def _fitting(
    given: Any, size: int, device: torch.device, kind: type[LightlikeError], why: str, remedy: str
) -> Tensor:
    found = read_real(given, "The vector", kind)
    if found.ndim not in (1, 2) or found.shape[0] != size:
        raise kind(
            f"The vector has shape {tuple(found.shape)}, not ({size},) or ({size}, c).", why, remedy
        )
    found = found.to(device, torch.float64)
    check_finite(found, "The vector", kind)
    return found


def check_finite(found: Tensor, name: str, kind: type[LightlikeError]) -> None:
    """Raise an error of some kind unless all entries are finite."""
    # A sum is quick, and finite only if all of its terms are; large ones may overflow it.
    if not bool(torch.isfinite(found.sum())) and not bool(torch.isfinite(found).all()):
        wrong = int((~torch.isfinite(found)).sum())
        raise kind(
            f"{name} has {wrong:,} entries that are not finite.",
            "Whatever is computed from it would be NaN or infinite.",
            "Give finite numbers.",
        )


def _described(given: object) -> str:
    if given is None or isinstance(given, str):
        return repr(given)
    if is_vector(given):
        return f"a {type(given).__name__} of other things, or of rows of different lengths"
    return f"a {type(given).__name__}"
