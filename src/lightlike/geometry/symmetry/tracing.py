"""Which entries of which tensors are one feature, and which parameters write and read it.

Every entry of every tensor of a forward pass carries the number of its feature, or, while it is an
unchanged entry of a parameter, its coordinate in θ. Calls that only move entries (reshape, cat,
transpose, chunk, …) are made on these numbers instead of the data, so that no layout has to be
known. Calls that compute give links between features:

- same: whatever linear map a generator applies to one feature it must apply to the other;
- scaled: a common positive factor passes through, and nothing else (rectifiers, maxima, products);
- sums: z = c a + …, along which a shift of a becomes one of z.

Feature 0 stands for everything that no generator may change: data, the model's output, and whatever
enters or leaves a call that nothing is known about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.utils._pytree import tree_map

from lightlike.geometry.symmetry.graph import Graph, Node, Value
from lightlike.geometry.symmetry.statistics import Slopes
from lightlike.geometry.symmetry.uses import FIXED, FROZEN, Floats, Ints, Use, broadcast
from lightlike.problem.parameters import Selection

Handler = Callable[["Trace", Node], None]

__all__ = [
    "FIXED", "FROZEN", "Classes", "Floats", "Handler", "Ints", "Trace", "Use", "broadcast",
    "opaque",
]  # fmt: skip

# Entries of a matrix that is looked at in full where several calls use it.
LARGE = 100_000


class Trace:
    """Features, links and uses of a graph.

    Args:
        graph: The calls.
        selection: The parameters that have coordinates.
        handlers: What a call means, by the name of its function.
        slopes: What functions of one entry are on all of the data, by the number of the call.

    Attributes:
        uses: All uses of parameters that are understood.
        same, scaled: Links between features.
        products: Features (z, a, b) with z = a b.
        sums: Features (z, a) and numbers c with z = c a + …, z being newer than a.
        level: Features that stand in one place and must be shifted alike.
        units: Features before and after a function of one entry, whatever the function is.
        bent: Features that a generator may scale but not shift or mix.
        rigid: Features that it may not shift.
        still: Features that it may shift but not scale or mix.
        bounded: Features before and after a function with a ceiling as well as a floor.
        tied: Features in the same place of a parameter that several calls use.
        touched: How many calls use each coordinate.
        opaque: Mask of coordinates with a use that is not understood.
    """

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        handlers: dict[str, Handler],
        slopes: Mapping[int, Slopes] | None = None,
    ) -> None:
        self.graph, self.selection, self.slopes = graph, selection, slopes or {}
        self.uses: list[Use] = []
        self.same: list[Ints] = []
        self.scaled: list[Ints] = []
        self.products: list[Ints] = []
        self.sums: list[tuple[Ints, Floats]] = []
        self.level: list[Ints] = []
        self.units: list[Ints] = []
        self.bent: list[Ints] = []
        self.rigid: list[Ints] = []
        self.still: list[Ints] = []
        self.bounded: list[Ints] = []
        self.touched = np.zeros(selection.size, dtype=np.int64)
        self.opaque = np.zeros(selection.size, dtype=bool)
        self.count = 1
        self._features: dict[Value, Tensor] = {}
        self._coordinates: dict[Value, Tensor] = {}
        for node in graph.nodes:
            for value in (*node.inputs, *node.outputs):
                value.tensor = value.tensor.cpu()
        starts = {e.name: e.start for e in selection.entries}
        for name, value in graph.parameters.items():
            size, shape = value.shape.numel(), value.shape
            place = torch.full((size,), FROZEN)
            if name in starts:
                place = starts[name] + torch.arange(size)
            self._coordinates[value] = place.view(shape)
        for node in graph.nodes:
            # What gradients do not pass is no symmetry of the derivatives.
            stopped = any(v.differentiable for v in node.inputs) and not any(
                v.differentiable for v in node.outputs
            )
            handler = opaque if stopped else handlers.get(node.name, opaque)
            try:
                handler(self, node)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
                # Called in a way that the handler does not know.
                opaque(self, node)
        if graph.output is not None:
            self.fix(graph.output)
        self.tied = tie(self)

    def features(self, value: Value) -> Tensor:
        """The feature of each entry of a value; a parameter becomes one that its entries write."""
        if value not in self._features:
            if self.moves(value):
                self._enter(value)
            else:
                self._features[value] = torch.zeros(value.shape, dtype=torch.int64)
        return self._features[value]

    def coordinates(self, value: Value) -> Tensor:
        """The coordinate of each entry of a parameter's value, FROZEN for those without one."""
        return self._coordinates[value]

    def moves(self, value: Any) -> bool:
        """Whether a value is made of unchanged entries of parameters or buffers."""
        return isinstance(value, Value) and value in self._coordinates

    def learnt(self, value: Any) -> bool:
        """Whether a value is made of parameters alone, some of which are measured."""
        return self.moves(value) and bool((self._coordinates[value] >= 0).any())

    def set(self, value: Value, features: Tensor) -> None:
        """Give a value's entries their features."""
        self._features[value] = features.expand(value.shape)

    def fresh(self, count: int) -> Tensor:
        """New features."""
        self.count += count
        return torch.arange(self.count - count, self.count)

    def along(self, value: Value, axis: int) -> Ints:
        """The features along one axis, the same at all other places from now on."""
        found = self.features(value).movedim(axis, 0).flatten(1)
        self.merge(found[:, :1], found)
        return found[:, 0].numpy()

    def merge(self, a: Tensor, b: Tensor) -> None:
        """Features that are treated alike from here on."""
        a, b = broadcast(a, b)
        apart = a != b
        self.link(self.same, a[apart], b[apart])
        self.link(self.level, a[apart], b[apart])

    def passed(self, out: Tensor, a: Tensor, factors: Tensor) -> None:
        """A shift of a becomes one of out, times a factor."""
        self.sums.append((torch.stack([out, a]).numpy(), factors.numpy().astype(np.float64)))

    def add(self, parts: list[tuple[Tensor, float]]) -> Tensor:
        """New features z = Σ c a, entry by entry."""
        numbers = torch.stack(broadcast(*(a for a, _ in parts)))
        keys, inverse = torch.unique(numbers.flatten(1), dim=1, return_inverse=True)
        out = self.fresh(keys.shape[1])
        for a, (_, c) in zip(keys, parts, strict=True):
            self.link(self.same, out, a)
            self.passed(out, a, torch.full((len(out),), float(c)))
        return out[inverse].view(numbers.shape[1:])

    def link(self, links: list[Ints], a: Tensor, b: Tensor) -> None:
        """Link features entry by entry."""
        pairs = np.stack([t.numpy().reshape(-1) for t in broadcast(a, b)])
        if pairs.size:
            links.append(np.unique(pairs, axis=1))

    def fix(self, value: Value) -> None:
        """No generator may change this value."""
        if self.moves(value):
            self.spoil(value)
        else:
            self.link(self.same, self.features(value), torch.tensor(FIXED))

    def mark(self, marks: list[Ints], features: Tensor) -> None:
        """Put features on a list."""
        marks.append(np.unique(features.numpy()))

    def use(self, use: Use) -> None:
        """Note a use, whose coordinates then have one more."""
        self.uses.append(use)
        for part in (use.weight, use.offset):
            if part is not None:
                mine = np.unique(part[part >= 0])
                self.touched[mine] += 1

    def spoil(self, value: Value) -> None:
        """A parameter is used in a way that is not understood."""
        place = self._coordinates[value].numpy()
        self.opaque[place[place >= 0]] = True

    def move(self, node: Node) -> None:
        """A call that only moves entries, made on their numbers."""
        real = [value for value in node.inputs if value.tensor.is_floating_point()]
        if not real:
            # Indices made of indices.
            return
        lookup = self._coordinates if all(map(self.moves, real)) else None
        find = self.features if lookup is None else lookup.__getitem__

        def number(item: Any) -> Any:
            if not isinstance(item, Value):
                return item
            # Indices and masks say where entries go.
            return find(item).clone() if item.tensor.is_floating_point() else item.tensor

        args, kwargs = tree_map(number, (node.args, node.kwargs))
        result = node.func(*args, **kwargs)
        found = [result] if isinstance(result, Tensor) else list(result)
        for value, numbers in zip(node.outputs, found, strict=True):
            if numbers.shape != value.shape:
                raise ValueError("moved to another place")
            (self._features if lookup is None else lookup)[value] = numbers

    def _enter(self, value: Value) -> None:
        """A parameter that is added or joined to activations: its entries are features they write.

        Entries that end up in one feature are linked later; each is one of its own at first.
        """
        place = self._coordinates[value]
        known, inverse = torch.unique(place, return_inverse=True)
        features = self.fresh(len(known))
        features[known == FROZEN] = FIXED
        self._features[value] = features[inverse]
        mine = known >= 0
        if bool(mine.any()):
            outs = features[mine].numpy()
            node = next((n for n in self.graph.nodes if value in n.inputs), self.graph.nodes[0])
            entries = torch.zeros(len(known), dtype=torch.float64)
            entries[inverse.reshape(-1)] = value.tensor.reshape(-1).to(torch.float64).cpu()
            base = entries[mine].numpy()[:, None]
            self.use(Use(node, None, None, outs, outs[:0], known[mine].numpy()[:, None], base))


