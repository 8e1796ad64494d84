"""How a subspace is spread over layers, parameters and coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightlike.metric.root import Root
from lightlike.results import Result


@dataclass(frozen=True, eq=False)
class Share(Result):
    """The diagonal of a projector P, and its sums.

    Attributes:
        coordinates: P_ii ∈ [0, 1] of every coordinate, (D,), in the order of the parameters: how
            much of a step along the coordinate lies in the subspace (its leverage).
        layers: tr P over a layer's coordinates, divided by the dimension; they sum to 1, or are all
            0 for a subspace of dimension 0.
        parameters: The same by parameter.
        fractions: Mean of P_ii over a layer's coordinates: how much of the layer is inside.
        dimension: tr P.
    """

    coordinates: Tensor
    layers: dict[str, float]
    parameters: dict[str, float]
    fractions: dict[str, float]
    dimension: int

    def _records(self) -> list[dict[str, str | float]]:
        return [
            {"layer": name, "share": share, "fraction": self.fractions[name]}
            for name, share in self.layers.items()
        ]


def share_of(root: Root, coordinates: Tensor, dimension: int) -> Share:
    """Sum a projector's diagonal by layer and by parameter."""
    layers = root.problem.selection.layers()
    if root.layer is not None:
        layers = {root.layer: layers[root.layer]}
    by_layer, by_parameter, fractions = {}, {}, {}
    for layer, entries in layers.items():
        total, size = 0.0, 0
        for entry in entries:
            start = entry.start if root.layer is None else size
            part = float(coordinates[start : start + entry.size].sum())
            by_parameter[entry.name] = part / max(dimension, 1)
            total, size = total + part, size + entry.size
        by_layer[layer] = total / max(dimension, 1)
        fractions[layer] = total / size
    return Share(coordinates, by_layer, by_parameter, fractions, dimension)
