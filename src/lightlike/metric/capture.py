"""Watch a forward pass for calls whose parameters' rows have a cheap form.

A captured call is made with its measured parameters detached. What is left in the autograd graph
of a parameter are then exactly its other uses, so that captured calls plus the remaining graph give
the whole Jacobian: no layer is trusted to be used only in the way that its class suggests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from lightlike.errors import ModelError
from lightlike.metric.contractions import CONTRACTIONS, Call


class Captured:
    """A captured call and the place in the autograd graph where its output stands."""

    def __init__(self, call: Call, edge: GradientEdge, shape: torch.Size) -> None:
        self.call, self.edge, self.shape = call, edge, shape
        self._version = call.x._version

    def check(self) -> None:
        """Raise a ModelError if the call's input was overwritten after the call."""
        if self.call.x._version != self._version:
            raise ModelError(
                f"The input of the layer with {' and '.join(self.call.uses)} is changed in place "
                "after the layer has read it.",
                "Its gradient, in training too, would be wrong.",
                "Use the out-of-place form of that operation.",
            )


class Capture(TorchFunctionMode):
    """Records the captured calls of a forward pass, in order.

    Attributes:
        calls: The captured calls.
        precision: Largest rounding unit of any differentiated tensor seen; 2.2e-16 if everything
            was float64.
    """

    def __init__(self, leaves: dict[str, Tensor]) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in leaves.items()}
        self.calls: list[Captured] = []
        self.precision = torch.finfo(torch.float64).eps

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the call, captured if possible."""
        kwargs = kwargs or {}
        kind = CONTRACTIONS.get(func)
        captured = None
        if kind is not None and torch.is_grad_enabled():
            captured = kind.run(func, self._name, args, kwargs)
        if captured is None:
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and result.requires_grad:
                self.precision = max(self.precision, torch.finfo(result.dtype).eps)
            return result
        output, call = captured
        fresh = not output.requires_grad
        if fresh:
            output.requires_grad_(True)
        self.calls.append(Captured(call, get_gradient_edge(output), output.shape))
        # What follows may work in place, such as ReLU(inplace=True): a leaf must not be changed so,
        # and a view would move to a place in the graph that the edge does not see.
        return output.clone() if fresh or output._is_view() else output

    def _name(self, tensor: Tensor | None) -> str | None:
        return None if tensor is None else self._names.get(id(tensor))


def reached(output: Tensor, leaves: dict[str, Tensor]) -> set[str]:
    """Names of the leaves that the autograd graph of an output still reaches."""
    names = {id(tensor): name for name, tensor in leaves.items()}
    found: set[str] = set()
    stack, seen = [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in names:
            found.add(names[id(variable)])
        stack.extend(following for following, _ in node.next_functions)
    return found
