"""Parameters of which only the direction is used, as in w = g v / ‖v‖: their length is free."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csc_array

from lightlike.geometry.symmetry.claims import Claim, by_layers
from lightlike.geometry.symmetry.graph import Node
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.tracing import Ints

KIND = "length of a normalised weight"
# Calls that take norms.
NORMS = ("norm", "linalg_norm", "linalg_vector_norm")


def claim_radial(scene: Scene) -> Iterator[Claim]:
    """For each part of a parameter that a norm is taken of: the part itself, v ↦ c v.

    So it is with weight normalisation (Salimans & Kingma, arXiv 1602.07868), as PyTorch has it or
    spelt out, and with rows of a classifier by cosines.
    """
    trace = scene.trace
    if trace is None:
        return
    parts: dict[bytes, Ints] = {}
    for node in trace.graph.nodes:
        if node.inputs and trace.learnt(node.inputs[0]):
            place = trace.coordinates(node.inputs[0])
            for part in _grouped(node, np.asarray(place.numpy())):
                if part.min() >= 0:
                    parts.setdefault(part.tobytes(), part)
    groups = list(parts.values())
    if not groups:
        return
    rows = np.concatenate(groups)
    columns = np.repeat(np.arange(len(groups)), [len(part) for part in groups])
    shape = scene.selection.size, len(groups)
    directions = csc_array(coo_array((scene.theta[rows], (rows, columns)), shape))
    directions.eliminate_zeros()
    yield from by_layers(KIND, directions, scene.selection)


def _grouped(node: Node, place: Ints) -> Ints:
    """Coordinates of the parts whose norms a call takes, (parts, entries)."""
    every = range(place.ndim)
    if node.name == "weight_norm":
        kept = node.argument(2, "dim", 0)
        over = [i for i in every if kept == -1 or i != kept % place.ndim]
    elif node.name in NORMS:
        dims = node.argument(2, "dim")
        dims = [dims] if isinstance(dims, int) else dims
        over = list(every) if dims is None else [i % place.ndim for i in dims]
    else:
        return np.zeros((0, 1), dtype=np.int64)
    size = int(np.prod([place.shape[i] for i in over]))
    found: Ints = np.moveaxis(place, over, range(-len(over), 0)).reshape(-1, size)
    return found
