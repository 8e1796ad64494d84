"""What estimates by random probes have in common: products with any operator, and the probes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.spectrum.matrices import check_square
from lightlike.spectrum.rounding import EPS
from lightlike.vectors import all_finite


class Operator:
    """A symmetric matrix with `shape` and `@`, asked in float64.

    Args:
        matrix: A tensor, an array, or an operator that takes tensors (n,) or (n, c).

    Raises:
        DataError: if it is not square and real.
    """

    def __init__(self, matrix: Any) -> None:
        check_square(matrix)
        if isinstance(matrix, np.ndarray):
            matrix = torch.from_numpy(np.ascontiguousarray(matrix))
        self.matrix = matrix.detach().double() if isinstance(matrix, Tensor) else matrix
        self.size = int(matrix.shape[0])
        self.device = torch.device(getattr(matrix, "device", "cpu"))
        # An operator that computes in lower precision inside says so.
        self.precision = float(getattr(matrix, "precision", EPS))
        self.products = 0
        # The largest stretch seen: products are in error by rounding of that, along any vector.
        self.largest = 0.0

    def __matmul__(self, block: Tensor) -> Tensor:
        """F X for a vector (n,) or a block (n, c), float64.

        Raises:
            EstimateError: if the product is not finite.
        """
        found = torch.as_tensor(self.matrix @ block).to(self.device, torch.float64)
        self.products += 1 if block.ndim == 1 else block.shape[1]
        if not all_finite(found):
            raise EstimateError(
                "A product with the matrix has entries that are NaN or infinite.",
                "Every number from it would be so too.",
                "Look for outputs or derivatives of the model that overflow.",
            )
        stretch = found.norm(dim=0) / block.norm(dim=0).clamp_min(1e-300)
        self.largest = max(self.largest, float(stretch.max()) if stretch.numel() else 0.0)
        return found


def generator(seed: int, index: int) -> torch.Generator:
    """A random stream of its own for every seed and index, whatever else is drawn."""
    entropy = [seed % 2**64, index]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def sphere(size: int, seed: int, indices: range, device: torch.device) -> Tensor:
    """Columns uniform on the sphere of radius √n, (n, c): E[z zᵀ] = I.

    Their zᵀ F z has a variance of 2n/(n + 2) · (tr F² − (tr F)²/n), never above that of normal
    probes.
    """
    columns = [
        torch.randn(size, generator=generator(seed, index), dtype=torch.float64)
        for index in indices
    ]
    block = torch.stack(columns, 1).to(device)
    scaled: Tensor = block * (math.sqrt(size) / block.norm(dim=0))
    return scaled


def orthogonal(block: Tensor, Q: Tensor) -> Tensor:
    """What is left of columns (n, c) when their part in the range of Q (n, k) is taken off."""
    for _ in range(2):
        block = block - Q @ (Q.T @ block)
    return block


def signs(size: int, seed: int, indices: range, device: torch.device) -> Tensor:
    """Columns of independent ±1, (n, c)."""
    columns = [
        torch.randint(0, 2, (size,), generator=generator(seed, index)).double() * 2 - 1
        for index in indices
    ]
    return torch.stack(columns, 1).to(device)
