"""The type that a model is evaluated and differentiated in."""

from __future__ import annotations

import torch

from lightlike.errors import choice_error

DTYPES = {"float64": torch.float64, "float32": torch.float32}


def resolve_dtype(value: str | torch.dtype) -> torch.dtype:
    """The dtype that is meant by its name or by itself.

    Raises:
        ChoiceError: for any other than float64 and float32.
    """
    found = DTYPES.get(value) if isinstance(value, str) else value
    if found is None or found not in DTYPES.values():
        raise choice_error("dtype", value, [*map(repr, DTYPES)])
    return found


def name_of(dtype: torch.dtype) -> str:
    """Its name without "torch."."""
    return str(dtype).removeprefix("torch.")


def working(kind: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """What tensors of some kind are converted to: floating-point ones to dtype, others not."""
    if kind.is_complex:
        return dtype.to_complex()
    return dtype if kind.is_floating_point else kind


def rounding_unit(dtype: torch.dtype) -> float:
    """Distance of 1 from the next number: 2.2e-16 in float64, 1.2e-7 in float32."""
    return float(torch.finfo(dtype).eps)
