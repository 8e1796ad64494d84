"""Hold claimed directions against the root A itself: ‖A v‖ ≤ tolerance · s_1 · ‖v‖."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array

from lightlike.geometry.symmetry.tracing import Floats
from lightlike.metric.root import Root

# Bytes of dense columns at a time.
BLOCK = 64 << 20
# Random combinations that stand for many directions, and how far ‖A V‖ may exceed the largest of
# their images. For a Gaussian ξ, ‖A V ξ‖ ≥ ‖A V‖ |⟨u, ξ⟩| with a unit vector u, and |⟨u, ξ⟩| is
# below 1/10 with probability 0.08: for all of them with 0.08¹⁶ < 10⁻¹⁷.
PROBES, EXCESS = 16, 10.0


@dataclass(frozen=True)
class Verified:
    """Which of some directions are null.

    Attributes:
        passed: Mask (k,).
        residual: A bound on ‖A V‖ / s_1 for all of the V that passed, columns of unit length.
    """

    passed: NDArray[np.bool]
    residual: float


def verify(
    root: Root, claims: Sequence[csc_array], largest: float, tolerance: float
) -> list[Verified]:
    """Verify the columns of each matrix (D, k); the matrices may hold any lengths but zero.

    Where a matrix has many columns, random combinations of them are tried first: if their images
    vanish, so do all. Otherwise each column is multiplied by A.

    Args:
        root: A.
        claims: Directions.
        largest: s_1.
        tolerance: Relative to s_1.
    """
    units = [unit_columns(claim) for claim in claims]
    bound = tolerance * largest
    random = np.random.Generator(np.random.PCG64(0))
    many = [i for i, unit in enumerate(units) if unit.shape[1] > PROBES]
    mixed = [units[i] @ random.standard_normal((units[i].shape[1], PROBES)) for i in many]
    images = _images(root, [csc_array(m) for m in mixed])
    found: dict[int, Verified] = {}
    for i, image in zip(many, images, strict=True):
        residual = EXCESS * float(image.max(initial=0.0))
        if residual <= bound:
            found[i] = Verified(
                np.ones(units[i].shape[1], dtype=np.bool), residual / (largest or 1)
            )
    rest = [i for i in range(len(units)) if i not in found]
    for i, lengths in zip(rest, _images(root, [units[i] for i in rest]), strict=True):
        passed = lengths <= bound
        found[i] = Verified(passed, float(np.sqrt((lengths[passed] ** 2).sum())) / (largest or 1))
    return [found[i] for i in range(len(units))]


def unit_columns(directions: csc_array) -> csc_array:
    """The same directions at unit length."""
    lengths = np.sqrt(np.asarray(directions.multiply(directions).sum(axis=0))).reshape(-1)
    return csc_array(directions.multiply(1.0 / lengths))


def _images(root: Root, matrices: Sequence[csc_array]) -> list[Floats]:
    """Lengths of A v for each column of each matrix, columns of all taken together in blocks."""
    counts = [m.shape[1] for m in matrices]
    total = sum(counts)
    lengths = np.zeros(total)
    if not total:
        return [np.zeros(0) for _ in counts]
    step = max(1, BLOCK // (8 * max(root.shape)))
    pending: list[Floats] = []
    start = waiting = 0

    def settle() -> None:
        nonlocal start, pending, waiting
        block = torch.from_numpy(np.concatenate(pending, 1))
        lengths[start : start + waiting] = root.mv(block).norm(dim=0).cpu().numpy()
        start, pending, waiting = start + waiting, [], 0

    for matrix in matrices:
        done = 0
        while done < matrix.shape[1]:
            more = min(step - waiting, matrix.shape[1] - done)
            pending.append(matrix[:, done : done + more].toarray())
            waiting, done = waiting + more, done + more
            if waiting == step:
                settle()
    if waiting:
        settle()
    return np.split(lengths, np.cumsum(counts)[:-1])
