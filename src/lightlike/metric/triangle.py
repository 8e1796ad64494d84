"""Half a symmetric matrix: its lower triangle in panels of rows, for matrices that wait."""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.metric.buffers import empty

# Rows of a panel.
PANEL = 512


class Triangle:
    """The lower triangle of a symmetric matrix, in little more than half its memory.

    Args:
        size: Of the matrix, (size, size) float64; zero at first.
        device: Where it is.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        self.panels: list[Tensor] = []
        for start in range(0, size, PANEL):
            stop = min(start + PANEL, size)
            self.panels.append(empty(stop - start, stop, device=device).zero_())

    @staticmethod
    def nbytes(size: int) -> float:
        """Memory of a triangle."""
        return 4.0 * size * (size + PANEL)

    def add(self, matrix: Tensor) -> None:
        """Add the lower triangle of a square matrix."""
        for start, panel in zip(range(0, self.size, PANEL), self.panels, strict=True):
            panel += matrix[start : start + len(panel), : panel.shape[1]]

    def onto(self, matrix: Tensor, factor: float) -> None:
        """Add a multiple of it to the lower triangle of a square matrix."""
        for start, panel in zip(range(0, self.size, PANEL), self.panels, strict=True):
            matrix[start : start + len(panel), : panel.shape[1]].add_(panel, alpha=factor)

    def form(self, u: Tensor) -> float:
        """The quadratic form uᵀ M u for u (size,)."""
        total = 0.0
        for start, panel in zip(range(0, self.size, PANEL), self.panels, strict=True):
            mine = u[start : start + len(panel)]
            total += 2.0 * float(mine @ (panel[:, :start] @ u[:start]))
            corner = panel[:, start:].tril()
            corner = corner + corner.tril(-1).T
            total += float(mine @ (corner @ mine))
        return total

    def trace(self) -> float:
        """The sum of its diagonal."""
        return sum(
            float(panel[:, start:].diagonal().sum())
            for start, panel in zip(range(0, self.size, PANEL), self.panels, strict=True)
        )
