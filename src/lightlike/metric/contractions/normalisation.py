"""Gains and biases of normalisation layers: y = u ∘ weight + bias, u the normalised input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.layout import Layout, positions_of

functional = torch.nn.functional

# Functions whose gain has the shape of the last dimensions; the others' is one a channel.
LAST = (functional.layer_norm, functional.rms_norm)

# Entries of products that stay in the caches.
CACHED = 1 << 17


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
        return steady(func)(**arguments), call

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
        normalised = layout.spread(self._normalise(self.x)).unsqueeze(0)
        return Dense(_sum_products(self._rows(g), self._rows(normalised)[0]))

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """Σ_p g_p."""
        return self._rows(g).sum(2)

    def _normalise(self, x: Tensor) -> Tensor:
        found: Tensor = steady(self.func)(x, **self.bound)
        return found

    def _rows(self, t: Tensor) -> Tensor:
        """(k, *layout.spread(y)) as (k, samples, positions, width)."""
        if self.func in LAST:
            return t.reshape(*t.shape[:2], -1, self.width)
        return positions_of(t, 1 - self.x.ndim)


def _sum_products(g: Tensor, u: Tensor) -> Tensor:
    """Σ_p g_p ∘ u_p for g (k, s, P, d), laid out sample by sample, and u (s, P, d): (k, s, d).

    Some rows at a time, while they are in the caches: an einsum would copy all of g.
    """
    out = g.new_empty(g.shape[1], g.shape[0], g.shape[3])
    step = max(1, CACHED // max(1, u[0].numel()))
    for mine, theirs, sums in zip(g.transpose(0, 1), u, out, strict=True):
        for start in range(0, len(mine), step):
            torch.sum(mine[start : start + step] * theirs, 1, out=sums[start : start + step])
    return out.transpose(0, 1)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`; in eval mode by operations on single entries.

    The backward pass of PyTorch's own kernel is wrong there when it is batched by vmap: for a
    single image, if the gradient lies channels last (seen in 2.13).
    """
    if training or running_mean is None or running_var is None:
        return functional.batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps
        )
    sizes = [-1, *[1] * (input.ndim - 2)]
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    y = (input - running_mean.view(sizes)) * scale.view(sizes)
    return y if bias is None else y + bias.view(sizes)


def steady(func: Callable[..., Any]) -> Callable[..., Any]:
    """What to call in place of a function of PyTorch's whose batched backward pass is wrong."""
    return batch_norm if func is functional.batch_norm else func
