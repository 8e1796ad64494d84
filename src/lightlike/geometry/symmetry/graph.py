"""One forward pass as a graph of calls, for any model that runs.

Every call of a PyTorch function is a node; composite functions of torch.nn.functional that nothing
is known about are entered. Tensors become values: a tensor that is changed in place is a new value,
and one that was changed through another view of its memory is a value of which nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from lightlike.metric.capture import unguarded, unwarned
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator
from lightlike.problem.isolation import isolated


@dataclass(eq=False)
class Value:
    """A tensor at one moment of the pass.

    Attributes:
        index: Its number, in order of appearance.
        tensor: The tensor, detached; what it holds is as it was at the end of the pass.
        name: Of the parameter or buffer that it is; None for others.
        given: Whether it came from nowhere: data, parameters, or something hidden.
        differentiable: Whether gradients flow through it.
    """

    index: int
    tensor: Tensor
    name: str | None
    given: bool
    differentiable: bool

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return self.tensor.shape


@dataclass(eq=False)
class Node:
    """One call.

    Attributes:
        index: Its number, in order.
        name: Of the function, without underscores: "linear", "add", "relu".
        func: The function.
        args: Positional arguments, with values in place of tensors.
        kwargs: Named arguments, with values in place of tensors.
        inputs: All values among the arguments.
        outputs: The values that it gave.
    """

    index: int
    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by place or by name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


@dataclass
class Graph:
    """The calls of one forward pass.

    Attributes:
        nodes: In the order of the calls.
        output: What the likelihood sees: the model's output.
        parameters: Value of each parameter and buffer that was used, by canonical name.
        hidden: Names, as automatic differentiation has them, of calls that were not seen but whose
            results were: functions of the model's own, compiled modules.
    """

    nodes: list[Node] = field(default_factory=list)
    output: Value | None = None
    parameters: dict[str, Value] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)

    def readers(self, value: Value) -> list[Node]:
        """Nodes that have a value among their arguments."""
        return [node for node in self.nodes if any(v is value for v in node.inputs)]

    def reaching(self, skip: Container[str] = ()) -> set[int]:
        """Numbers of the values that the output is made of, whether gradients flow or not.

        Args:
            skip: Names of functions that take no numbers from their inputs.
        """
        wanted = set() if self.output is None else {self.output.index}
        for node in reversed(self.nodes):
            if node.name not in skip and any(v.index in wanted for v in node.outputs):
                wanted.update(v.index for v in node.inputs)
        return wanted

    def writer(self, value: Value) -> Node | None:
        """The node that gave a value."""
        return next((n for n in self.nodes if any(v is value for v in n.outputs)), None)


def record(evaluator: Evaluator, batch: Batch, leaves: Container[str]) -> Graph:
    """The graph of the model's forward pass on a batch.

    Args:
        evaluator: The model in float64.
        batch: Inputs.
        leaves: Names of functions that are not entered.

    Raises:
        ModelError: if the model fails.
    """
    with isolated(), Recorder(evaluator, leaves) as recorder:
        output = evaluator.raw(batch)
    # Casting the output is part of the pass.
    graph: Graph = recorder.graph
    graph.output = recorder.value(output)
    return graph


class Recorder(TorchFunctionMode):
    """Writes the graph while a model runs.

    Args:
        evaluator: Whose parameters and buffers have names.
        leaves: Names of functions that are not entered.
    """

    def __init__(self, evaluator: Evaluator, leaves: Container[str]) -> None:
        super().__init__()
        self.graph = Graph()
        self._names = {id(tensor): name for name, tensor in evaluator.values.items()}
        self._leaves = leaves
        self._open: set[FunctionType] = set()
        self._values: dict[int, tuple[Value, int]] = {}
        # Kept, so that no other tensor gets their identity.
        self._kept: list[Tensor] = list(evaluator.values.values())
        self._count = 0

    def value(self, tensor: Tensor) -> Value:
        """The value that a tensor is at present."""
        known = self._values.get(id(tensor))
        if known is not None and known[1] == tensor._version:
            return known[0]
        name = self._names.get(id(tensor)) if known is None else None
        value = self._new(tensor, name, given=True)
        if name is not None:
            self.graph.parameters[name] = value
        elif known is None and tensor.grad_fn is not None:
            self.graph.hidden.append(tensor.grad_fn.name())
        return value

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Make the call and note it."""
        kwargs = kwargs or {}
        name, func = name_of(func), unwarned(func)
        if (
            isinstance(func, FunctionType)
            and func.__module__ == "torch.nn.functional"
            and name not in self._leaves
            and func not in self._open
        ):
            self._open.add(func)
            try:
                with self:
                    return unguarded(func)(*args, **kwargs)
            finally:
                self._open.discard(func)
        inputs: list[Value] = []

        def enter(item: Any) -> Any:
            if not isinstance(item, Tensor):
                return item
            value = self.value(item)
            inputs.append(value)
            return value

        given, named = tree_map(enter, (tuple(args), dict(kwargs)))
        if inputs and getattr(func, "__name__", "").endswith("_"):
            # What stood there before an in-place call.
            inputs[0].tensor = inputs[0].tensor.clone()
        result = func(*args, **kwargs)
        outputs = [self._new(t, None, given=False) for t in _tensors(result)]
        # Shapes and the like are no calls; an assignment to entries is one without a result.
        if outputs or any(self._stale(t) for t in _tensors([*args, *kwargs.values()])):
            node = Node(len(self.graph.nodes), name, func, given, named, inputs, outputs)
            self.graph.nodes.append(node)
        return result

    def _stale(self, tensor: Tensor) -> bool:
        return self._values[id(tensor)][1] != tensor._version

    def _new(self, tensor: Tensor, name: str | None, *, given: bool) -> Value:
        flows = tensor.requires_grad
        value = Value(self._count, tensor.detach(), name, given, flows)
        self._count += 1
        self._values[id(tensor)] = value, tensor._version
        self._kept.append(tensor)
        return value


def name_of(func: Callable[..., Any]) -> str:
    """The plain name of a function: "add" for torch.add, Tensor.__add__ and Tensor.add_."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", ""))
    if name.startswith("__"):
        name = name.strip("_")
        # In-place and reflected forms; "round" and "index" begin with the same letters.
        if name[:1] in "ri" and name[1:] in _OPERATORS:
            name = name[1:]
        return _SPELLINGS.get(name, name)
    return _SPELLINGS.get(name.strip("_"), name.strip("_"))


_OPERATORS = {"add", "sub", "mul", "truediv", "div", "matmul", "pow"}
_SPELLINGS = {
    "truediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub",
    "mm": "matmul", "absolute": "abs", "concat": "cat", "concatenate": "cat", "negative": "neg",
}  # fmt: skip


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, tuple | list):
        return [t for item in result for t in _tensors(item)]
    return []
