"""A spectrum of a positive semi-definite matrix, and the numbers that are functions of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightlike.spectrum.rounding import (
    EPS,
    Rounding,
    eigenvalue_errors,
    eigenvalue_floor,
    logdet_error,
)

__all__ = ["EPS", "Spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """Non-zero eigenvalues λ_1 ≥ λ_2 ≥ … of a positive semi-definite matrix Aᵀ A.

    Attributes:
        eigenvalues: Descending, float64, 1-D: those that are distinguishable from zero.
        trace: Σ λ of the whole matrix.
        shape: (K, D), the shape of A; (D, D) if only the matrix itself is known.
        kind: "exact" when every eigenvalue was computed in float64, "certified" when A's entries
            are of lower precision: then each eigenvalue is known to `errors`; "estimated" when
            they are means over independent sketches.
        method: The route that gave it: "gram", "metric", "svd", "sketch" or "dense".
        floor: Absolute size of eigenvalues below which rounding hides them in this route.
        residue: Largest computed eigenvalue below the cut, 0 if there is none.
        rank_bounds: Certain bounds on the number of singular values of A above the default
            tolerance of `rank`.
        reason: Why this route was taken.
        precision: Rounding unit of A's entries.
        rounding: How far A in lower precision was found from A in float64; None where it was not
            held against it.
    """

    eigenvalues: Tensor
    trace: float
    shape: tuple[int, int]
    kind: str
    method: str
    floor: float
    residue: float
    rank_bounds: tuple[int, int]
    reason: str = ""
    precision: float = EPS
    rounding: Rounding | None = None

    @property
    def base(self) -> float:
        """Error of an eigenvalue that the decomposition, or a cast inside the model, makes."""
        unit = self.precision if self.rounding is None else self.rounding.reference
        return eigenvalue_floor(min(self.shape), self.largest, unit)

    @property
    def errors(self) -> Tensor:
        """A bound on the error of each eigenvalue, as `lightlike.spectrum.rounding` derives it."""
        return eigenvalue_errors(self.eigenvalues, self.rounding, self.base)

    def logdet_error(self, scale: float) -> float:
        """A bound on the error of `logdet` by lower precision; 0 in float64."""
        if self.precision <= EPS:
            return 0.0
        missing = min(self.shape) - len(self)
        rounding = self.rounding or Rounding(0.0, 0.0, 0.0, 0.0, missing * self.residue)
        return logdet_error(self.eigenvalues, missing, scale, rounding, self.base, self.floor)

    @property
    def resolved(self) -> bool:
        """Whether the rank is decided: no eigenvalue is hidden by rounding or close to call."""
        return self.rank_bounds[0] == self.rank_bounds[1]

    @cached_property
    def largest(self) -> float:
        """λ_1, or 0 for a zero matrix."""
        return float(self.eigenvalues[0]) if len(self.eigenvalues) else 0.0

    def rank(self, tolerance: float | None = None) -> int:
        """Number of singular values s_k = √λ_k of A above tolerance · s_1.

        The default tolerance is max(K, D) · precision, as `matrix_rank` has it, or √(floor / λ_1)
        where lower precision was held against float64. It counts what this spectrum resolves;
        `rank_bounds` says what rounding may hide.
        """
        if tolerance is None:
            tolerance = self.tolerance
        return int((self.eigenvalues > tolerance**2 * self.largest).sum())

    @property
    def tolerance(self) -> float:
        """Singular values below this share of the largest count as zero, or are hidden."""
        if self.rounding is None or not self.largest:
            return max(self.shape) * self.precision
        return min(1.0, math.sqrt(self.floor / self.largest))

    def above(self, eps: float) -> int:
        """d_ε, the number of eigenvalues above eps (absolute): the significant dimensions."""
        return int((self.eigenvalues > eps).sum())

    def effective_dimension(self, tau: float) -> float:
        """MacKay's γ(τ) = Σ λ_k / (λ_k + τ); the natural τ is 1/(N σ²)."""
        return float((self.eigenvalues / (self.eigenvalues + tau)).sum())

    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ², between 1 and the rank; 0 for a zero matrix."""
        squares = float(self.eigenvalues.square().sum())
        return float(self.eigenvalues.sum()) ** 2 / squares if squares else 0.0

    def stable_rank(self) -> float:
        """Σλ / λ_1; 0 for a zero matrix."""
        return float(self.eigenvalues.sum()) / self.largest if self.largest else 0.0

    def entropy_dimension(self) -> float:
        """exp(−Σ q_k log q_k) with q = λ/Σλ; 0 for a zero matrix."""
        total = float(self.eigenvalues.sum())
        if not total:
            return 0.0
        return math.exp(float(torch.special.entr(self.eigenvalues / total).sum()))

    def logdet(self, scale: float) -> float:
        """Log det(I + scale · Aᵀ A) = Σ log(1 + scale λ_k)."""
        return float(torch.log1p(scale * self.eigenvalues).sum())

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __repr__(self) -> str:
        return (
            f"Spectrum({len(self)} eigenvalues from {self.largest:.3g}, trace {self.trace:.4g}, "
            f"{self.kind} by {self.method})"
        )
