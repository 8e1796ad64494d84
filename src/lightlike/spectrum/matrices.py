"""Whatever is a symmetric matrix, as an operator on float64 vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlike.spectrum.rounding import EPS


def multiplied(matrix: Any) -> Any:
    """The operator with `shape` and `@`: of tensors and arrays their entries in float64.

    Raises:
        ValueError: if it is not square.
    """
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a square matrix is needed, not {tuple(matrix.shape)}")
    if isinstance(matrix, np.ndarray):
        matrix = torch.from_numpy(np.ascontiguousarray(matrix))
    return matrix.detach().double() if isinstance(matrix, Tensor) else matrix


def precision_of(matrix: Any) -> float:
    """Rounding unit of products: the operator's `precision`, that of float64 unless it has one."""
    return max(float(getattr(matrix, "precision", EPS)), EPS)


def device_of(matrix: Any) -> torch.device:
    """Where vectors are to be: the operator's `device`, the CPU unless it has one."""
    return torch.device(getattr(matrix, "device", "cpu"))
