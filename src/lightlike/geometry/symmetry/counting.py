"""How many of a collection of null directions are independent: a certain lower bound.

Unit vectors e_j are independent of one another, so their coordinates are struck out of all other
directions. What is left falls into B blocks that share no coordinate. Of each block of unit columns
V the Gram matrix Vᵀ V is formed, and its eigenvalues above σ² ≥ 10⁻¹⁰ are counted, which rounding
moves by far less. With the unit vectors w of these k dimensions, ‖A w‖ ≤ tolerance · s_1 / 2√B is
then asked for: from A V itself where it is kept, from ‖A w‖ ≤ ‖A V‖ / σ otherwise, with σ raised as
need be. All blocks together then leave that many singular values of A at tolerance · s_1 at most
(Courant and Fischer), so that no rank can be larger than D less their number. Directions that are
independent by less than σ are not counted, nor those of a block beyond its first thousands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.linalg.lapack import dpstrf
from scipy.sparse import coo_array, csc_array, hstack
from scipy.sparse.csgraph import connected_components

from lightlike.geometry.symmetry.tracing import Floats, Ints
from lightlike.geometry.symmetry.verification import Verified, unit_columns
from lightlike.spectrum.inertia import count_above

# Least singular value of unit columns that counts.
CUT = 1e-5
# Share of a direction that must be left when coordinates are struck out.
SHARE = 1e-4
# Columns of a block that are counted: further ones add nothing to the bound. Fewer where nothing
# would be left unexplained anyhow.
MOST, FEWER = 6000, 2500
# Columns up to which a block's eigenvectors are taken to see the images of all it spans.
SMALL = 1500


def count_new(
    inert: Ints,
    claims: Sequence[csc_array],
    verified: Sequence[Verified],
    tolerance: float,
    *,
    limited: bool = False,
) -> list[int]:
    """Dimensions that each claim adds to the unit vectors and the claims before it.

    Args:
        inert: Coordinates j with A e_j = 0.
        claims: Verified directions (D, k).
        verified: What is known of each one's image.
        tolerance: Relative to s_1.
        limited: Whether the rank alone explains what is not counted.
    """
    most = min(MOST, FEWER) if limited else MOST
    added = np.zeros(len(claims), dtype=np.int64)
    if not claims:
        return []
    counts = [c.shape[1] for c in claims]
    owner, place = np.repeat(np.arange(len(claims)), counts), np.arange(sum(counts))
    place = place - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    kept = np.ones(claims[0].shape[0], dtype=bool)
    kept[inert] = False
    columns = unit_columns(csc_array(hstack(claims, format="csc")))
    columns = csc_array(columns[np.flatnonzero(kept)])
    lengths = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0))).reshape(-1)
    left = np.flatnonzero(lengths > SHARE)
    # Striking out makes them shorter, and their images longer by as much.
    owner, place, lengths = owner[left], place[left], lengths[left]
    columns = unit_columns(csc_array(columns[:, left]))
    blocks = _blocks(columns)
    allowed = tolerance / (2.0 * np.sqrt(max(1, len(blocks))))
    for whole in blocks:
        touched = np.unique(columns[:, whole].indices)
        # The singular values are those of V Vᵀ too.
        wide = len(touched) < len(whole) and len(whole) > most
        block = whole if wide and len(touched) <= most else whole[:most]
        mine = csc_array(columns[:, block])
        residuals = np.array([verified[o].residual for o in owner[block]]) / lengths[block]
        images = None
        if len(block) <= SMALL:
            images = _images(owner[block], place[block], lengths[block], verified)
        claim, first = np.unique(owner[block], return_index=True)
        stops = [*first[1:].tolist(), len(block)]
        bound = float(np.sqrt((np.maximum.reduceat(residuals, first) ** 2).sum()))
        gram = (mine.T @ mine).toarray() if len(block) <= most else None
        if gram is None:
            rows = csc_array(mine[touched])
            found = [_wide_rank(csc_array(rows[:, :s]), bound, allowed) for s in stops]
        elif _definite(gram, max(CUT, bound / allowed)):
            found = stops
        elif images is None and (chosen := _chosen(gram, stops, max(CUT, bound / allowed))):
            found = chosen
        else:
            found = [
                _rank(gram[:s, :s], None if images is None else images[:, :s], bound, allowed)
                for s in stops
            ]
        best = np.maximum.accumulate([0, *found])
        added[claim] += np.diff(best)
    return added.tolist()


def _images(
    owner: Ints, place: Ints, lengths: Floats, verified: Sequence[Verified]
) -> Floats | None:
    """A V / s_1 of a block, if it was kept."""
    parts = [(verified[o].images, p) for o, p in zip(owner, place, strict=True)]
    if any(images is None for images, _ in parts):
        return None
    columns = [images[:, p] for images, p in parts if images is not None]
    return np.stack(columns, 1) / lengths


def _blocks(columns: csc_array) -> list[Ints]:
    """Columns that hang together through shared coordinates, in order."""
    rows, count = columns.shape
    entries = columns.tocoo()
    ends = entries.row, entries.col.astype(np.int64) + rows
    graph = coo_array((np.ones(entries.nnz, dtype=bool), ends), (rows + count,) * 2)
    _, label = connected_components(graph, directed=False)
    label = label[rows:]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if count else []


def _rounding(gram: Floats) -> float:
    """What rounding may add to an eigenvalue of a Gram matrix of unit columns."""
    return 1e-14 * len(gram)


def _definite(gram: Floats, cut: float) -> bool:
    """Whether all singular values of the columns exceed a cut."""
    try:
        shifted = np.array(gram, order="F")
        shifted[np.diag_indices(len(gram))] -= cut**2 + _rounding(gram)
        cholesky(shifted, lower=True, check_finite=False, overwrite_a=True)
    except LinAlgError:
        return False
    return True


def _chosen(gram: Floats, stops: Sequence[int], cut: float) -> list[int]:
    """How many columns up to each stop may be chosen so that all are independent beyond a cut.

    Claim by claim, of what the columns chosen before leave, by Cholesky factorisations with
    pivoting: those whose distance from the ones before is ten cuts at least. One further
    factorisation then proves that all singular values of the chosen exceed the cut, and so does
    that many of all columns up to each stop, as a Gram matrix's eigenvalues interlace.

    Returns:
        The numbers; nothing if that is not so.
    """
    factor = np.zeros_like(gram, order="F")
    kept, found, start = np.zeros(0, dtype=np.int64), [], 0
    for stop in stops:
        claim, n = np.arange(start, stop), len(kept)
        before = solve_triangular(factor[:n, :n], gram[np.ix_(kept, claim)], lower=True)
        left = gram[start:stop, start:stop] - before.T @ before
        least = (10.0 * cut) ** 2
        lower, pivots, rank, _ = dpstrf(left, tol=least, lower=1)
        # LAPACK holds the first pivot against zero only.
        rank = rank if left.diagonal().max() > least else 0
        mine = pivots[:rank] - 1
        factor[n : n + rank, :n] = before[:, mine].T
        factor[n : n + rank, n : n + rank] = np.tril(lower[:rank, :rank])
        kept, start = np.concatenate([kept, claim[mine]]), stop
        found.append(len(kept))
    return found if _definite(gram[np.ix_(kept, kept)], cut) else []


def _wide_rank(columns: csc_array, bound: float, allowed: float) -> int:
    """The same for more columns than rows, from V Vᵀ."""
    gram = (columns @ columns.T).toarray()
    error = 1e-14 * len(gram) * float(np.abs(gram).sum(0).max())
    cut = max(CUT, bound / allowed)
    return count_above(torch.from_numpy(gram), cut**2 + error, error, len(gram)).lower


def _rank(gram: Floats, images: Floats | None, bound: float, allowed: float) -> int:
    """Dimensions of the columns' span that are certain and null.

    Args:
        gram: Vᵀ V.
        images: A V / s_1, or None.
        bound: A bound on its norm.
        allowed: What a unit vector's image may be.
    """
    if images is None:
        cut = max(CUT, bound / allowed)
        return count_above(torch.from_numpy(gram), cut**2, _rounding(gram), len(gram)).lower
    values, vectors = np.linalg.eigh(gram)
    large = values > CUT**2 + _rounding(gram)
    values, vectors = values[large][::-1], vectors[:, large][:, ::-1]
    moved = images @ (vectors / np.sqrt(values))
    # The Frobenius norms of the first ones only rise.
    squares = np.cumsum((moved**2).sum(0))
    count = int((squares <= allowed**2).sum())
    for more in range(count + 1, len(values) + 1):
        if np.linalg.norm(moved[:, :more], 2) > allowed:
            break
        count = more
    return count
