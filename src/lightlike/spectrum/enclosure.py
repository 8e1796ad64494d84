"""Certain bounds on sums over all eigenvalues, from the leading ones and the diagonal.

Let f be concave and rising with f(0) = 0, and λ_1 … λ_k be known to ± e_i, all others at most β and
not more than m of them positive, with the sum R = tr G − λ_1 − … − λ_k. Then

    (R/β) f(β) ≤ Σ_{i>k} f(λ_i) ≤ m f(R/m),

the left by f(λ) ≥ (λ/β) f(β) on [0, β], the right by Jensen's inequality. On the right there is
another bound: with Q any orthonormal columns and P = I − Q Qᵀ, the eigenvalues of G majorise those
of QᵀGQ and of PGP together, and these the diagonal of PGP (Schur; Horn & Johnson 2012,
doi:10.1017/CBO9781139020411, 4.3.45), so that

    Σ_i f(λ_i) ≤ Σ_j f(λ_j(QᵀGQ)) + Σ_i f((PGP)_ii),

which for f = log(1 + c ·) is what Fischer and Hadamard say of determinants. The lower of the two
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightlike.spectrum.leading import Leading

Function = Callable[[Tensor], Tensor]

# A sum of float64 numbers is taken to be good to this many rounding units of it.
UNITS = 64.0


@dataclass(frozen=True)
class Enclosure:
    """A number between two certain bounds.

    Attributes:
        lower: It is no less.
        upper: It is no more.
    """

    lower: float
    upper: float

    @property
    def value(self) -> float:
        """Half way between them."""
        return 0.5 * (self.lower + self.upper)

    @property
    def error(self) -> float:
        """What `value` is off by at most."""
        return 0.5 * (self.upper - self.lower)

    def times(self, factor: float) -> Enclosure:
        """The bounds times a number, not negative."""
        return Enclosure(factor * self.lower, factor * self.upper)

    def to_dict(self) -> dict[str, float]:
        """Value and bounds, by name."""
        return {"value": self.value, "lower": self.lower, "upper": self.upper}


@dataclass(frozen=True, eq=False)
class Enclosing:
    """What is known of a symmetric positive semi-definite G (n, n), for bounds on sums.

    Attributes:
        leading: The largest eigenvalues with bounds on their errors.
        trace: tr G.
        trace_error: What rounding may have done to it.
        most: How many eigenvalues can be positive.
        inner: Eigenvalues of QᵀGQ, (k,).
        rest: The diagonal of PGP, (n,), 0 or more.
    """

    leading: Leading
    trace: float
    trace_error: float
    most: int
    inner: Tensor
    rest: Tensor

    @staticmethod
    def of(
        matrix: Any, leading: Leading, diagonal: Tensor, most: int, precision: float
    ) -> Enclosing:
        """Bounds for sums, by one product with each leading eigenvector.

        Args:
            matrix: G, with `@` on (n, c).
            leading: Its largest eigenvalues.
            diagonal: Its diagonal, exact, (n,).
            most: An upper bound on its rank.
            precision: Rounding unit of products and diagonal.
        """
        Q = leading.eigenvectors
        trace = float(diagonal.sum())
        rest, inner = diagonal, diagonal.new_zeros(0)
        if len(leading):
            image = matrix @ Q
            B = Q.T @ image
            B = 0.5 * (B + B.T)
            inner = torch.linalg.eigvalsh(B)
            rest = diagonal - 2.0 * (Q * image).sum(1) + (Q @ B * Q).sum(1)
        return Enclosing(
            leading=leading,
            trace=trace,
            trace_error=UNITS * precision * trace,
            most=most,
            inner=inner.clamp_min(0.0),
            rest=rest.clamp_min(0.0),
        )

    def sum(self, f: Function, slope: float) -> Enclosure:
        """Σ f(λ) over all eigenvalues.

        Args:
            f: Concave and rising on [0, ∞), f(0) = 0; acts entry by entry.
            slope: f′(0), the most by which an error of an eigenvalue is magnified.
        """
        values, errors = self.leading.eigenvalues, self.leading.errors
        low, high = (values - errors).clamp_min(0.0), values + errors
        beyond, others = self.leading.beyond, max(0, self.most - len(values))
        least = max(0.0, self.trace - self.trace_error - float(high.sum()))
        most = max(0.0, self.trace + self.trace_error - float(low.sum()))
        # None of the others exceeds what all of them leave.
        beyond = min(beyond, most)
        lower = float(f(low).sum())
        if beyond > 0.0 and others:
            lower += least / beyond * _at(f, beyond)
        upper = float(f(high).sum())
        if others:
            upper += others * _at(f, min(most / others, beyond))
        off = self.trace_error + 3.0 * len(values) * self.leading.noise
        majorised = float(f(self.inner).sum()) + float(f(self.rest).sum()) + slope * off
        return Enclosure(lower, max(lower, min(upper, majorised)))

    def logdet(self, scale: float) -> Enclosure:
        """Log det(I + c G) = Σ log(1 + c λ)."""
        return self.sum(lambda t: torch.log1p(scale * t), scale)

    def effective_dimension(self, tau: float) -> Enclosure:
        """MacKay's γ(τ) = Σ λ / (λ + τ)."""
        return self.sum(lambda t: t / (t + tau), 1.0 / tau)


def _at(f: Function, value: float) -> float:
    return float(f(torch.tensor(value, dtype=torch.float64)))
