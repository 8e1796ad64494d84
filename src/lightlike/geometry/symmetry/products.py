"""Products of activations in a trace of transformers; see `wiring`."""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.geometry.symmetry import layers
from lightlike.geometry.symmetry.graph import Node, Value
from lightlike.geometry.symmetry.tracing import FIXED, Use, broadcast
from lightlike.geometry.symmetry.wiring import Pairing, Wiring, constant


def product(trace: Wiring, node: Node) -> None:
    """A matrix product of activations and parameters, or of two activations."""
    x, z = node.inputs
    if trace.learnt(z):
        layers.product(trace, node)
        return
    a, b, y = trace.features(x), trace.features(z), node.outputs[0]
    if min(a.ndim, b.ndim) < 2 or trace.moves(x):
        raise ValueError("not a product of activations")
    if trace.known(x) and trace.known(z):
        pair(trace, a, b.transpose(-1, -2))
    elif trace.known(z):
        trace.set(y, mix(trace, b))
    elif trace.known(x):
        trace.set(y, mix(trace, a.transpose(-1, -2)).transpose(-1, -2))


def added_product(trace: Wiring, node: Node) -> None:
    """C + A B, c being a mask."""
    c, x, z = node.inputs
    if not (trace.known(x) and trace.known(z)):
        raise ValueError("not scores")
    trace.fix(c)
    pair(trace, trace.features(x), trace.features(z).transpose(-1, -2))


def pair(trace: Wiring, left: Tensor, right: Tensor) -> None:
    """Σ_i a_i b_i of features (…, positions, n) with features (…, positions, n)."""
    both = torch.stack(broadcast(_alike(trace, left), _alike(trace, right)), -2)
    rows = torch.unique(both.reshape(-1, 2, both.shape[-1]), dim=0)
    trace.pairings.append(Pairing(rows[:, 0].numpy(), rows[:, 1].numpy()))


def mix(trace: Wiring, found: Tensor) -> Tensor:
    """Features (…, 1, n) of weighted sums over positions of features (…, positions, n)."""
    one = _alike(trace, found)
    trace.mixtures.append(torch.unique(one.reshape(-1, one.shape[-1]), dim=0).numpy())
    return one[..., None, :]


def _alike(trace: Wiring, found: Tensor) -> Tensor:
    """Features (…, positions, n) that are the same at all positions from now on, (…, n).

    Where something was joined to the positions, such as a learnt key or a row of zeros, there may
    be others, or none at all.
    """
    flat = found.movedim(-2, 0).flatten(1)
    moving = (flat != FIXED).any(1)
    found = found[..., moving, :]
    if not bool(moving.all()):
        # A shift of all the others is seen against what stays.
        trace.mark(trace.rigid, found)
    if not constant(found, -2):
        columns = [set(c.unique().tolist()) for c in found.flatten(0, -2).T]
        if sum(map(len, columns)) > len(set().union(*columns)) and found.ndim == 2:
            raise ValueError("features are mixed with each other")
        trace.merge(found[..., :1, :], found)
    return found[..., 0, :]


