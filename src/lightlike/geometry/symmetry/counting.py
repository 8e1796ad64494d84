"""How many of a collection of null directions are independent: a certain lower bound.

Unit vectors e_j are independent of one another, so their coordinates are struck out of all other
directions. What is left falls into blocks that share no coordinate. Of each block of unit columns V
the Gram matrix Vᵀ V is formed, and eigenvalues above a cut σ² are counted. Their number k is
certain in two ways. Rounding moves an eigenvalue by far less than the cut. And on the k-dimensional
space of V's singular vectors above σ, ‖A w‖ ≤ ‖A V‖ ‖w‖ / σ: with σ ≥ 2 √B ‖A V‖ / (tolerance s_1)
in each of B blocks, all these spaces together leave as many singular values of A at
tolerance · s_1 at most (Courant and Fischer). Directions that are independent by less than the cut
are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import LinAlgError, cholesky
from scipy.sparse import coo_array, csc_array, hstack
from scipy.sparse.csgraph import connected_components

from lightlike.geometry.symmetry.tracing import Floats, Ints
from lightlike.geometry.symmetry.verification import unit_columns

# Least singular value of unit columns that counts.
CUT = 1e-5
# Share of a direction that must be left when coordinates are struck out.
SHARE = 1e-4
# Columns of a block that are counted: further ones add nothing to the bound.
MOST = 6000


def count_new(
    inert: Ints, claims: Sequence[csc_array], residuals: Sequence[float], tolerance: float
) -> list[int]:
    """Dimensions that each claim adds to the unit vectors and the claims before it.

    Args:
        inert: Coordinates j with A e_j = 0.
        claims: Verified directions (D, k).
        residuals: Bounds on ‖A V‖ / s_1 of each, at unit length.
        tolerance: Relative to s_1.
    """
    if not claims:
        return []
    owner = np.repeat(np.arange(len(claims)), [c.shape[1] for c in claims])
    kept = np.ones(claims[0].shape[0], dtype=bool)
    kept[inert] = False
    columns = unit_columns(csc_array(hstack(claims, format="csc")))
    columns = csc_array(columns[np.flatnonzero(kept)])
    lengths = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=0))).reshape(-1)
    left = np.flatnonzero(lengths > SHARE)
    owner, columns = owner[left], unit_columns(csc_array(columns[:, left]))
    # Striking out has made them shorter, and their images longer by as much.
    bounds = np.asarray(residuals, dtype=np.float64)[owner] / lengths[left]
    added = np.zeros(len(claims), dtype=np.int64)
    blocks = _blocks(columns)
    for block in blocks:
        mine = columns[:, block]
        gram = (mine.T @ mine).toarray() if len(block) <= MOST else None
        if gram is None:
            block = block[:MOST]
            mine = columns[:, block]
            gram = (mine.T @ mine).toarray()
        _, first = np.unique(owner[block], return_index=True)
        total = float(np.sqrt((np.maximum.reduceat(bounds[block], first) ** 2).sum()))
        if total:
            cut = max(CUT, 2.0 * np.sqrt(len(blocks)) * total / tolerance) if tolerance else np.inf
        else:
            cut = CUT
        before = 0
        for claim, stop in zip(owner[block[first]], [*first[1:], len(block)], strict=True):
            found = _rank(gram[:stop, :stop], cut)
            added[claim] += found - before
            before = found
    return added.tolist()


def _blocks(columns: csc_array) -> list[Ints]:
    """Columns that hang together through shared coordinates, in order."""
    rows, count = columns.shape
    entries = columns.tocoo()
    graph = coo_array(
        (np.ones(entries.nnz, dtype=bool), (entries.row, entries.col + rows)), (rows + count,) * 2
    )
    _, label = connected_components(graph, directed=False)
    label = label[rows:]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if count else []


def _rank(gram: Floats, cut: float) -> int:
    """Eigenvalues of a Gram matrix of unit columns above cut²; all, if a factorisation says so."""
    threshold = cut**2 + 1e-14 * len(gram)
    try:
        cholesky(gram - (threshold) * np.eye(len(gram)), lower=True, check_finite=False)
    except LinAlgError:
        return int((np.linalg.eigvalsh(gram) > threshold).sum())
    return len(gram)
