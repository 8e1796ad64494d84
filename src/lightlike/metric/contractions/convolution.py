"""Convolutions: a linear layer on the patches of its input, one position for each output pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.grouped import Grouped
from lightlike.metric.contractions.layout import Layout, positions_of
from lightlike.metric.contractions.outer import Outer
from lightlike.metric.contractions.patches import Geometry


class SpatialCall(Call):
    """A call on tensors (B, C, *pixels), or (C, *pixels), with a kernel."""

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
        self.channel = -len(kernel) - 1

    def axes(self, shape: torch.Size) -> Sequence[int]:
        """Only those before the channels."""
        return range(len(shape) + self.channel)

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """Σ_p g_p."""
        return positions_of(g, self.channel).sum(2)


class ConvolutionCall(SpatialCall):
    """`torch.nn.functional.conv1d`, `conv2d` or `conv3d`, with stride, padding, dilation, groups.

    With the input cut into patches x_p ∈ R^{c_in · kernel}, a row on the weight is Σ_p g_p x_pᵀ,
    in each group of channels on its own.
    """

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured."""
        x, weight, bias, *settings = _arguments(*args, **kwargs)
        kernel = weight.shape[2:]
        call = cls(x.detach(), names(weight), names(bias), kernel, Geometry(kernel, *settings))
        if not call.uses:
            return None
        return func(x, fixed(weight, call.weight), fixed(bias, call.bias), *settings), call

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        channels = shape[self.channel]
        if self.weight is None:
            return channels
        positions = shape.numel() / channels / samples
        return min(self._inputs * channels, positions * (1 + positions / 8) * channels)

    def order(self, shape: torch.Size, samples: int) -> str:
        """Through entries, or through the activation Gram matrices of patches."""
        entries = self._inputs * shape[self.channel]
        cheaper = self.pair_operations(shape, samples) < entries and self.weight is not None
        return "pairs of positions" if cheaper else "entries"

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row."""
        channels = shape[self.channel]
        full = shape.numel() / samples
        return min(full, self._inputs * channels) if self.weight is not None else channels

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """Σ_p g_p x_pᵀ for each group of channels."""
        parts = self._outers(g, layout, bias=False)
        return parts[0] if len(parts) == 1 else Grouped(parts)

    def factor(self, unit: tuple[str, ...], g: Tensor, layout: Layout) -> Factor:
        """The factor on a unit; without groups, weight and bias are one outer product."""
        if len(unit) < 2:
            return super().factor(unit, g, layout)
        if self.geometry.groups == 1:
            return self._outers(g, layout, bias=True)[0]
        bias = Dense(self.bias_rows(g, layout))
        return Grouped([*self._outers(g, layout, bias=False), bias])

    @property
    def _inputs(self) -> int:
        return self.x.shape[self.channel] * self.kernel.numel() // self.geometry.groups

    def _outers(self, g: Tensor, layout: Layout, *, bias: bool) -> list[Outer]:
        rows = positions_of(g, self.channel).chunk(self.geometry.groups, -1)
        batched = self.x if self.x.ndim == len(self.kernel) + 2 else self.x.unsqueeze(0)
        patches = self.geometry.patches(batched)  # (B, pixels, c_in, kernel)
        outers = []
        for part, group in zip(rows, patches.chunk(self.geometry.groups, 2), strict=True):
            x = layout.spread(group).reshape(layout.samples, part.shape[2], -1)
            if bias:
                x = torch.nn.functional.pad(x, (0, 1), value=1.0)
            outers.append(Outer(x, part, bias=bias))
        return outers


class TransposedConvolutionCall(SpatialCall):
    """`torch.nn.functional.conv_transpose1d`, `2d` or `3d`.

    The adjoint of a convolution: a row on the weight (c_in, c_out, kernel) is Σ_p x_p ⊗ the patch
    of g that the input pixel p spreads to, in each group of channels on its own.
    """

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if one of its parameters is measured."""
        x, weight, bias, *settings = _transposed_arguments(*args, **kwargs)
        stride, padding, _, groups, dilation = settings
        kernel = weight.shape[2:]
        geometry = Geometry(kernel, stride, padding, dilation, groups)
        call = cls(x.detach(), names(weight), names(bias), kernel, geometry)
        if not call.uses:
            return None
        return func(x, fixed(weight, call.weight), fixed(bias, call.bias), *settings), call

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows."""
        channels = shape[self.channel]
        return channels if self.weight is None else self._width(channels)

    def held(self, shape: torch.Size, samples: int) -> float:
        """Numbers that the factor holds for one row."""
        return self.pair_operations(shape, samples)

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """Σ_p x_p ⊗ patches of g, written out: patches repeat each gradient for every entry."""
        groups, k = self.geometry.groups, len(g)
        x = layout.positions(self.x, self.channel)  # (s, P, c_in)
        pixels = self.x.shape[self.channel + 1 :]
        rows = g.reshape(-1, *g.shape[self.channel :])  # (…, C, *pixels)
        patches = self.geometry.patches(rows, pixels)  # (…, P, C, kernel)
        patches = patches.reshape(k, layout.samples, x.shape[1], g.shape[self.channel], -1)
        parts = [
            torch.einsum("spi,kspoe->ksioe", mine, theirs).flatten(2)
            for mine, theirs in zip(x.chunk(groups, -1), patches.chunk(groups, 3), strict=True)
        ]
        return Dense(torch.cat(parts, -1))

    def _width(self, channels: int) -> int:
        inputs = self.x.shape[self.channel]
        return inputs * channels * self.kernel.numel() // self.geometry.groups


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


def _transposed_arguments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, output_padding, groups, dilation
