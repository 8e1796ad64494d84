"""Convolutions of fixed inputs, and with a normalisation after them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightlike.metric.products.duals import apart, maybe_apart, together, total

aten: Any = torch.ops.aten

# Kernels work on some eight channels at a time; with fewer, the products of all patches are faster.
NARROW = 4
# Largest |μ| / σ of a normalisation that is made part of a convolution: digits cancel beyond.
CANCELLING = 16.0


@dataclass(frozen=True)
class Convolution:
    """A convolution as it was asked for: input, weight, bias and the rest."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    versions: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", self._versions())

    @property
    def changed(self) -> bool:
        """Whether its input or parameters were changed in place since."""
        return self._versions() != self.versions

    @property
    def narrow(self) -> bool:
        """Whether its input is fixed and has few channels."""
        x, dx = apart(self.x)
        fixed = dx is None and not x.requires_grad
        return fixed and self.groups == 1 and x.shape[1] <= NARROW

    def patches(self) -> Tensor:
        """The fixed input's patches, (N · places, channels · kernel)."""
        size = self.weight.shape[2:]
        at = apart(self.x)[0].detach()
        found = functional.unfold(at, size, self.dilation, self.padding, self.stride)
        return found.mT.flatten(0, 1)

    def arranged(self, flat: Tensor) -> Tensor:
        """(N · places, out) as (N, out, height, width)."""
        return flat.view(len(self.x), *self.size(), flat.shape[1]).permute(0, 3, 1, 2)

    def size(self) -> list[int]:
        """Height and width of the result."""
        return [
            (length + 2 * p - d * (k - 1) - 1) // s + 1
            for length, p, d, k, s in zip(
                self.x.shape[2:], self.padding, self.dilation, self.weight.shape[2:], self.stride,
                strict=True,
            )
        ]  # fmt: skip

    def of(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same with other input and parameters."""
        weight = weight.contiguous(memory_format=layout(x))
        return torch.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _versions(self) -> tuple[int, ...]:
        parts = (self.x, self.weight, self.bias)
        return tuple(t._version for t in parts if t is not None)


class _Narrow(torch.autograd.Function):
    """A convolution of a fixed input, by its patches: (N · places, out)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, patches: Tensor) -> Tensor:
        ctx.save_for_backward(patches)
        ctx.shape = weight.shape
        return patches @ weight.flatten(1).T

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        (patches,) = ctx.saved_tensors
        # Long sums of few columns: this way round, they are several times as fast.
        return (patches.T @ g[0]).T.reshape(ctx.shape), None


def narrow(layer: Convolution) -> Tensor | None:
    """A convolution of a fixed input with few channels; None for any other."""
    (w, dw), (b, db) = apart(layer.weight), maybe_apart(layer.bias)
    if not layer.narrow or dw is None:
        return None
    patches = layer.patches()
    value: Tensor = _Narrow.apply(w, patches)  # type: ignore[no-untyped-call]
    if b is not None:
        value = value + b
    tangent = patches @ dw.flatten(1).T
    if db is not None:
        tangent = tangent + db
    return together(layer.arranged(value), layer.arranged(tangent))


class _Folded(torch.autograd.Function):
    """(x ∗ W + shift) a + b for a = w / σ and shift = −μ, as a convolution with the weight a W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, w: Tensor, b: Tensor, inverse: Tensor, shift: Tensor,
        layer: Convolution, patches: Tensor | None,
    ) -> Tensor:  # fmt: skip
        scale = w * inverse
        folded = (_by_channel(scale) * W).contiguous(memory_format=layout(x))
        ctx.save_for_backward(
            *(t for t in (x, W, folded, inverse, shift, scale, patches) if t is not None)
        )
        ctx.layer = layer
        return layer.of(x, folded, scale * shift + b)

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        x, W, folded, inverse, shift, scale, *patches = ctx.saved_tensors
        g, layer, needs = given[0], ctx.layer, ctx.needs_input_grad
        if patches:
            dx, flat = None, g.permute(0, 2, 3, 1).flatten(0, 2)
            G, total = (patches[0].T @ flat).T.reshape(W.shape), flat.sum(0)
        else:
            g = g.contiguous(memory_format=layout(x))
            dx, G, total = aten.convolution_backward(
                g, x, folded, [len(scale)], layer.stride, layer.padding, layer.dilation, False,
                [0, 0], layer.groups, [needs[0], True, True],
            )  # fmt: skip
        dW = _by_channel(scale) * G if needs[1] else None
        dw = inverse * ((G * W).flatten(1).sum(1) + shift * total) if needs[2] else None
        return dx, dW, dw, total if needs[3] else None, None, None, None, None


def folded(
    layer: Convolution,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor | None:
    """(x ∗ W + c − μ) w / σ + b with fixed μ and 1 / σ, and its tangent, as two convolutions.

    None where c depends on parameters, or σ is so small against μ that digits would cancel.
    """
    given = (layer.weight, layer.bias, weight, bias)
    if any(t is not None and t.dtype != layer.x.dtype for t in given):
        return None
    if layer.bias is not None or apart(layer.weight)[1] is None:
        return None
    if float((mean * inverse).abs().max()) > CANCELLING:
        return None
    (x, dx), (W, dW), shift = apart(layer.x), apart(layer.weight), -mean
    (w, dw), (b, db) = (
        apart(t if t is not None else torch.full_like(mean, fill))
        for t, fill in ((weight, 1.0), (bias, 0.0))
    )
    patches = layer.patches() if layer.narrow else None
    value: Tensor = _Folded.apply(x, W, w, b, inverse, shift, layer, patches)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scale = (w * inverse).detach()
        slope, offset = [], []
        if dW is not None:
            slope.append(_by_channel(scale) * dW)
        if dw is not None:
            turn = dw * inverse
            slope.append(_by_channel(turn) * W.detach())
            offset.append(turn * shift)
        if db is not None:
            offset.append(db)
        change, start = total(slope), total(offset)
        assert change is not None
        if patches is not None:
            tangent = patches @ change.flatten(1).T
            tangent = layer.arranged(tangent if start is None else tangent + start)
        else:
            tangent = layer.of(x.detach(), change, start)
        if dx is not None:
            tangent = tangent + layer.of(
                dx.contiguous(memory_format=layout(x)), (_by_channel(scale) * W).detach(), None
            )
    return together(value, tangent)


def layout(x: Tensor) -> torch.memory_format:
    """Channels last if they are in x."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _by_channel(t: Tensor) -> Tensor:
    return t[:, None, None, None]
