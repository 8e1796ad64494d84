"""Whatever is a symmetric matrix, as an operator on float64 vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import DataError
from lightlike.spectrum.rounding import EPS
from lightlike.vectors import read_real


def check_square(matrix: Any) -> None:
    """Raise a DataError unless it is a square matrix or operator, of real entries.

    Their kind is looked at where they are at hand: in a tensor or an array.
    """
    shape = getattr(matrix, "shape", None)
    if not isinstance(shape, tuple) or not hasattr(matrix, "__matmul__"):
        raise DataError(
            f"A matrix is needed, not a {type(matrix).__name__}.",
            "There is nothing that multiplies a vector.",
            "Give a Fisher matrix, a tensor, a NumPy array or an operator with `shape` and `@`.",
        )
    if len(shape) != 2 or shape[0] != shape[1]:
        raise DataError(
            f"A square matrix is needed, not one of shape {tuple(shape)}.",
            "Eigenvalues are those of a symmetric matrix.",
            "Give AᵀA for a root A, or another symmetric matrix.",
        )
    if isinstance(matrix, Tensor | np.ndarray):
        read_real(matrix, "The matrix", DataError)


def multiplied(matrix: Any) -> Any:
    """The operator with `shape` and `@`: of tensors and arrays their entries in float64.

    Raises:
        DataError: if it is not square and real.
    """
    check_square(matrix)
    if isinstance(matrix, np.ndarray):
        matrix = torch.from_numpy(np.ascontiguousarray(matrix))
    return matrix.detach().double() if isinstance(matrix, Tensor) else matrix


def precision_of(matrix: Any) -> float:
    """Rounding unit of products: the operator's `precision`, that of float64 unless it has one."""
    return max(float(getattr(matrix, "precision", EPS)), EPS)


def device_of(matrix: Any) -> torch.device:
    """Where vectors are to be: the operator's `device`, the CPU unless it has one."""
    return torch.device(getattr(matrix, "device", "cpu"))
