"""Forward passes that stay in float64 where a model's own code asks for float32.

Models made for half precision compute the delicate steps in float32 by name: normalisation
(`x.to(torch.float32)`), attention (`softmax(x, dtype=torch.float32)`), angles (`x.float()`). Seen
from float64, which decides ranks, these are not precautions but losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightlike.problem.isolation import working_dtype


class Widening(TorchFunctionMode):
    """While it is on, what is asked for in float32 is made in float64.

    Not while the model is evaluated in float32 on request: see `working_dtype`.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the call, in float64 if it names float32."""
        if func is Tensor.float and working_dtype() is torch.float64:
            func = Tensor.double
        named = {key: _wide(value) for key, value in (kwargs or {}).items()}
        return func(*map(_wide, args), **named)


def widened(model: nn.Module) -> nn.Module:
    """The same model, sharing all it has, whose calls are made under `Widening`.

    It is an instance of the model's class, with the same names of parameters and modules.
    """
    kind = type(model)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with Widening():
            return kind.__call__(self, *args, **kwargs)

    subclass = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    twin: nn.Module = object.__new__(subclass)
    twin.__dict__.update(model.__dict__)
    return twin


def _wide(value: Any) -> Any:
    return working_dtype() if value is torch.float32 else value
