"""Hold claimed directions against the root A itself: ‖A v‖ ≤ tolerance · s_1 · ‖v‖."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, hstack

from lightlike.geometry.symmetry.tracing import Floats
from lightlike.metric.root import Root

# Bytes of dense columns at a time.
BLOCK = 512 << 20
# Operations, and entries of images, up to which every direction is multiplied by A at once.
CHEAP, KEPT = 4e9, 16_000_000
# Random combinations that stand for many directions, and how far ‖A V‖ may exceed the largest of
# their images. For a Gaussian ξ, ‖A V ξ‖ ≥ ‖A V‖ |⟨u, ξ⟩| with a unit vector u, and |⟨u, ξ⟩| is
# below 1/20 with probability 0.04: for all of them with 0.04¹² < 10⁻¹⁶.
PROBES, EXCESS = 12, 20.0


@dataclass(frozen=True, eq=False)
class Verified:
    """Which of some directions are null.

    Attributes:
        passed: Mask (k,).
        residual: A bound on ‖A V‖ / s_1 for all of the V that passed, columns of unit length.
        images: A V / s_1 of those that passed, (K, k), or None if only combinations were taken.
    """

    passed: NDArray[np.bool]
    residual: float
    images: Floats | None


def verify(
    root: Root, claims: Sequence[csc_array], largest: float, tolerance: float
) -> list[Verified]:
    """Verify the columns of each matrix (D, k), of any length but zero.

    Where a matrix has many columns, random combinations of them are tried first: if their images
    vanish, so do all. Otherwise each column is multiplied by A.

    Args:
        root: A.
        claims: Directions.
        largest: s_1.
        tolerance: Relative to s_1.
    """
    units = [unit_columns(claim) for claim in claims]
    scale = largest or 1.0
    total = sum(unit.shape[1] for unit in units)
    rows, columns = root.shape
    found: dict[int, Verified] = {}
    if rows * total > KEPT or float(rows) * columns * total > CHEAP:
        random = np.random.Generator(np.random.PCG64(0))
        many = [i for i, unit in enumerate(units) if unit.shape[1] > PROBES]
        mixed = [units[i] @ random.standard_normal((units[i].shape[1], PROBES)) for i in many]
        for i, image in zip(many, _images(root, [csc_array(m) for m in mixed]), strict=True):
            residual = EXCESS * float(np.linalg.norm(image, axis=0).max()) / scale
            if residual <= tolerance:
                passed = np.ones(units[i].shape[1], dtype=np.bool)
                found[i] = Verified(passed, residual, None)
    for i in range(len(units)):
        if i not in found:
            found[i] = _each(root, units[i], scale, tolerance)
    return [found[i] for i in range(len(units))]


def unit_columns(directions: csc_array) -> csc_array:
    """The same directions at unit length."""
    lengths = np.sqrt(np.asarray(directions.multiply(directions).sum(axis=0))).reshape(-1)
    return csc_array(directions.multiply(1.0 / lengths))


def _each(root: Root, unit: csc_array, scale: float, tolerance: float) -> Verified:
    """Every column by itself, some at a time where their images are many."""
    rows, count = root.shape[0], unit.shape[1]
    step = max(1, KEPT // rows)
    passed, squares, kept = [], 0.0, []
    for start in range(0, count, step):
        (image,) = _images(root, [csc_array(unit[:, start : start + step])])
        image = image / scale
        lengths = np.linalg.norm(image, axis=0)
        passed.append(lengths <= tolerance)
        squares += float((lengths[passed[-1]] ** 2).sum())
        kept.append(image[:, passed[-1]])
    images = kept[0] if len(kept) == 1 else None
    return Verified(np.concatenate(passed), squares**0.5, images)


def _images(root: Root, matrices: Sequence[csc_array]) -> list[Floats]:
    """A times the columns of each matrix, taken together in blocks."""
    if not matrices:
        return []
    joined = csc_array(hstack(matrices, format="csc"))
    step = max(1, BLOCK // (8 * max(root.shape)))
    images = [
        root.mv(torch.from_numpy(joined[:, start : start + step].toarray())).cpu().numpy()
        for start in range(0, joined.shape[1], step)
    ]
    counts = np.cumsum([m.shape[1] for m in matrices])[:-1]
    return np.split(np.concatenate(images, 1), counts, axis=1)
