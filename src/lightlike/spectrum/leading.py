"""Bounds on leading eigenvalues from approximate eigenpairs and their residuals.

Let X (D, K) be orthonormal, Xᵀ A X = diag(θ) in descending order, residuals A X − X diag(θ) with
columns of length r, and no eigenvalue of P A P, P = I − X Xᵀ, above μ. Then

- λ_i ≥ θ_i (Cauchy's interlacing);
- with R_j² = r_1² + … + r_j² and C_j the part of A beyond the first j vectors, ‖C_j‖ is at most
  o_j, the largest eigenvalue of the 2 × 2 matrix with θ_{j+1} and μ on its diagonal and
  √(r_{j+1}² + … + r_K²) beside it; so λ_i ≤ θ_i + R_j + max(0, o_j − θ_i) for every j ≥ i (Weyl
  1912, doi:10.1007/BF01456804), and λ_i ≤ θ_i + R_j² / (θ_i − o_j) where o_j < θ_i: an
  eigenvalue λ > o_j of A is one of diag(θ_1..θ_j) + S, where the Schur complement S has
  0 ≤ S ≤ R_j² / (λ − o_j) (as in Mathias 1998, doi:10.1137/S0895479897323282).

A cluster is so bounded by the gap behind it. Products that are off by up to η for unit vectors add
η to R_j, o_j and, on both sides, to the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightlike.results import Result, fields_of

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Leading(Result):
    """The largest eigenvalues of a symmetric positive semi-definite matrix, and their vectors.

    Attributes:
        eigenvalues: λ_1 ≥ … ≥ λ_k, (k,) float64; k is less than was asked for where the matrix is
            smaller, or its rank within the errors.
        eigenvectors: Orthonormal, in columns (D, k) float64.
        residuals: |A x − λ x| of each pair, from the recurrence in float64.
        errors: A bound on the error of each eigenvalue: by residuals and gaps, plus `noise`.
        converged: Of each, whether residuals and gaps bound its error by tolerance · λ_1.
        beyond: No other eigenvalue exceeds it.
        noise: What products may be off by for a unit vector.
        chance: Probability at most that `errors` and `beyond` do not hold, because a random start
            has missed an eigenvalue.
        tolerance: Relative to λ_1.
        products: Products with one vector.
        reasons: What was done, in order.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    residuals: Tensor
    errors: Tensor
    converged: Tensor
    beyond: float
    noise: float
    chance: float
    tolerance: float
    products: int
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; all but the vectors."""
        return fields_of(self, "eigenvectors")

    def _records(self) -> list[dict[str, Any]]:
        columns = (self.eigenvalues, self.residuals, self.errors, self.converged)
        names = "eigenvalue", "residual", "error", "converged"
        return [
            dict(zip(names, row, strict=True))
            for row in zip(*(column.tolist() for column in columns), strict=True)
        ]

    @property
    def largest(self) -> float:
        """λ_1, or 0 for a zero matrix."""
        return float(self.eigenvalues[0]) if len(self.eigenvalues) else 0.0

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __repr__(self) -> str:
        most = float(self.errors.max()) if len(self) else 0.0
        return (
            f"Leading({len(self)} eigenvalues from {self.largest:.6g}, each to {most:.1g}, others "
            f"up to {self.beyond:.3g}, {self.products} products)"
        )


def errors_of(
    values: Vector, residuals: Vector, unseen: float, count: int, noise: float = 0.0
) -> tuple[Vector, float]:
    """Bounds on the errors of the first eigenvalues and on all the others.

    Args:
        values: θ, descending, (K,).
        residuals: r, (K,).
        unseen: μ.
        count: k ≤ K, of how many.
        noise: η.

    Returns:
        Errors (k,), and a bound on λ_{k+1}.
    """
    if not len(values):
        return np.zeros(0), unseen + noise
    squares = np.cumsum(np.square(residuals))
    reach = np.sqrt(squares) + noise
    after = np.append(values[1:], unseen)
    between = np.maximum(squares[-1] - squares, 0.0)
    outside = (after + unseen) / 2 + np.sqrt(np.square((after - unseen) / 2) + between) + noise
    # One more than is asked for bounds what comes next.
    rows = min(count + 1, len(values))
    gap = values[:rows, None] - outside
    bounds = reach + np.maximum(-gap, 0.0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        quadratic = np.where(gap > 0.0, reach**2 / gap, np.inf)
    bounds = np.minimum(bounds, quadratic)
    # A set of vectors bounds those eigenvalues only that it holds.
    bounds[np.tril_indices(rows, -1, len(values))] = np.inf
    found = bounds.min(axis=1) + noise
    rest = np.inf
    if count:
        rest = outside[count - 1] + reach[count - 1] + noise
    if rows > count:
        rest = min(rest, values[count] + found[count])
    return found[:count], float(rest)


def within(values: Vector, residuals: Vector, unseen: float, count: int, allowed: float) -> bool:
    """Whether residuals and gaps bound the errors of the first eigenvalues; see `errors_of`."""
    if len(values) < count:
        return False
    return bool((errors_of(values, residuals, max(unseen, 0.0), count)[0] <= allowed).all())
