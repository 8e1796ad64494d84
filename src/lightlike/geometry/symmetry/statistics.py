"""Units that are linear, or constant, on all of the data although their function is not.

A rectifier whose input never changes sign is a factor; any function of an input that never changes
passes a shift on, times its derivative there.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lightlike.geometry.symmetry.graph import Graph, Node, Value, record
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

# An input that varies by less than this share of its size is constant; A decides.
STEADY = 1e-12


@dataclass(frozen=True, eq=False)
class Slopes:
    """What a function of one entry is on all of the data, for each entry of one sample.

    Attributes:
        factor: c where f(x) = c x throughout, NaN elsewhere.
        derivative: f'(x) where x is constant, NaN elsewhere.
    """

    factor: Tensor
    derivative: Tensor


class _Range:
    """Smallest and largest inputs of one call, entry by entry."""

    def __init__(self, node: Node) -> None:
        self.node, self.fits = node, True
        self.low = self.high = self.ratio = torch.zeros(0)

    def add(self, node: Node) -> None:
        x, y = node.inputs[0].tensor, node.outputs[0].tensor
        if x.ndim == 0 or (len(self.low) and x.shape[1:] != self.low.shape[1:]):
            self.fits = False
            return
        low, high = x.amin(0, keepdim=True), x.amax(0, keepdim=True)
        if len(self.low):
            low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
        else:
            self.ratio = y[:1] / x[:1]
        self.low, self.high = low, high

    def slopes(self, *, homogeneous: bool) -> Slopes:
        """The slopes by what was seen."""
        nothing = torch.full_like(self.low, torch.nan)
        factor = nothing
        if homogeneous:
            one_sided = (self.low > 0) | (self.high < 0)
            factor = torch.where(one_sided & (self.ratio != 0), self.ratio, nothing)
        size = torch.maximum(self.low.abs(), self.high.abs())
        steady = (self.high - self.low <= STEADY * size) & torch.isnan(factor)
        derivative = torch.where(steady, self._derivative(), nothing) if steady.any() else nothing
        return Slopes(factor.cpu(), derivative.cpu())

    def _derivative(self) -> Tensor:
        at = (0.5 * (self.low + self.high)).requires_grad_(True)
        first = self.node.inputs[0]

        def value(item: object) -> object:
            if item is first:
                # Some functions work in place.
                return at * 1.0
            return item.tensor if isinstance(item, Value) else item

        args, kwargs = tree_map(value, (self.node.args, self.node.kwargs))
        (found,) = torch.autograd.grad(self.node.func(*args, **kwargs).sum(), at)
        return found


def measure_slopes(
    problem: Problem,
    graph: Graph,
    leaves: Container[str],
    functions: Container[str],
    homogeneous: Container[str],
) -> dict[int, Slopes]:
    """Slopes of calls of functions of one entry, by the number of the call.

    Calls that are not the same in all batches are left out.

    Args:
        problem: The model and data.
        graph: Calls of the pass that numbers count.
        leaves: As for `record`.
        functions: Names of functions of one entry.
        homogeneous: Those of them that are rectifiers.
    """
    ranges = {
        node.index: _Range(node)
        for node in graph.nodes
        if node.name in functions
        and node.outputs
        and node.inputs[0].differentiable
        and node.inputs[0].shape == node.outputs[0].shape
    }
    if not ranges:
        return {}
    for nodes in _passes(problem, leaves):
        if [n.name for n in nodes] != [n.name for n in graph.nodes]:
            return {}
        for index, found in ranges.items():
            found.add(nodes[index])
    with isolated():
        return {
            index: found.slopes(homogeneous=found.node.name in homogeneous)
            for index, found in ranges.items()
            if found.fits
        }


def _passes(problem: Problem, leaves: Container[str]) -> Iterator[list[Node]]:
    reference = problem.reference
    for batch in reference.batches():
        yield record(reference.evaluator, batch, leaves).nodes
