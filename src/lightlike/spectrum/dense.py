"""Exact spectra by dense decompositions in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightlike.spectrum.spectrum import EPS, Spectrum


def eigenvalue_floor(size: int, largest: float, precision: float = EPS) -> float:
    """Absolute error of the eigenvalues of an explicit n × n matrix: about √n eps λ_1, doubled.

    Rounding of the entries and of the decomposition are both of the order eps λ_1; over random
    and trained networks the largest error seen stays below this.
    """
    return 10.0 * math.sqrt(size) * precision * largest


def from_symmetric(
    matrix: Tensor, shape: tuple[int, int], method: str, precision: float = EPS, reason: str = ""
) -> Spectrum:
    """The spectrum of an explicit symmetric positive semi-definite matrix.

    Raises:
        ValueError: if an eigenvalue is negative beyond rounding.
    """
    values = torch.linalg.eigvalsh(matrix).flip(0)
    largest = float(values[0]) if len(values) else 0.0
    floor = eigenvalue_floor(len(values), largest, precision)
    if len(values) and float(values[-1]) < -max(floor, 1e-8 * largest):
        raise ValueError(
            f"the matrix is not positive semi-definite: its smallest eigenvalue is "
            f"{float(values[-1]):.3g}, its largest {largest:.3g}"
        )
    trace = float(matrix.diagonal().sum())
    kept = values[values > floor]
    residue = max(float(values[len(kept)]), 0.0) if len(kept) < len(values) else 0.0
    complete = len(kept) == min(shape)
    bounds = int((values > 2 * floor).sum()), len(kept) if complete else min(shape)
    if trace == 0.0 and precision <= EPS:
        bounds = 0, 0  # ‖A‖² = 0
    kind = worth(precision)
    return Spectrum(kept, trace, shape, kind, method, floor, residue, bounds, reason, precision)


def worth(precision: float) -> str:
    """Kind of an eigenvalue: exact in float64, certified up to its floor in lower precision."""
    return "exact" if precision <= EPS else "certified"


def rank_tolerance(shape: tuple[int, int], precision: float = EPS) -> float:
    """max(K, D) · eps: singular values below this share of the largest count as zero."""
    return max(shape) * precision


def from_singular_values(
    values: Tensor,
    shape: tuple[int, int],
    precision: float = EPS,
    method: str = "svd",
    reason: str = "",
) -> Spectrum:
    """The spectrum of Aᵀ A from the singular values of A, each accurate to about eps s_1.

    The cut is `rank_tolerance`. A value within a factor 1.5 above or 2 below it is close to call.
    Values from a forward pass in lower precision bound the rank from below only.
    """
    largest = float(values[0]) if len(values) else 0.0
    cut = rank_tolerance(shape, precision) * largest
    kept = int((values > cut).sum())
    lower, upper = int((values > 1.5 * cut).sum()), int((values > 0.5 * cut).sum())
    if precision > EPS:
        upper = min(shape)
    squares = values.square()
    residue = float(squares[kept]) if kept < len(values) else 0.0
    return Spectrum(
        squares[:kept], float(squares.sum()), shape, worth(precision), method, cut**2, residue,
        (lower, upper), reason, precision,
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
