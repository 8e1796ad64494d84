"""Parameters that are added to or multiplied with an input entry by entry."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.layout import Layout

SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)


class ElementwiseCall(Call):
    """y = x + w, y = x ∘ w or y = w.expand(…): learned positions, gains, biases, class tokens.

    A row on w is the gradient, or its product with x, summed where w is broadcast.
    """

    def __init__(self, x: Tensor, name: str, shape: torch.Size, *, product: bool) -> None:
        self.x, self.weight, self.bias = x, name, None
        self.product, self.width = product, shape.numel()
        self.shape = shape

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if exactly one of the two is a measured parameter."""
        if func is Tensor.expand:
            name = names(args[0])
            if name is None or kwargs:
                return None
            output = args[0].detach().expand(*args[1:])
            return output, cls(output, name, args[0].shape, product=False)
        if kwargs or len(args) != 2 or not all(isinstance(a, Tensor) for a in args):
            return None
        first, second = map(names, args)
        if (first is None) == (second is None):
            return None
        w, x = args if first is not None else args[::-1]
        if w.ndim > x.ndim or not w.is_floating_point():
            return None
        product = func in PRODUCTS
        detached = (w.detach(), x) if first is not None else (x, w.detach())
        plain = operator.mul if product else operator.add
        return plain(*detached), cls(x.detach(), first or second or "", w.shape, product=product)

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        return self.width

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row."""
        return self.width

    def axes(self, shape: torch.Size) -> Sequence[int]:
        """Dimensions along which the parameter is broadcast."""
        return [axis for axis, size in enumerate(self._aligned_shape(shape)) if size == 1]

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """Σ g, or Σ g ∘ x, over all entries that one entry of w meets."""
        rows = g * layout.spread(self.x) if self.product else g
        sizes = self._aligned_shape(self.x.shape)
        if layout.axis is not None:
            del sizes[layout.axis]
        summed = [2, *(dim for dim, size in enumerate(sizes, 3) if size == 1)]
        return Dense(rows.sum(summed).reshape(*rows.shape[:2], self.width))

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """None: there is one parameter."""
        return g.new_zeros(len(g), layout.samples, 0)

    def _aligned_shape(self, shape: Sequence[int]) -> list[int]:
        """The parameter's shape with as many dimensions as the output has."""
        return [1] * (len(shape) - len(self.shape)) + list(self.shape)
