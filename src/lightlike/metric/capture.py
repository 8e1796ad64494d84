"""Watch a forward pass for calls whose parameters' rows have a cheap form.

A captured call is made with its measured parameters detached. What is left in the autograd graph
of a parameter are then exactly its other uses, so that captured calls plus the remaining graph give
the whole Jacobian: no layer is trusted to be used only in the way that its class suggests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from lightlike.errors import ModelError
from lightlike.metric.contractions import CONTRACTIONS, Call
from lightlike.metric.contractions.normalisation import steady
from lightlike.metric.contractions.slices import CUTS, Slice, Sliced, cut

# Which call of a pass: the parameters it uses, and how many calls used them before.
Key = tuple[tuple[str, ...], int]


class Captured:
    """A captured call and the place in the autograd graph where its output stands.

    Attributes:
        call: The record of the call.
        key: Which call of the pass it is.
        edge: Where its output stands in the graph.
        shape: Of its output.
        fresh: Whether its output depends on no measured parameter but its own.
    """

    def __init__(
        self, call: Call, key: Key, edge: GradientEdge, shape: torch.Size, *, fresh: bool
    ) -> None:
        self.call, self.key, self.edge, self.shape, self.fresh = call, key, edge, shape, fresh
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

    Args:
        leaves: The measured parameters by name.
        widened: Calls whose output is the same for all samples, such as embeddings of positions,
            and that is handed out once for each sample, so that samples can be told apart.

    Attributes:
        calls: The captured calls.
        precision: Largest rounding unit of any differentiated tensor seen; 2.2e-16 if everything
            was float64.
    """

    def __init__(self, leaves: dict[str, Tensor], widened: dict[Key, int] | None = None) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in leaves.items()}
        self._widened = widened or {}
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._open: set[FunctionType] = set()
        self._slices: dict[str, Slice] = {}
        # Kept, so that no other tensor gets their identity.
        self._cut: list[Tensor] = []
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
        # Rows of real numbers are not made from complex gradients.
        if captured is None or captured[0].is_complex():
            return self._pass(func, args, kwargs)
        output, call = captured
        slices = {name: self._slices[name] for name in call.uses if name in self._slices}
        if slices:
            call = Sliced(call, slices)
            if len(set(call.uses)) < len(call.uses):
                return self._pass(func, args, kwargs)
        key = call.uses, self._seen[call.uses]
        self._seen[call.uses] += 1
        self.precision = max(self.precision, torch.finfo(output.dtype).eps)
        fresh = not output.requires_grad
        if fresh and key in self._widened:
            output, call.x = _widen(output, call.x, self._widened[key])
        if fresh:
            output.requires_grad_(True)
        edge = get_gradient_edge(output)
        self.calls.append(Captured(call, key, edge, output.shape, fresh=fresh))
        # What follows may work in place, such as ReLU(inplace=True): a leaf must not be changed so,
        # and a view would move to a place in the graph that the edge does not see.
        return output.clone() if fresh or output._is_view() else output

    def _pass(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A call that is not captured; what functions written in Python call inside may be."""
        func = unwarned(steady(func))
        if (
            isinstance(func, FunctionType)
            and func.__module__ == "torch.nn.functional"
            and func not in CONTRACTIONS
            and func not in self._open
        ):
            # Some functions are entered twice, by their public and by an inner name.
            self._open.add(func)
            try:
                with self:
                    return unguarded(func)(*args, **kwargs)
            finally:
                self._open.discard(func)
        result = func(*args, **kwargs)
        if func in CUTS and (name := self._name(args[0] if args else None)) is not None:
            self._note(name, args[0], result)
        if isinstance(result, Tensor) and result.requires_grad:
            self.precision = max(self.precision, torch.finfo(result.dtype).eps)
        return result

    def _note(self, name: str, tensor: Tensor, parts: Sequence[Tensor]) -> None:
        """Remember which entries of a parameter slices of it are."""
        if name in self._slices:
            return
        for part, where in zip(parts, cut(tensor, name, parts), strict=False):
            label = f"{name}[{where.start}:{where.start + where.size}]"
            self._slices[label] = where
            self._names[id(part)] = label
            self._cut.append(part)

    def _name(self, tensor: Any) -> str | None:
        return None if tensor is None else self._names.get(id(tensor))


@cache
def unguarded(func: FunctionType) -> Callable[..., Any]:
    """A function of PyTorch's without its own question whether somebody watches.

    While a mode handles a call it is switched off, so that attention, say, would hide the linear
    layers inside it. Switched on again, the function would only ask the mode once more.
    """
    inner = dict(func.__globals__)
    for guard in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
        inner[guard] = _nobody
    copy = FunctionType(func.__code__, inner, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def unwarned(func: Callable[..., Any]) -> Callable[..., Any]:
    """A function without a warning that would name the line here in place of the model's own.

    `x.T` of a vector or of a tensor of three or more axes is deprecated; the model's author is told
    so when the model runs by itself.
    """
    return _turned if func == Tensor.T.__get__ else func  # type: ignore[attr-defined]


def _turned(x: Tensor, *_: Any) -> Tensor:
    return x.permute(*reversed(range(x.ndim)))


def _nobody(*_: Any) -> bool:
    return False


def _widen(output: Tensor, x: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Output and input of a call repeated for each sample, along a first dimension."""
    if len(output) != 1:
        output, x = output.unsqueeze(0), x.unsqueeze(0)
    return output.expand(samples, *output.shape[1:]).clone(), x.expand(samples, *x.shape[1:])


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
