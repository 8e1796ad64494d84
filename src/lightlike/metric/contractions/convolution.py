"""Convolutions: a linear layer on the patches of its input, one position for each output pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, channels_last, fixed
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.grouped import Grouped
from lightlike.metric.contractions.linear import Outer


class ConvolutionCall(Call):
    """`torch.nn.functional.conv1d`, `conv2d` or `conv3d`, with stride, padding, dilation, groups.

    With the input cut into patches x_p ∈ R^{c_in · kernel}, a row on the weight is Σ_p g_p x_pᵀ,
    in each group of channels on its own.
    """

    def __init__(
        self,
        x: Tensor,
        weight: str | None,
        bias: str | None,
        kernel: torch.Size,
        geometry: Geometry,
    ) -> None:
        self.x, self.weight, self.bias = x, weight, bias
        self.kernel, self.geometry = kernel, geometry

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured."""
        x, weight, bias, *settings = _arguments(*args, **kwargs)
        kernel = weight.shape[2:]
        geometry = Geometry(kernel, *settings)
        call = cls(x.detach(), names(weight), names(bias), kernel, geometry)
        if not call.uses:
            return None
        return func(x, fixed(weight, call.weight), fixed(bias, call.bias), *settings), call

    def aligned(self, shape: torch.Size, samples: int) -> bool:
        """Only outputs with a batch dimension: (B, C, *pixels)."""
        return len(shape) == len(self.kernel) + 2 and shape[0] == samples

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        channels = shape[-len(self.kernel) - 1]
        if self.weight is None:
            return channels
        positions = shape.numel() // channels // samples
        inputs = self.x.shape[-len(self.kernel) - 1] * self.kernel.numel() // self.geometry.groups
        return min(inputs * channels, positions * (positions + 1) * channels)

    def weight_factor(self, g: Tensor, samples: int) -> Factor:
        """Σ_p g_p x_pᵀ for each group of channels."""
        parts = self._outers(g, samples, bias=False)
        return parts[0] if len(parts) == 1 else Grouped(parts)

    def bias_rows(self, g: Tensor, samples: int) -> Tensor:
        """Σ_p g_p."""
        return self._pixels(g, samples).sum(2)

    def factor(self, unit: tuple[str, ...], g: Tensor, samples: int) -> Factor:
        """The factor on a unit; without groups, weight and bias are one outer product."""
        if len(unit) < 2:
            return super().factor(unit, g, samples)
        if self.geometry.groups == 1:
            return self._outers(g, samples, bias=True)[0]
        bias = Dense(self.bias_rows(g, samples))
        return Grouped([*self._outers(g, samples, bias=False), bias])

    def _outers(self, g: Tensor, samples: int, *, bias: bool) -> list[Outer]:
        rows = self._pixels(g, samples).chunk(self.geometry.groups, -1)
        batched = self.x if self.x.ndim == len(self.kernel) + 2 else self.x.unsqueeze(0)
        patches = self.geometry.patches(batched)  # (B, pixels, c_in, kernel)
        groups = patches.chunk(self.geometry.groups, 2)
        outers = []
        for part, group in zip(rows, groups, strict=True):
            x = group.reshape(samples, part.shape[2], -1)
            if bias:
                x = torch.nn.functional.pad(x, (0, 1), value=1.0)
            outers.append(Outer(x, part, bias=bias))
        return outers

    def _pixels(self, g: Tensor, samples: int) -> Tensor:
        """Gradients (k, [B,] C, *pixels) as (k, samples, positions, C)."""
        leading = g.ndim - len(self.kernel) - 1
        last = channels_last(g, leading)
        return last.reshape(len(g), samples, -1, last.shape[-1])


class Geometry:
    """Where the patches of a convolution lie."""

    def __init__(
        self,
        kernel: Sequence[int],
        stride: int | Sequence[int],
        padding: int | str | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
    ) -> None:
        dims = len(kernel)
        self.kernel, self.groups = tuple(kernel), groups
        self.stride, self.dilation = _each(stride, dims), _each(dilation, dims)
        if padding == "same":
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
            self.padding = [(span // 2, span - span // 2) for span in spans]
        else:
            sides = (0,) * dims if padding == "valid" else _each(padding, dims)  # type: ignore[arg-type]
            self.padding = [(p, p) for p in sides]

    def patches(self, x: Tensor) -> Tensor:
        """The patches of x (B, C, *pixels): (B, positions, C, kernel entries)."""
        sides = [side for pair in reversed(self.padding) for side in pair]
        x = torch.nn.functional.pad(x, sides)
        for dim, (size, step, gap) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True)
        ):
            x = x.unfold(2 + dim, gap * (size - 1) + 1, step)[..., ::gap]
        dims = len(self.kernel)
        last = channels_last(x, 1)  # (B, *positions, *kernel, C)
        return last.flatten(1, dims).movedim(-1, 2).flatten(3)


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * dims if len(value) == 1 else tuple(value)


def _arguments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, dilation, groups
