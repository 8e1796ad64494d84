"""Dependent inputs of a layer, and dependent rows behind it.

A layer's columns of A are Σ_p g_p x_pᵀ. If c is orthogonal to all of its inputs x, changing any row
of the weight by c changes nothing; if c is orthogonal to all back-propagated g, neither does adding
c vᵀ for any v. The first are dependent units (duplicated, saturated, …), the second what later
layers cannot see: a shift of all logits, or of all that a normalisation centres. A single row of
the weight needs c to be orthogonal only to the inputs at which that output is active.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array, csc_array, hstack

from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.columns import Layer
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.tracing import Floats

# Cosines this close to 1 are proposed as equal up to a factor; A decides.
PARALLEL = 1e-12
# Singular values below this share of the largest are proposed as zero.
VANISHING = 1e-12
# Directions of one claim: larger ones are not proposed, only counted as unexplained.
MOST = 3000


def claim_dependences(scene: Scene) -> Iterator[Claim]:
    """Claims of all layers, those of one kind together in the order of the layers."""
    found = [
        (order, kind, layer.name or "the model's own parameters", matrix)
        for layer in scene.columns.layers
        for order, kind, matrix in _claims(layer, scene)
    ]
    for _, kind, where, matrix in sorted(found, key=lambda item: item[0]):
        yield Claim(kind, where, matrix)


def _claims(layer: Layer, scene: Scene) -> Iterator[tuple[int, str, csc_array]]:
    size = scene.selection.size
    inert = np.zeros(size, dtype=bool)
    inert[scene.inert] = True
    rows = np.flatnonzero(~inert[layer.place].all(1))
    columns = np.flatnonzero(~inert[layer.place].all(0))
    if not len(rows) or not len(columns):
        return
    last = layer.place.shape[1] - 1 if layer.bias else None
    twins, rest = _parallel(layer.inputs, columns, last)
    constant = twins[:, twins[last] != 0] if last is not None else twins[:, :0]
    others = twins[:, twins[last] == 0] if last is not None else twins
    place = layer.place[rows]
    if others.shape[1]:
        yield 1, "duplicated unit", spread(place, others, size)
    if constant.shape[1]:
        yield 2, "saturated unit", spread(place, constant, size)
    place = layer.place[:, columns].T
    ones = np.ones((len(layer.place), 1))
    shifted = np.linalg.norm(layer.outputs.sum(1)) <= VANISHING * np.linalg.norm(layer.outputs)
    if shifted and len(ones) > 1:
        kind = "softmax shift" if _last(layer, scene) else "shift before normalisation"
        yield 0, kind, spread(place, ones, size)
    twins, behind = _parallel(layer.outputs, rows, None)
    if twins.shape[1]:
        yield 1, "duplicated unit", spread(place, twins, size)
    if scene.data_limited:
        # Any layer with more inputs than there are observations has dependent ones.
        return
    for matrix, kept, where, kind in (
        (layer.inputs, rest, layer.place[rows], "dependent inputs"),
        (layer.outputs, behind, place, "dependent outputs"),
    ):
        null = _null(matrix, kept)
        if 0 < null.shape[1] * len(where) <= MOST:
            yield 8, kind, spread(where, null, size)
    found: list[csc_array] = []
    for row, inputs in layer.rare.items():
        null = _null(inputs, np.flatnonzero(~inert[layer.place[row]]))
        if sum(matrix.shape[1] for matrix in found) + null.shape[1] <= MOST:
            found.append(spread(layer.place[row][None, :], null, size))
    if sum(matrix.shape[1] for matrix in found):
        yield 9, "rarely active unit", csc_array(hstack(found, format="csc"))


def spread(place: np.ndarray, vectors: Floats, size: int) -> csc_array:
    """Each vector (n,) at each row of coordinates (m, n): (D, m · vectors)."""
    index, number = np.nonzero(vectors)
    rows = place[:, index]
    columns = number[None, :] + vectors.shape[1] * np.arange(len(place))[:, None]
    values = np.broadcast_to(vectors[index, number], rows.shape)
    shape = size, vectors.shape[1] * len(place)
    return csc_array(coo_array((values.ravel(), (rows.ravel(), columns.ravel())), shape))


def _parallel(matrix: Floats, among: np.ndarray, first: int | None) -> tuple[Floats, np.ndarray]:
    """Vectors e_j − ratio · e_i for columns that are multiples of another; and one of each kind.

    Args:
        matrix: Its columns.
        among: Which of them.
        first: A column that others are held against first.
    """
    order = [i for i in [first] if i is not None] + [i for i in among.tolist() if i != first]
    lengths = np.linalg.norm(matrix[:, order], axis=0)
    present = lengths > VANISHING * lengths.max(initial=0.0)
    order = np.array(order)[present]
    unit = matrix[:, order] / lengths[present]
    cosine = unit.T @ unit
    close = np.abs(cosine) >= 1.0 - PARALLEL
    leader = close.argmax(0)
    vectors = np.zeros((matrix.shape[1], 0))
    followers = np.flatnonzero(leader != np.arange(len(order)))
    if len(followers):
        vectors = np.zeros((matrix.shape[1], len(followers)))
        length = lengths[present]
        for column, j in enumerate(followers):
            i = leader[j]
            vectors[order[j], column] = 1.0
            vectors[order[i], column] = -cosine[i, j] * length[j] / length[i]
    return vectors, order[leader == np.arange(len(order))]


def _null(matrix: Floats, among: np.ndarray) -> Floats:
    """The null space of some columns, orthonormal."""
    out = np.zeros((matrix.shape[1], 0))
    if not len(among):
        return out
    _, values, vectors = np.linalg.svd(matrix[:, among])
    null = vectors[int((values > VANISHING * values[0]).sum()) :].T
    out = np.zeros((matrix.shape[1], null.shape[1]))
    out[among] = null
    return out


def _last(layer: Layer, scene: Scene) -> bool:
    """Whether a layer writes the model's output."""
    if scene.trace is None or scene.trace.graph.output is None:
        return len(layer.place) == scene.problem.survey.width
    written = np.unique(scene.trace.features(scene.trace.graph.output).numpy())
    place = layer.place[:, 0]
    return any(
        use.weight is not None
        and np.isin(use.outs, written).all()
        and np.isin(place, use.weight).all()
        for use in scene.trace.uses
    )
