"""Dual numbers taken apart and put together."""

from __future__ import annotations

import torch.autograd.forward_ad as forward_mode
from torch import Tensor


def apart(dual: Tensor) -> tuple[Tensor, Tensor | None]:
    """A tensor's value and tangent, or None."""
    value, tangent = forward_mode.unpack_dual(dual)  # type: ignore[no-untyped-call]
    return value, tangent


def maybe_apart(dual: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The same where there may be no tensor."""
    return (None, None) if dual is None else apart(dual)


def together(value: Tensor, tangent: Tensor | None) -> Tensor:
    """A value with a tangent, if there is one."""
    if tangent is None:
        return value
    found: Tensor = forward_mode.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return found


def total(terms: list[Tensor]) -> Tensor | None:
    """The sum of some tensors; None if there are none."""
    found = None
    for term in terms:
        found = term if found is None else found + term
    return found
