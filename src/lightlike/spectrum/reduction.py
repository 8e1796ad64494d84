"""Some eigenvectors of a symmetric matrix, without the others.

G = Q T Qᵀ with a tridiagonal T and Q a product of reflections, which takes 4/3 n³ operations, as
eigenvalues alone do. Eigenvectors of T that are asked for come from multiple relatively robust
representations (Dhillon & Parlett 2004, doi:10.1016/j.laa.2003.12.028) in O(n) each, and Q times
them takes 2 n² each. Of an eigenvalue that is there several times, or whose neighbours are within
rounding, as many vectors are given as were asked for: orthonormal, and spanning a space that G
keeps, which of all in the eigenspace is not determined.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.linalg.lapack import dormqr, dsytrd, dsytrd_lwork
from torch import Tensor

# Up to this share of all vectors they are cheaper than a decomposition.
SHARE = 0.5


class Reduction:
    """The tridiagonal form of a symmetric matrix (n, n) float64, n ≥ 2, on the CPU."""

    def __init__(self, matrix: Tensor) -> None:
        size = len(matrix)
        # Symmetric, so its transpose in memory is LAPACK's order, columns first.
        entries = np.array(matrix.numpy()).T
        work = int(dsytrd_lwork(size, lower=1)[0])
        reflections, self.diagonal, self.off, self.scales, _ = dsytrd(
            entries, lower=1, lwork=work, overwrite_a=1
        )
        # Reflection i changes entries i + 1 and on.
        self.reflections = np.asfortranarray(reflections[1:, :-1])

    def largest(self, count: int) -> tuple[Tensor, Tensor]:
        """The largest eigenvalues, descending, (count,), and their eigenvectors, (n, count)."""
        size = len(self.diagonal)
        values, vectors = eigh_tridiagonal(
            self.diagonal,
            self.off,
            select="i",
            select_range=(size - count, size - 1),
            lapack_driver="stemr",
        )
        vectors = np.array(vectors[:, ::-1], order="F")
        lower = np.asfortranarray(vectors[1:])
        _, work, _ = dormqr("L", "N", self.reflections, self.scales, lower, -1)
        lower, _, _ = dormqr(
            "L", "N", self.reflections, self.scales, lower, int(work[0]), overwrite_c=1
        )
        vectors[1:] = lower
        found = torch.from_numpy(vectors)
        # One Newton step towards the nearest orthonormal columns: from 1e-13 to rounding.
        found = 1.5 * found - 0.5 * found @ (found.T @ found)
        return torch.from_numpy(values[::-1].copy()), found
