"""What an explicit positive semi-definite matrix tells without its eigenvalues."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from scipy.linalg.lapack import dpotrf, dtrtri
from torch import Tensor

from lightlike.errors import ConsistencyError
from lightlike.spectrum.inertia import Count, count_above
from lightlike.spectrum.rounding import EPS, Rounding, eigenvalue_error, eigenvalue_floor

# Largest relative error of a number that is taken from a factorisation in place of eigenvalues.
ACCURACY = 1e-10
# A bound this many times the error of an eigenvalue is told from zero by a factorisation.
CLEAR = 4.0
# Norms whose squares neither overflow nor vanish.
PLAIN = (1e-140, 1e140)


class SymmetricMatrix:
    """An explicit positive semi-definite matrix G, (n, n) float64.

    Args:
        entries: G, both triangles.
        precision: Rounding unit of its entries.
        rounding: How far they were found from float64.
    """

    def __init__(
        self, entries: Tensor, precision: float = EPS, rounding: Rounding | None = None
    ) -> None:
        self.entries, self.precision, self.rounding = entries, precision, rounding

    @cached_property
    def trace(self) -> float:
        """Σ λ."""
        return float(self.entries.diagonal().sum())

    @cached_property
    def norm(self) -> float:
        """√Σ λ², the Frobenius norm; an upper bound of λ_1."""
        norm = float(torch.linalg.vector_norm(self.entries)) if len(self.entries) else 0.0
        # The largest entry of a positive semi-definite matrix is on its diagonal.
        largest = float(self.entries.diagonal().max()) if len(self.entries) else 0.0
        if PLAIN[0] < norm < PLAIN[1] or not largest:
            return norm
        return largest * float(torch.linalg.vector_norm(self.entries / largest))

    @property
    def error(self) -> float:
        """What rounding can move an eigenvalue by, at most."""
        found = self.rounding
        unit = self.precision if found is None else found.reference
        plain = eigenvalue_floor(len(self.entries), self.norm, unit)
        return plain if found is None else eigenvalue_error(self.norm, found, plain)

    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ²; 0 for a zero matrix."""
        return (self.trace / self.norm) ** 2 if self.norm else 0.0

    def count(self, above: float, most: int) -> Count | None:
        """How many of at most `most` positive eigenvalues exceed a bound, by inertia.

        None if the bound is so low that a factorisation cannot tell it from zero.
        """
        if not above > CLEAR * self.error:
            return None
        return count_above(self.entries, above, self.error, most)

    def shifted(self, scale: float) -> Shifted:
        """I + scale · G, scale ≥ 0."""
        return Shifted(self, scale)


class Shifted:
    """S = I + c G by its Cholesky factorisation S = L Lᵀ, done once, when something asks for it.

    Rounding of G and of the factorisation act as a perturbation E of S with entries of the order
    eps max_k S_kk. It moves log det S by tr(S⁻¹E) and tr S⁻¹ by −tr(S⁻²E): by about
    eps max_k S_kk ‖S⁻¹‖_F ≤ √n eps (1 + c ‖G‖_F) while errors of the entries are independent. Where
    four times that is more than 1e-10 of a number, it is None, and eigenvalues are needed.
    """

    def __init__(self, matrix: SymmetricMatrix, scale: float) -> None:
        self.matrix, self.scale = matrix, scale

    @property
    def condition(self) -> float:
        """An upper bound of the condition number of S: 1 + c ‖G‖_F."""
        return 1.0 + self.scale * self.matrix.norm

    @property
    def rounding(self) -> float:
        """What E makes of xᵀS x for a unit vector x."""
        return 4.0 * self.matrix.precision * self.condition

    @property
    def error(self) -> float:
        """Bound on the error of `logdet` and `soft_count`."""
        n = len(self.matrix.entries)
        return 2.0 * math.sqrt(n) * self.rounding + n * EPS

    @cached_property
    def factor(self) -> Tensor:
        """L, lower triangular."""
        system = self.scale * self.matrix.entries
        system.diagonal().add_(1.0)
        return cholesky(system)

    def solve(self, u: Tensor) -> Tensor:
        """S⁻¹ u for a block (n, c)."""
        # Transposed it is as LAPACK reads it, columns first.
        return torch.cholesky_solve(u, self.factor.mT, upper=True)

    @cached_property
    def logdet(self) -> float | None:
        """Log det(I + c G) = 2 Σ log L_kk."""
        if not self.matrix.trace:
            return 0.0
        # log det S ≤ n log(tr S / n): nothing is factorised in vain.
        n = len(self.matrix.entries)
        if not self._accurate(n * math.log1p(self.scale * self.matrix.trace / n)):
            return None
        value = 2.0 * float(self.factor.diagonal().log().sum())
        return value if self._accurate(value) else None

    @cached_property
    def soft_count(self) -> float | None:
        """γ = Σ c λ / (1 + c λ) = n − tr S⁻¹ = Σ_j (1 − |L⁻¹ e_j|²)."""
        if not self.matrix.trace:
            return 0.0
        if not self._accurate(min(self.scale * self.matrix.trace, len(self.matrix.entries))):
            return None
        # LAPACK reads columns first: our lower factor is its upper one.
        inverse, _ = dtrtri(self.factor.cpu().numpy().T, lower=0)
        value = float((1.0 - np.einsum("ij,ij->i", inverse, inverse)).sum())
        return value if self._accurate(value) else None

    def _accurate(self, value: float) -> bool:
        return self.matrix.precision <= EPS and self.error <= ACCURACY * value


def cholesky(system: Tensor) -> Tensor:
    """The lower Cholesky factor of a positive definite matrix, which is overwritten.

    On the CPU by LAPACK through SciPy, which works in place and took two thirds of the time of
    `torch.linalg.cholesky` at n = 4,500.

    Raises:
        ConsistencyError: if the matrix is not positive definite.
    """
    if system.device.type == "cpu" and len(system):
        # LAPACK reads columns first: its upper factor is our lower one.
        upper, failed = dpotrf(system.numpy().T, lower=0, overwrite_a=1, clean=1)
        factor = torch.from_numpy(upper.T)
    else:
        factor, failed = torch.linalg.cholesky_ex(system)
    if int(failed):
        raise ConsistencyError(
            f"I + c G is not positive definite (leading minor {int(failed)} of {len(system)}).",
            "A matrix G = A Aᵀ has no negative eigenvalues, so rounding has taken over.",
            "Give a smaller scale: a smaller prior variance, or fewer observations.",
        )
    return factor
