"""A call of a PyTorch function with measured parameters, and how its rows are factored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.factor import Dense, Factor

Names = Callable[[Tensor | None], str | None]


class Call(ABC):
    """One captured call y = f(x; weight, bias).

    Its output was computed with the measured parameters detached, so that this record holds all
    that the call contributes to their Jacobian, and the autograd graph all that other uses do.

    Attributes:
        x: The detached input.
        weight: Name of the weight, or None if it is not measured.
        bias: Name of the bias, or None if it is not measured.
    """

    x: Tensor
    weight: str | None
    bias: str | None

    @classmethod
    @abstractmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured; `names` finds a tensor's name."""

    @abstractmethod
    def weight_factor(self, g: Tensor, samples: int) -> Factor:
        """The rows on the weight from gradients g at the output, (k, *shape of y)."""

    @abstractmethod
    def bias_rows(self, g: Tensor, samples: int) -> Tensor:
        """The rows on the bias, (k, samples, width)."""

    @abstractmethod
    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows, from the output's shape."""

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row, from the output's shape."""
        return shape.numel() / samples

    @property
    def uses(self) -> tuple[str, ...]:
        """Measured parameters of the call, the weight first."""
        return tuple(name for name in (self.weight, self.bias) if name is not None)

    def aligned(self, shape: torch.Size, samples: int) -> bool:
        """Whether the output's first dimension can be the samples of the batch."""
        return len(shape) >= 2 and shape[0] == samples

    def factor(self, unit: tuple[str, ...], g: Tensor, samples: int) -> Factor:
        """The factor on a unit (weight,), (bias,) or (weight, bias)."""
        if unit == (self.weight,):
            return self.weight_factor(g, samples)
        if unit == (self.bias,):
            return Dense(self.bias_rows(g, samples))
        rows = self.weight_factor(g, samples).dense(), self.bias_rows(g, samples)
        return Dense(torch.cat(rows, -1))


def fixed(tensor: Any, name: str | None) -> Any:
    """A measured parameter detached; anything else as it is."""
    return tensor if name is None else tensor.detach()


def channels_last(t: Tensor, leading: int) -> Tensor:
    """Move the channels, which come after `leading` dimensions, to the end."""
    return t.movedim(leading, -1)
