"""Cholesky factors in place, for matrices of which there is room for one."""

from __future__ import annotations

import torch
from scipy.linalg.lapack import dpotrf, dpotrs
from torch import Tensor

from lightlike.errors import EstimateError


def cholesky(matrix: Tensor, scale: float) -> Tensor:
    """The Cholesky factor of a positive definite matrix whose lower triangle is given, in place.

    Raises:
        EstimateError: if rounding leaves the matrix indefinite.
    """
    if matrix.device.type == "cpu":
        # LAPACK reads columns first: our lower triangle is its upper one.
        found, failed = dpotrf(matrix.numpy().T, lower=0, clean=0, overwrite_a=1)
        factor = torch.from_numpy(found.T)
    else:
        factor, info = torch.linalg.cholesky_ex(matrix)
        failed = int(info)
    if failed:
        raise EstimateError(
            f"I + {scale:.3g} A Aᵀ from a sample of columns has no Cholesky factor in float64.",
            "Its largest eigenvalue is more than 1e15 times its smallest, or a number is not "
            "finite.",
            "Use a smaller prior variance.",
        )
    return factor


def logdet_of(factor: Tensor) -> float:
    """Log det L Lᵀ."""
    return 2.0 * float(factor.diagonal().log().sum())


def solve(factor: Tensor, right: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹ times one vector, for L from `cholesky`; no copy of L on a CPU."""
    if factor.device.type != "cpu":
        return torch.cholesky_solve(right[:, None], factor)[:, 0]
    found, _ = dpotrs(factor.numpy().T, right.numpy(), lower=0)
    return torch.from_numpy(found)
