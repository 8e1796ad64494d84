"""Exact spectra by dense decompositions in float64."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lightlike.spectrum.rounding import EPS, Rounding, eigenvalue_floor
from lightlike.spectrum.spectrum import Spectrum

__all__ = ["eigenvalue_floor", "from_singular_values", "from_symmetric", "singular_values"]


def from_symmetric(
    matrix: Tensor,
    shape: tuple[int, int],
    method: str,
    precision: float = EPS,
    reason: str = "",
    rounding: Rounding | None = None,
) -> Spectrum:
    """The spectrum of an explicit symmetric positive semi-definite matrix.

    Raises:
        ValueError: if an eigenvalue is negative beyond rounding.
    """
    values = torch.linalg.eigvalsh(matrix).flip(0)
    largest = float(values[0]) if len(values) else 0.0
    floor = eigenvalue_floor(len(values), largest, rounding.reference if rounding else precision)
    floor += rounding.floor if rounding else 0.0
    # A measured bound may be exceeded in rare cases; a matrix that is not what it should be is not
    # so by a little.
    least = max(10 * floor if rounding else floor, 1e-8 * largest)
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
    return Spectrum(
        kept, trace, shape, kind, method, floor, residue, bounds, reason, precision, rounding
    )


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
    rounding: Rounding | None = None,
) -> Spectrum:
    """The spectrum of Aᵀ A from the singular values of A, each accurate to about eps s_1.

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
    return Spectrum(
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
