"""A call of a PyTorch function with measured parameters, and how its rows are factored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.layout import Layout

Names = Callable[[Any], str | None]


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
    # Dimension of the weight whose slices keep the structure of the factor.
    lane_axis = 0

    @classmethod
    @abstractmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured; `names` finds a tensor's name."""

    @abstractmethod
    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """The rows on the weight from gradients g at the output, (k, *layout.spread(y))."""

    @abstractmethod
    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """The rows on the bias, (k, samples, width)."""

    @abstractmethod
    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows, from the output's shape."""

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row, from the output's shape."""
        return shape.numel() / samples

    def order(self, shape: torch.Size, samples: int) -> str:
        """How inner products are made, for the plan to say."""
        return "entries"

    def axes(self, shape: torch.Size) -> Sequence[int]:
        """Dimensions of the output that can be those of the samples."""
        return range(len(shape) - 1)

    @property
    def uses(self) -> tuple[str, ...]:
        """Measured parameters of the call, the weight first."""
        return tuple(name for name in (self.weight, self.bias) if name is not None)

    def factor(self, unit: tuple[str, ...], g: Tensor, layout: Layout) -> Factor:
        """The factor on a unit (weight,), (bias,) or (weight, bias)."""
        if unit == (self.weight,):
            return self.weight_factor(g, layout)
        if unit == (self.bias,):
            return Dense(self.bias_rows(g, layout))
        rows = self.weight_factor(g, layout).dense(), self.bias_rows(g, layout)
        return Dense(torch.cat(rows, -1))


def fixed(tensor: Any, name: str | None) -> Any:
    """A measured parameter detached; anything else as it is."""
    return tensor if name is None else tensor.detach()
