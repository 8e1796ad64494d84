"""Which features are queries, keys and values, and which are normalised: a trace of transformers.

Beside what `tracing` follows, products of activations are understood: Σ_i q_i k_i pairs the
features of two activations head by head, and a product with weights that depend on positions alone
mixes positions and leaves features what they are. So heads are found in any layout, by where views
and transposes of the model itself take the features of its projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lightlike.geometry.symmetry.graph import Graph, Value
from lightlike.geometry.symmetry.statistics import Slopes
from lightlike.geometry.symmetry.tracing import FIXED, Classes, Handler, Ints, Trace, Use, broadcast
from lightlike.problem.parameters import Selection

# What takes a tensor's shape and type alone.
FRESH = (
    "new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like",
    "empty_like",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm or RMSNorm over the last axis.

    Attributes:
        ins, outs: Features read and written, (d,).
        use: Its gain and bias; None where there is no gain, or it comes later.
        centred: Whether the mean is taken away.
        eps: What is added to the variance.
    """

    ins: Ints
    outs: Ints
    use: Use | None
    centred: bool
    eps: float


@dataclass(frozen=True, eq=False)
class Pairing:
    """Products Σ_i a_i b_i of features, such as queries with keys.

    Attributes:
        left, right: Features, (heads, n).
    """

    left: Ints
    right: Ints


class Wiring(Trace):
    """A trace that knows attention and normalised streams.

    Attributes:
        norms: All normalisations of vectors of features.
        pairings: All products of features with features.
        mixtures: Features that positions are mixed of alike, (heads, n).
        uneven: Features multiplied by numbers of their own, so that they cannot be mixed.
        read: Features with a reader that is not understood.
        output: Features of the model's output.
    """

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        handlers: dict[str, Handler],
        slopes: Mapping[int, Slopes],
    ) -> None:
        self.norms: list[Norm] = []
        self.pairings: list[Pairing] = []
        self.mixtures: list[Ints] = []
        self.uneven: list[Ints] = []
        self.read: list[Ints] = []
        self.output: Ints | None = None
        # Values x² , their mean over features, and 1/√(mean + eps), by the x that they are made of.
        self.squares: dict[Value, tuple[str, Value, float]] = {}
        super().__init__(live(graph), selection, handlers, slopes)

    def fix(self, value: Value) -> None:
        """No generator may change this value."""
        if value in self.squares:
            # Nor what it is the square of.
            self.fix(self.squares[value][1])
        if value is self.graph.output and not self.moves(value):
            found = self.features(value)
            flat = found.reshape(-1, found.shape[-1]) if found.ndim else found.reshape(1, 1)
            if torch.equal(flat, flat[:1].expand_as(flat)):
                self.output = flat[0].numpy()
        elif not self.moves(value):
            self.read.append(np.unique(self.features(value).numpy()))
        super().fix(value)

    def use(self, use: Use) -> None:
        """Note a use; a table's rows, which are its weights and its offsets, count once."""
        self.uses.append(use)
        places = [p.reshape(-1) for p in (use.weight, use.offset) if p is not None]
        mine = np.unique(np.concatenate(places)) if places else np.zeros(0, dtype=np.int64)
        self.touched[mine[mine >= 0]] += 1

    def add(self, parts: list[tuple[Tensor, float]]) -> Tensor:
        """New features z = Σ c a, entry by entry; of what is fixed the sum is fixed."""
        fixed = torch.stack(broadcast(*(a == FIXED for a, _ in parts))).all(0)
        found = super().add(parts)
        return torch.where(fixed, FIXED, found)

    def curved(self) -> Ints:
        """Features that enter or leave a function that is not linear."""
        marks = [*self.bent, *self.still]
        return np.unique(np.concatenate(marks)) if marks else np.zeros(0, dtype=np.int64)

    def linear_classes(self) -> Classes:
        """Classes of features, those that are not linear throughout with what is fixed."""
        curved = self.curved()
        return Classes(self.count, [*self.same, np.stack([curved, np.full_like(curved, FIXED)])])

    def known(self, value: Value) -> bool:
        """Whether a value has features that a generator may change."""
        return not self.moves(value) and bool((self.features(value) != FIXED).any())


def live(graph: Graph) -> Graph:
    """The calls whose numbers the output depends on: what leads nowhere reads nothing."""
    wanted = graph.reaching(FRESH)
    found = [
        node
        for node in graph.nodes
        if node.name not in FRESH and any(v.index in wanted for v in node.outputs)
    ]
    return replace(graph, nodes=found)


def constant(x: Tensor, axis: int) -> bool:
    """Whether a tensor is the same all along an axis."""
    return torch.equal(x, x.narrow(axis, 0, 1).expand_as(x))


def weigh(trace: Wiring, x: Value, z: Value, y: Value) -> None:
    """Features times fixed numbers: themselves if all have the same one at each place."""
    found, factor = broadcast(trace.features(x), z.tensor)
    axes = [i for i in range(found.ndim) if not constant(found, i)]
    if all(constant(factor, i) for i in axes):
        trace.set(y, found)
        return
    known, inverse = torch.unique(found, return_inverse=True)
    out = trace.fresh(len(known))
    out[known == FIXED] = FIXED
    trace.link(trace.same, out, known)
    trace.uneven.append(out.numpy())
    trace.read.append(known.numpy())
    trace.set(y, out[inverse])
