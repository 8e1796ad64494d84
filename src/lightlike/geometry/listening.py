"""The outputs of a model's modules in one forward pass, as places in its autograd graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

Place = tuple[Any, int]


@dataclass(frozen=True)
class Heard:
    """The output of one call of a module.

    Attributes:
        name: Of the module, with #2, #3, … for later calls; "" for the model itself.
        kind: Its class.
        edge: The output's place in the graph, before anything works on it in place.
        shape: The output's.
    """

    name: str
    kind: str
    edge: GradientEdge
    shape: torch.Size

    @property
    def place(self) -> Place:
        """The edge as a key."""
        return self.edge.node, self.edge.output_nr


class Listening:
    """Context in which every call of a module leaves its output's place in the graph.

    Hooks are removed on leaving, also after an error.

    Attributes:
        heard: The outputs in order of execution, each tensor once: under the innermost module that
            returned it.
        silent: Modules whose output is not one floating-point tensor.
        begun: Modules in order of their first call.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.heard: list[Heard] = []
        self.silent: list[str] = []
        self.begun: list[str] = []
        self._handles: list[RemovableHandle] = []
        self._calls: Counter[str] = Counter()
        # Kept alive so that no other tensor takes the identity of one that was returned. What is
        # changed in place keeps it, and goes to another place in the graph.
        self._returned: dict[int, tuple[Tensor, Place | None]] = {}

    def __enter__(self) -> Listening:
        for name, module in self.model.named_modules():
            self._handles += [
                module.register_forward_pre_hook(self._begin(name)),
                module.register_forward_hook(self._listen(name)),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._returned.clear()

    def _begin(self, name: str) -> Any:
        def begin(module: nn.Module, inputs: Any) -> None:  # noqa: ARG001 — as hooks are called
            if name not in self.begun:
                self.begun.append(name)

        return begin

    def _listen(self, name: str) -> Any:
        def listen(module: nn.Module, inputs: Any, output: Any) -> Tensor | None:  # noqa: ARG001
            self._calls[name] += 1
            label = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
            if not isinstance(output, Tensor) or not output.is_floating_point():
                self.silent.append(label)
                return None
            known = self._returned.get(id(output))
            if known is not None and known[1] == _place(output):
                return None
            fresh = not output.requires_grad
            probe = output.detach().clone().requires_grad_(True) if fresh else output
            edge = get_gradient_edge(probe)
            self.heard.append(Heard(label, type(module).__name__, edge, output.shape))
            # What follows may work in place: not on a leaf, nor on a view, which would move.
            passed = probe.clone() if fresh or output._is_view() else output
            self._returned[id(passed)] = passed, _place(passed)
            return None if passed is output else passed

        return listen


def _place(tensor: Tensor) -> Place | None:
    if not tensor.requires_grad:
        return None
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def separating(h: Tensor, heard: list[Heard]) -> tuple[list[Heard], list[str], list[str]]:
    """Those outputs that every path from an earlier one to h runs through.

    Only for them ∂h/∂h_k = ∂h/∂h_l · ∂h_l/∂h_k for all k before l.

    Returns:
        They; names of those that a path goes past; names of those that h does not depend on.
    """
    known = {one.place for one in heard}
    met = _reached(h, known, None)
    alive = [one for one in heard if one.place in met]
    kept: list[Heard] = []
    passed: list[str] = []
    for index, one in enumerate(alive):
        earlier = {other.place for other in alive[:index]}
        if _reached(h, earlier, one.place):
            passed.append(one.name)
        else:
            kept.append(one)
    return kept, passed, [one.name for one in heard if one.place not in met]


def _reached(h: Tensor, wanted: set[Place], blocked: Place | None) -> set[Place]:
    """Which places the graph of h leads to without running through a blocked one."""
    if not h.requires_grad:
        return set()
    start = get_gradient_edge(h)
    stack: list[Place] = [(start.node, start.output_nr)]
    found: set[Place] = set()
    seen: set[Any] = set()
    while stack:
        place = stack.pop()
        if place == blocked:
            continue
        if place in wanted:
            found.add(place)
        node = place[0]
        if node in seen:
            continue
        seen.add(node)
        stack.extend(following for following in node.next_functions if following[0] is not None)
    return found
