"""Linear layers and matrix products with a parameter, with or without positions.

For y_p = W x_p + b at positions p, a row of A on (W, b) is Σ_p g_p [x_p; 1]ᵀ with g_p the row's
gradient at y_p.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import Factor
from lightlike.metric.contractions.layout import Layout, positions_of
from lightlike.metric.contractions.outer import Outer


class LinearCall(Call):
    """`torch.nn.functional.linear`: y = x Wᵀ + b, positions in any dimensions but the last."""

    transposed = False

    def __init__(self, x: Tensor, weight: str | None, bias: str | None) -> None:
        self.x, self.weight, self.bias = x, weight, bias

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured."""
        x, weight, bias = _linear(*args, **kwargs)
        call = cls(x.detach(), names(weight), _known(bias, weight.shape[:1], names))
        if not call.uses:
            return None
        return func(x, fixed(weight, call.weight), fixed(bias, call.bias)), call

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        return min(self._orders(shape, samples).values())

    def order(self, shape: torch.Size, samples: int) -> str:
        """Through inner products of inputs and of gradients, or through entries."""
        orders = self._orders(shape, samples)
        return min(orders, key=orders.__getitem__)

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row."""
        full = shape.numel() / samples
        return full if self.weight is not None else float(shape[-1])

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """Σ_p g_p x_pᵀ."""
        return self._outer(g, layout, bias=False)

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """Σ_p g_p."""
        return positions_of(g).sum(2)

    def factor(self, unit: tuple[str, ...], g: Tensor, layout: Layout) -> Factor:
        """The factor on a unit; weight and bias together are one outer product."""
        if len(unit) == 2:
            return self._outer(g, layout, bias=True)
        return super().factor(unit, g, layout)

    def _outer(self, g: Tensor, layout: Layout, *, bias: bool) -> Outer:
        x, rows = layout.positions(self.x), positions_of(g)
        x = torch.nn.functional.pad(x, (0, 1), value=1.0) if bias else x
        return Outer(x, rows, bias=bias, transposed=self.transposed)

    def _orders(self, shape: torch.Size, samples: int) -> dict[str, float]:
        positions, outs = shape[:-1].numel() / samples, float(shape[-1])
        if self.weight is None:
            return {"entries": outs}
        if positions <= 1:
            return {"inner products": outs}
        return {
            "entries": self.x.shape[-1] * outs,
            "pairs of positions": positions * outs * (1 + positions / 8),
        }


class ProductCall(LinearCall):
    """`x @ W` for a parameter W (in, out), and `torch.addmm(b, x, W)`."""

    transposed = True
    lane_axis = 1

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if the second factor is a measured matrix, or the vector added is."""
        if func in (torch.addmm, Tensor.addmm):
            return cls._run_addmm(func, names, args, kwargs)
        if kwargs or len(args) != 2:
            return None
        x, weight = args
        name = names(weight)
        if name is None or weight.ndim != 2 or x.ndim < 2 or names(x) is not None:
            return None
        return func(x, weight.detach()), cls(x.detach(), name, None)

    @classmethod
    def _run_addmm(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        if kwargs or len(args) != 3:
            return None
        bias, x, weight = args
        call = cls(x.detach(), names(weight), _known(bias, weight.shape[1:], names))
        if not call.uses or names(x) is not None:
            return None
        return func(fixed(bias, call.bias), x, fixed(weight, call.weight)), call


def _known(bias: Tensor | None, shape: torch.Size, names: Names) -> str | None:
    """The bias's name; a bias of any other shape is broadcast, which these rows do not know."""
    return names(bias) if bias is not None and bias.shape == shape else None


def _linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias
