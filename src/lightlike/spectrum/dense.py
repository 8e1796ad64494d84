"""Exact spectra by dense decompositions in float64."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.rounding import (
    EPS,
    Rounding,
    eigenvalue_floor,
    rank_tolerance,
    worth,
)
from lightlike.spectrum.symmetric import SymmetricMatrix

# Negative eigenvalues down to this share of the largest pass for rounding.
NEGATIVE = 1e-8


def from_symmetric(
    matrix: Tensor,
    shape: tuple[int, int],
    method: str,
    precision: float = EPS,
    reason: str = "",
    rounding: Rounding | None = None,
) -> Eigenvalues:
    """The eigenvalues of an explicit symmetric positive semi-definite matrix.

    Raises:
        ValueError: if an eigenvalue is negative beyond rounding.
    """
    values = torch.linalg.eigvalsh(matrix).flip(0)
    largest = float(values[0]) if len(values) else 0.0
    floor = eigenvalue_floor(len(values), largest, rounding.reference if rounding else precision)
    floor += rounding.floor if rounding else 0.0
    # A measured bound may be exceeded in rare cases, but not by much.
    least = max(10 * floor if rounding else floor, NEGATIVE * largest)
    if len(values) and float(values[-1]) < -least:
        raise ValueError(
            f"the matrix is not positive semi-definite: its smallest eigenvalue is "
            f"{float(values[-1]):.3g}, its largest {largest:.3g}"
        )
    trace = float(matrix.diagonal().sum())
    kept = values[values > floor]
    residue = max(float(values[len(kept)]), 0.0) if len(kept) < len(values) else 0.0
    complete = len(kept) == min(shape)
    # Of an error that was measured, the floor is a bound; else it is the size of what was seen.
    certain = kept if rounding else values[values > 2 * floor]
    bounds = len(certain), len(kept) if complete else min(shape)
    if rounding:
        rounding = replace(rounding, hidden=float(values[len(kept) :].clamp_min(0.0).sum()))
    if trace == 0.0 and precision <= EPS:
        bounds = 0, 0  # ‖A‖² = 0
    kind = worth(precision)
    return Eigenvalues(
        kept, trace, shape, kind, method, floor, residue, bounds, reason, precision, rounding
    )


def from_singular_values(
    values: Tensor,
    shape: tuple[int, int],
    precision: float = EPS,
    method: str = "svd",
    reason: str = "",
    rounding: Rounding | None = None,
) -> Eigenvalues:
    """The eigenvalues of Aᵀ A from the singular values of A, each accurate to about eps s_1.

    The cut is `rank_tolerance`. A value within a factor 1.5 above or 2 below it is close to call.
    Values from a forward pass in lower precision bound the rank from below only; where that was
    held against float64, the cut is the error of the root that was found.
    """
    largest = float(values[0]) if len(values) else 0.0
    cut = rank_tolerance(shape, rounding.reference if rounding else precision) * largest
    cut += rounding.root if rounding else 0.0
    kept = int((values > cut).sum())
    lower, upper = int((values > 1.5 * cut).sum()), int((values > 0.5 * cut).sum())
    if precision > EPS:
        upper = min(shape)
    squares = values.square()
    if rounding:
        lower = kept
        rounding = replace(rounding, hidden=float(squares[kept:].sum()))
    residue = float(squares[kept]) if kept < len(values) else 0.0
    return Eigenvalues(
        squares[:kept], float(squares.sum()), shape, worth(precision), method, cut**2, residue,
        (lower, upper), reason, precision, rounding,
    )  # fmt: skip


def singular_values(matrix: Tensor) -> Tensor:
    """All min(K, D) singular values of an explicit matrix, descending.

    The longer side is first compressed by a QR factorisation, which keeps singular values to
    eps s_1 and leaves a small square problem.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    if tall.shape[0] > 1.2 * tall.shape[1]:
        tall = torch.linalg.qr(tall, mode="r").R
    values: Tensor = torch.linalg.svdvals(tall)
    return values


class DenseMatrix:
    """A positive semi-definite matrix that is at hand, without a root, as a spectrum's source.

    Args:
        matrix: Symmetric, (n, n) float64.

    Raises:
        ValueError: if an eigenvalue is negative beyond rounding.
    """

    method = "dense"
    precision = EPS

    def __init__(self, matrix: Tensor) -> None:
        self.symmetric = SymmetricMatrix(matrix)
        self.shape = (len(matrix), len(matrix))
        # A Cholesky factor of G + slack · I says that no eigenvalue is below −slack; without one
        # the eigenvalues must tell.
        largest = float(matrix.diagonal().max()) if len(matrix) else 0.0
        moved = matrix.clone()
        moved.diagonal().add_(0.5 * NEGATIVE * largest)
        if int(torch.linalg.cholesky_ex(moved).info):
            self.solve()

    def solve(self) -> Eigenvalues:
        """Compute the eigenvalues."""
        reason = "eigenvalues of the matrix itself"
        return from_symmetric(self.symmetric.entries, self.shape, self.method, reason=reason)
