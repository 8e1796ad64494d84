"""How much memory there is, and how to say it."""

from __future__ import annotations

import math
import re

import psutil

from lightlike.errors import ChoiceError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def available_memory() -> int:
    """Bytes that can be had now without swapping."""
    return int(psutil.virtual_memory().available)


def resolve_memory(memory: int | float | str | None) -> int:
    """A budget in bytes from None (nine tenths of what is available), bytes, or "8 GB".

    Raises:
        ChoiceError: if it is not understood.
    """
    if memory is None:
        return int(0.9 * available_memory())
    whole = isinstance(memory, float) and math.isfinite(memory)
    text = str(int(memory)) if whole else str(memory)
    found = re.fullmatch(r"\s*(\d+\.?\d*)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ChoiceError(
            f"memory={memory!r} is not an amount of memory.",
            "It bounds what a computation may use.",
            "Give bytes, or a text such as '8 GB'.",
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def format_bytes(size: float) -> str:
    """A size to read: 1.6 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