class Classes:
    """Classes of linked features.

    Attributes:
        number: Class of each feature, (count,).
        fixed: Class of feature 0.
        size: Number of classes.
    """

    def __init__(self, count: int, links: list[Ints]) -> None:
        pairs = np.concatenate(links, 1) if links else np.zeros((2, 0), dtype=np.int64)
        graph = coo_array((np.ones(pairs.shape[1], dtype=bool), (pairs[0], pairs[1])), (count,) * 2)
        self.size, number = connected_components(graph, directed=False)
        self.number: Ints = number.astype(np.int64)
        self.fixed = int(self.number[FIXED])


def tie(trace: Trace) -> list[Ints]:
    """Links between features that one entry of a parameter writes, and reads, in several calls.

    Of a large matrix the first row and the first column stand for all.
    """
    found = []
    for use in trace.uses:
        if use.weight is not None:
            shape = use.weight.shape
            outs = np.broadcast_to(use.outs.reshape(-1, *[1] * (len(shape) - 1)), shape)
            ins = use.ins[:, None] if use.diagonal else use.ins[None, :, None]
            parts = [np.stack([use.weight, outs, np.broadcast_to(ins, shape)])]
            if use.weight.size > LARGE:
                parts = [parts[0][:, :1], parts[0][:, :, :1]]
            found += [part.reshape(3, -1) for part in parts]
        if use.offset is not None and use.base is not None:
            outs = np.broadcast_to(use.outs[:, None], use.offset.shape)
            found.append(np.stack([use.offset, outs, outs]).reshape(3, -1))
    places = np.concatenate(found, 1) if found else np.zeros((3, 0), dtype=np.int64)
    places = places[:, places[0] >= 0]
    places = places[:, trace.touched[places[0]] > 1]
    _, first, inverse = np.unique(places[0], return_index=True, return_inverse=True)
    first = first[inverse]
    return [np.stack([places[side][first], places[side]]) for side in (1, 2)]


def opaque(trace: Trace, node: Node) -> None:
    """A call that nothing is known about: nothing may change at its ends."""
    for value in node.inputs:
        trace.fix(value)
