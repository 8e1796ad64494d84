"""Whether an option is a number of the kind that is asked for; True and False are none."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard

from lightlike.errors import choice_error


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an integer."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a finite real number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_whole(option: str, value: object, least: int) -> None:
    """Raise a ChoiceError unless a value is a whole number from `least` up."""
    if not is_whole(value) or value < least:
        raise choice_error(option, value, [f"a whole number, {least} or more"])


def check_positive(option: str, value: object) -> None:
    """Raise a ChoiceError unless a value is a finite number above 0."""
    if not is_finite(value) or not value > 0:
        raise choice_error(option, value, ["a finite number above 0"])


def check_not_negative(option: str, value: object) -> None:
    """Raise a ChoiceError unless a value is a finite number, 0 or more."""
    if not is_finite(value) or not value >= 0:
        raise choice_error(option, value, ["a finite number, 0 or more"])


def check_truth(option: str, value: object) -> None:
    """Raise a ChoiceError unless a value is True or False."""
    if not isinstance(value, bool):
        raise choice_error(option, value, ["True", "False"])


def check_index(option: str, value: object, size: int) -> None:
    """Raise a ChoiceError unless a value is the place of one of `size` items, from either end."""
    if not is_whole(value) or not -size <= value < size:
        raise choice_error(option, value, [f"a whole number from 0 to {size - 1}"])


def check_callable(option: str, value: object) -> None:
    """Raise a ChoiceError unless a value is None or can be called."""
    if value is not None and not callable(value):
        raise choice_error(option, value, ["None", "a function"])


def check_seed(seed: object) -> None:
    """Raise a ChoiceError unless a value can seed a generator."""
    if not is_whole(seed) or not -(2**63) <= seed < 2**63:
        raise choice_error("seed", seed, ["a whole number"])


def check_share(option: str, value: object) -> None:
    """Raise a ChoiceError unless a value is a number between 0 and 1, both excluded."""
    if not is_finite(value) or not 0.0 < value < 1.0:
        raise choice_error(option, value, ["a number between 0 and 1"])
