"""Leading eigenvectors without a basis, and a search for other eigenvalues beside them.

Rounding brings eigenvectors that have converged back into the steps, most often those of the
largest eigenvalues, and every copy costs as many steps as the original did. With some of them, X
(k, n) orthonormal, taken out, steps are of P F P, P = I − XᵀX, which has no such eigenvalues. The
vectors are had by taking the steps that found them a second time, adding up.

With B = X F Xᵀ and R = ‖F Xᵀ − XᵀB‖_F, F has k eigenvalues within R of those of B, each of its
own (Kahan 1967; Parlett 1998, doi:10.1137/1.9781611971163, 11.5.1), and one within r + R of any
number that is within r of one of P F P with an eigenvector orthogonal to X.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.spectrum.distinct import originals
from lightlike.spectrum.probes import Operator
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.threeterm import ThreeTerm
from lightlike.spectrum.tridiagonal import Measure

# Columns that are computed with at once.
SLAB = 1 << 20


@dataclass(frozen=True, eq=False)
class Locked:
    """Leading eigenvectors that are taken out.

    Attributes:
        rows: X (k, n), orthonormal to their rounding; in float32 if products are.
        values: Eigenvalues of X F Xᵀ, (k,), descending.
        coupling: R, rounding of X included.
    """

    rows: Tensor
    values: Tensor
    coupling: float


class Beside:
    """P F P, in no more memory than F takes: symmetric, whatever rounding leaves along X.

    Args:
        operator: F.
        rows: X.
    """

    def __init__(self, operator: Operator, rows: Tensor) -> None:
        self.operator, self.rows = operator, rows
        self.precision = operator.precision

    @property
    def largest(self) -> float:
        """The largest stretch seen."""
        return self.operator.largest

    def __matmul__(self, v: Tensor) -> Tensor:
        """P F P v (n,); v is changed on the way, and put right again."""
        along = _times(self.rows, v).to(v.device)
        _add(self.rows, -along, v)
        image = self.operator @ v
        _add(self.rows, along, v)
        return without(self.rows, image)


def lock(
    operator: Operator, start: Tensor, measure: Measure, count: int, tolerance: float
) -> Locked:
    """Eigenvectors of the largest distinct eigenvalues that steps have found.

    Args:
        operator: F.
        start: What the steps went from.
        measure: Of the steps.
        count: How many at most.
        tolerance: Of those eigenvalues, relative to the largest.
    """
    coordinates = originals(measure, count, tolerance)
    k = coordinates.shape[1]
    kind = torch.float64 if operator.precision <= EPS else torch.float32
    rows = torch.zeros(k, len(start), dtype=kind, device=start.device)
    run = ThreeTerm(operator, start)
    for j, shares in enumerate(coordinates.tolist()):
        vector = run.vector.to(kind)
        for row, share in zip(rows, shares, strict=True):
            row.add_(vector, alpha=share)
        del vector
        if j + 1 < len(coordinates):
            run.advance()
    del run
    rows = _orthonormal(rows)
    B = torch.zeros(k, k, dtype=torch.float64)
    squares = 0.0
    for i in range(k):
        image = operator @ rows[i].double()
        B[i] = _times(rows, image)
        squares += float(without(rows, image).square().sum())
    values = torch.linalg.eigvalsh(0.5 * (B + B.T)).flip(0)
    # What entries of X and products are off by stretches at most as F does.
    top = float(values[0]) if k else 0.0
    rounding = (torch.finfo(kind).eps + operator.precision) * k * top
    return Locked(rows, values, squares**0.5 + rounding)


def without(rows: Tensor, v: Tensor) -> Tensor:
    """What of v (n,) is orthogonal to X; in place."""
    return _add(rows, -_times(rows, v).to(v.device), v)


def _add(rows: Tensor, along: Tensor, v: Tensor) -> Tensor:
    """Add Xᵀ a to v (n,), in place."""
    for part, piece in zip(torch.split(rows, SLAB, 1), torch.split(v, SLAB), strict=True):
        piece.add_(along @ part.double())
    return v


def _times(rows: Tensor, v: Tensor) -> Tensor:
    """X v, (k,), in float64."""
    found = torch.zeros(len(rows), dtype=torch.float64, device=v.device)
    for part, piece in zip(torch.split(rows, SLAB, 1), torch.split(v, SLAB), strict=True):
        found += part.double() @ piece
    return found.cpu()


def _orthonormal(rows: Tensor) -> Tensor:
    """An orthonormal basis of the rows, in their place; they are nearly so."""
    for _ in range(2):
        gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
        for part in torch.split(rows, SLAB, 1):
            gram += part.double() @ part.double().T
        L = torch.linalg.cholesky(gram)
        for part in torch.split(rows, SLAB, 1):
            part.copy_(torch.linalg.solve_triangular(L, part.double(), upper=False))
    return rows
