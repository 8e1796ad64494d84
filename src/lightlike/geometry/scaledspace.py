"""The row space of A where some rows are faint, but none depends on others."""

from __future__ import annotations

from functools import cached_property

import torch
from scipy.linalg.lapack import dpocon
from torch import Tensor

from lightlike.geometry.gramspace import GramRowSpace, inverse_of
from lightlike.metric.root import Root
from lightlike.spectrum.decomposition import WELL_CONDITIONED, Decomposition
from lightlike.spectrum.rounding import EPS


class ScaledRowSpace(GramRowSpace):
    """A row space of full rank K from C, the correlations of A's rows, if that is well conditioned.

    With N the norms of the rows, A Aᵀ = N C N with ones on the diagonal of C = L Lᵀ. Then
    L⁻¹ N⁻¹ A has orthonormal rows, and with N L = U S Zᵀ the right singular vectors of A are
    Aᵀ N⁻¹ L⁻ᵀ Z, each to relative accuracy however small its singular value is (Demmel & Veselić
    1992, doi:10.1137/0613074). Saturated outputs make such rows.
    """

    @property
    def clear(self) -> bool:
        """Whether no vector needs to be held: always."""
        return True

    @cached_property
    def norms(self) -> Tensor:
        """Norms of A's rows, (K,)."""
        return self.decomposition.matrix.diagonal().clamp_min(0.0).sqrt()

    @cached_property
    def factor(self) -> Tensor:
        """Lower Cholesky factor L of C, with NaN where there is none."""
        scaled = self.decomposition.matrix / self.norms[:, None] / self.norms
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if int(failed):
            factor.fill_(torch.nan)
        lower: Tensor = factor
        return lower

    @cached_property
    def serves(self) -> bool:
        """Whether C is positive definite and well conditioned, and no row is lost."""
        if self.rank < self.root.shape[0] or not bool((self.norms > 0).all()):
            return False
        if not bool(torch.isfinite(self.factor).all()):
            return False
        size = len(self.norms)
        norm = float((self.factor @ self.factor.T).abs().sum(0).max())
        # LAPACK reads columns first: our lower factor is its upper one.
        reciprocal, _ = dpocon(self.factor.cpu().numpy().T, norm, uplo="U")
        return bool(size * EPS <= WELL_CONDITIONED * reciprocal)

    def inverse(self) -> Tensor:
        """N⁻¹ C⁻¹ N⁻¹."""
        return torch.cholesky_inverse(self.factor) / self.norms[:, None] / self.norms

    def solve(self, u: Tensor) -> Tensor:
        """G⁻¹ u = N⁻¹ C⁻¹ N⁻¹ u."""
        norms = self.norms[:, None]
        return torch.cholesky_solve(u / norms, self.factor) / norms

    @cached_property
    def large(self) -> tuple[Tensor, Tensor]:
        """Z (K, K) and S (K,), from N L = U S Zᵀ."""
        _, s, Z = torch.linalg.svd(self.norms[:, None] * self.factor)
        return Z.T, s

    @property
    def orthonormal(self) -> Tensor:
        """N⁻¹ L⁻ᵀ."""
        return inverse_of(self.factor).T / self.norms[:, None]

    def coefficients(self, count: int) -> Tensor:
        """The first columns of N⁻¹ L⁻ᵀ Z."""
        Z = self.large[0][:, :count]
        inner: Tensor = torch.linalg.solve_triangular(self.factor.T, Z, upper=True)
        return inner / self.norms[:, None]

    def invert(self, v: Tensor) -> Tensor:
        """V S⁻² Vᵀ v with V = Aᵀ C, without products with Aᵀ A, which hide faint rows."""
        C = self.coefficients(self.rank)
        inner = C.T @ self.root.mv(v)
        return self.root.rmv(C @ (inner / self.roots.square()[:, None]))


def by_gram(root: Root, decomposition: Decomposition) -> GramRowSpace:
    """The row space from A Aᵀ, by the cheapest way that its spectrum allows."""
    plain = GramRowSpace(root, decomposition)
    if plain.clear:
        return plain
    scaled = ScaledRowSpace(root, decomposition)
    return scaled if scaled.serves else plain
