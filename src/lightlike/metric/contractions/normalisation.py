"""Gains and biases of normalisation layers: y = u ∘ weight + bias, u the normalised input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.layout import Layout

functional = torch.nn.functional

# Functions whose gain has the shape of the last dimensions; the others' is one a channel.
LAST = (functional.layer_norm, functional.rms_norm)


class NormalisationCall(Call):
    """Layer, RMS, group or (in eval mode) batch normalisation.

    Few parameters, so that the rows Σ_p g_p ∘ u_p and Σ_p g_p are written out.
    """

    def __init__(self, func: Callable[..., Any], bound: dict[str, Any], names: Names) -> None:
        self.func, self.x = func, bound["input"].detach()
        self.weight, self.bias = names(bound["weight"]), names(bound.get("bias"))
        self.bound = {k: v for k, v in bound.items() if k not in ("input", "weight", "bias")}
        gain = bound["weight"] if self.weight is not None else bound.get("bias")
        self.shape = () if gain is None else tuple(gain.shape)
        self.width = 0 if gain is None else gain.numel()

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured and each item is on its own."""
        bound = signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        call = cls(func, bound.arguments, names)
        if not call.uses or bound.arguments.get("training"):
            return None
        arguments = dict(bound.arguments)
        for kind, name in (("weight", call.weight), ("bias", call.bias)):
            if kind in arguments:
                arguments[kind] = fixed(arguments[kind], name)
        return func(**arguments), call

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        return self.width

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row."""
        return self.width

    def axes(self, shape: torch.Size) -> Sequence[int]:
        """All but those of the gain; the first where channels come second."""
        return range(len(shape) - len(self.shape)) if self.func in LAST else range(1)

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """Σ_p g_p ∘ u_p."""
        u = self._positions(self.func(self.x, **self.bound), layout)
        return Dense(torch.einsum("kspd,spd->ksd", self._positions(g, layout, 1), u))

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """Σ_p g_p."""
        return self._positions(g, layout, 1).sum(2)

    def _positions(self, t: Tensor, layout: Layout, leading: int = 0) -> Tensor:
        """(…, *shape of y) as (…, samples, positions, width)."""
        if self.func in LAST:
            spread = layout.spread(t, leading)
            return torch.unflatten(spread.flatten(leading + 1), leading + 1, (-1, self.width))
        return layout.positions(t, leading, 1 - self.x.ndim)
