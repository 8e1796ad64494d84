"""How a subspace is spread over layers, parameters and coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from lightlike.metric.root import Root
from lightlike.problem.parameters import Entry
from lightlike.results import Result


@dataclass(frozen=True, eq=False)
class Share(Result):
    """The diagonal of a projector P, and its sums.

    The layers' shares come from their Gram matrices; what is asked of single parameters and
    coordinates takes products with all of A's rows, when first read.

    Attributes:
        layers: tr P over a layer's coordinates, divided by the dimension; they sum to 1, or are all
            0 for a subspace of dimension 0.
        fractions: Mean of P_ii over a layer's coordinates: how much of the layer is inside.
        dimension: tr P.
    """

    layers: dict[str, float]
    fractions: dict[str, float]
    dimension: int
    _entries: tuple[Entry, ...] = field(repr=False)
    _diagonal: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def coordinates(self) -> Tensor:
        """P_ii ∈ [0, 1] of every coordinate, (D,), in the order of the parameters.

        How much of a step along the coordinate lies in the subspace (its leverage).
        """
        return self._diagonal()

    @cached_property
    def parameters(self) -> dict[str, float]:
        """The same as `layers` by parameter."""
        found, start = {}, 0
        for entry in self._entries:
            part = self.coordinates[start : start + entry.size]
            found[entry.name] = float(part.sum()) / max(self.dimension, 1)
            start += entry.size
        return found

    def _records(self) -> list[dict[str, str | float]]:
        return [
            {"layer": name, "share": share, "fraction": self.fractions[name]}
            for name, share in self.layers.items()
        ]


def entries_of(root: Root) -> dict[str, list[Entry]]:
    """The parameters whose columns a root has, by layer and in order."""
    layers = root.problem.selection.layers()
    return layers if root.layer is None else {root.layer: layers[root.layer]}


def share_of(
    root: Root, traces: dict[str, float], diagonal: Callable[[], Tensor], dimension: int
) -> Share:
    """A share from tr P by layer, and from what gives P's diagonal."""
    layers = entries_of(root)
    sizes = {name: sum(entry.size for entry in entries) for name, entries in layers.items()}
    # Raw parameters of one module may stand apart.
    entries = sorted((e for found in layers.values() for e in found), key=lambda e: e.start)
    return Share(
        {name: traces[name] / max(dimension, 1) for name in layers},
        {name: traces[name] / sizes[name] for name in layers},
        dimension,
        tuple(entries),
        diagonal,
    )