def attention(trace: Wiring, node: Node) -> None:
    """softmax(q kᵀ / √d + mask) v."""
    q, k, v = (node.argument(i, n) for i, n in enumerate(("query", "key", "value")))
    for other in node.inputs:
        if other not in (q, k, v):
            trace.fix(other)
    a, b, c = (trace.features(x) for x in (q, k, v))
    if node.argument(7, "enable_gqa", False):
        b, c = (x.repeat_interleave(a.shape[-3] // x.shape[-3], -3) for x in (b, c))
    if trace.known(q) and trace.known(k):
        pair(trace, a, b)
    else:
        trace.fix(q)
        trace.fix(k)
    trace.set(node.outputs[0], mix(trace, c) if trace.known(v) else c[..., :1, :])


def einsum(trace: Wiring, node: Node) -> None:
    """Products of two activations, or of an activation and a parameter, spelt by letters."""
    equation, *values = node.args
    values = list(values[0]) if isinstance(values[0], tuple | list) else values
    sides, _, out = equation.replace(" ", "").partition("->")
    spelt = sides.split(",")
    if "." in equation or len(values) != 2 or any(len(set(s)) < len(s) for s in spelt):
        raise ValueError("not a plain product of two")
    if trace.learnt(values[0]) or not (trace.learnt(values[1]) or trace.known(values[1])):
        spelt, values = spelt[::-1], values[::-1]
    y = node.outputs[0]
    letters = Letters(spelt[0], spelt[1], out)
    if trace.learnt(values[1]):
        trace.set(y, _layer(trace, node, letters, values[0], values[1]))
        return
    right = letters.second(trace.features(values[1]))
    if trace.known(values[0]):
        pair(trace, letters.first(trace.features(values[0])), right)
    elif trace.known(values[1]):
        # (batch, own letters, what is summed): one weighted sum for each place of the other.
        mixed = mix(trace, right.transpose(-1, -2))[..., 0, :]
        ends = [values[1].shape[spelt[1].index(i)] for i in letters.batch + letters.ways[1]]
        full = mixed.reshape(
            *ends[: len(letters.batch)], *[1] * len(letters.ways[0]), *ends[len(letters.batch) :]
        )
        trace.set(y, letters.spell(full, letters.batch + letters.ways[0] + letters.ways[1]))


class Letters:
    """The letters of a product of two tensors, in order.

    Attributes:
        batch: In both tensors and in the result.
        inner: Summed.
        ways: Those of each alone.
    """

    def __init__(self, first: str, second: str, out: str) -> None:
        self.spelt, self.out = (first, second), out
        self.inner = [i for i in first if i in second and i not in out]
        self.batch = [i for i in first if i in second and i in out]
        self.ways = [[i for i in s if i in out and i not in self.batch] for s in self.spelt]
        for s, way in zip(self.spelt, self.ways, strict=True):
            if len(self.batch) + len(self.inner) + len(way) < len(s):
                raise ValueError("one is summed alone")

    def first(self, x: Tensor) -> Tensor:
        """The first tensor as (batch …, its own letters, what is summed)."""
        return self._arranged(x, 0)

    def second(self, x: Tensor) -> Tensor:
        """The second tensor as (batch …, its own letters, what is summed)."""
        return self._arranged(x, 1)

    def spell(self, x: Tensor, order: list[str]) -> Tensor:
        """A result with its letters in some order, in the order that was asked for."""
        return x.permute([order.index(i) for i in self.out])

    def _arranged(self, x: Tensor, which: int) -> Tensor:
        order = self.batch + self.ways[which] + self.inner
        x = x.permute([self.spelt[which].index(i) for i in order])
        sizes = x.shape[: len(self.batch)]
        own = x.shape[len(self.batch) : len(self.batch) + len(self.ways[which])].numel()
        return x.reshape(*sizes, own, -1)


def _layer(trace: Wiring, node: Node, letters: Letters, x: Value, w: Value) -> Tensor:
    """A linear layer, Σ x w over some letters; the features that it writes."""
    if letters.batch:
        raise ValueError("a weight for each")
    found = letters.first(trace.features(x))
    trace.merge(found[:1], found)
    place, weight = (letters.second(t)[..., None] for t in (trace.coordinates(w), w.tensor))
    outs = trace.fresh(len(place))
    trace.use(
        Use(node, place.numpy(), weight.numpy(), outs.numpy(), found[0].numpy(), None, None)
    )  # fmt: skip
    sizes = [w.shape[letters.spelt[1].index(i)] for i in letters.ways[1]]
    full = outs.reshape(*[1] * len(letters.ways[0]), *sizes)
    return letters.spell(full, letters.ways[0] + letters.ways[1])
