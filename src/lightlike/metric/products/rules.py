"""Layers whose derivative takes fewer operations than PyTorch's forward mode makes of it.

Active while a pass in forward mode is recorded. The layers' values stay the same, but for rounding;
what is not covered here goes PyTorch's way, and all of it is held against ordinary differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightlike.metric.products.convolutions import Convolution, folded, narrow
from lightlike.metric.products.layers import attend, bend, normalise, pool

# Functions of one entry whose derivative is dear: it is computed once.
BENT = (functional.gelu, functional.silu, functional.mish, functional.softplus, functional.elu)


class Rules(TorchFunctionMode):
    """While active, layers that have a rule here go by it.

    Args:
        last: Whether convolutions on a CPU lay channels last, as its kernels do inside.
    """

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self._last = last
        # What a tensor was made of, as long as nothing is changed in place.
        self._convolutions: Any = WeakTensorKeyDictionary()
        self._rectified: Any = WeakTensorKeyDictionary()
        self._rules: dict[Any, Callable[..., Any]] = {
            functional.layer_norm: normalise,
            functional.scaled_dot_product_attention: attend,
            **{function: partial(bend, function) for function in BENT},
            torch.conv2d: self._convolve,
            functional.batch_norm: self._batch_norm,
            functional.relu: self._relu,
            torch.relu: self._relu,
            torch.max_pool2d: self._pool,
            functional.max_pool2d: self._pool,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A layer by its rule, anything else as it is."""
        kwargs = kwargs or {}
        rule = self._rules.get(func)
        found = None if rule is None else rule(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found

    def _convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if isinstance(padding, str) or x.ndim != 4:
            return None
        if self._last and x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        layer = Convolution(x, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups)
        out = narrow(layer)
        if out is None:
            out = layer.of(x, weight, bias)
        self._convolutions[out] = layer, out._version
        return out

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,  # noqa: ARG002 — nothing is averaged
        eps: float = 1e-5,
    ) -> Tensor | None:
        """(x − μ) w / √(σ² + ε) + b with fixed μ and σ, a part of the convolution that made x."""
        if training or running_mean is None or running_var is None:
            return None
        layer, version = self._convolutions.get(x, (None, 0))
        if layer is None or version != x._version or layer.changed:
            return None
        return folded(layer, running_mean, (running_var + eps).rsqrt(), weight, bias)

    def _relu(self, x: Tensor, inplace: bool = False) -> Tensor | None:
        if inplace:
            return None
        out = torch.relu(x)
        self._rectified[out] = x, x._version, out._version
        return out

    def _pool(
        self, x: Tensor, *args: Any, return_indices: bool = False, **kwargs: Any
    ) -> Tensor | None:
        """The maximum first: max relu = relu max, of fewer entries, with equal derivatives."""
        z, before, after = self._rectified.get(x, (None, 0, 0))
        if (
            return_indices
            or z is None
            or z.ndim != 4
            or before != z._version
            or after != x._version
        ):
            return None
        return torch.relu(pool(z, *args, **kwargs))


def _pair(given: Any) -> tuple[int, int]:
    return (given, given) if isinstance(given, int) else (tuple(given) * 2)[:2]
