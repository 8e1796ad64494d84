"""The row space of A and what lies outside it, in Euclidean coordinates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from lightlike.errors import CapacityError, ConsistencyError
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.geometry.share import entries_of
from lightlike.metric.root import Root
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.memory import available_memory, format_bytes
from lightlike.spectrum.reduction import SHARE
from lightlike.spectrum.rounding import EPS, SMALL

# Columns that are projected at a time.
WIDTH = 256


class RowSpace(ABC):
    """rowspace(A) ⊂ R^D, of dimension d = rank A, with singular vectors v_k = Aᵀ u_k / s_k.

    Attributes:
        root: A, K × D.
        tolerance: ‖A r‖ / (s_1 ‖v‖) up to which r counts as the part of v outside.
        known: Whether the rank is known without computing anything more.
        method: The route: "gram", "metric", "svd" or "iterative".
    """

    known: bool
    method: str

    def __init__(self, root: Root, tolerance: float) -> None:
        self.root, self.tolerance = root, tolerance

    @property
    @abstractmethod
    def certificate(self) -> Dimension:
        """The rank d with its bounds."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """s_1, the largest singular value of A; 0 if A = 0."""

    @property
    @abstractmethod
    def singular_values(self) -> Tensor:
        """s_1 ≥ … ≥ s_d, (d,)."""

    @abstractmethod
    def remove(self, v: Tensor) -> tuple[Tensor, int]:
        """What is left of v (D, c) outside, and the steps that it took."""

    @abstractmethod
    def basis(self, count: int) -> Tensor:
        """The first singular vectors, orthonormal, (D, count).

        Of singular values that agree to rounding, any orthonormal vectors of their common space.
        """

    @abstractmethod
    def complement(self) -> Tensor:
        """An orthonormal basis of what lies outside, (D, D − d)."""

    @abstractmethod
    def leverages(self) -> Tensor:
        """Diagonal of the projector on the row space, (D,)."""

    def traces(self) -> dict[str, float]:
        """Sums of `leverages` over each layer's coordinates."""
        diagonal = self.leverages()
        if self.root.layer is not None:
            return {self.root.layer: float(diagonal.sum())}
        return {
            name: sum(float(diagonal[e.start : e.stop].sum()) for e in entries)
            for name, entries in entries_of(self.root).items()
        }

    @abstractmethod
    def invert(self, v: Tensor) -> Tensor:
        """(Aᵀ A)⁺ v for a block (D, c)."""

    @property
    def turning(self) -> float:
        """The angle by which rounding may turn the row space: tolerance · s_1/s_d."""
        if not self.rank:
            return self.tolerance
        return self.tolerance * self.largest / float(self.singular_values[-1])

    @property
    def rank(self) -> int:
        """The rank d of A."""
        return int(self.certificate)

    def outside(self, v: Tensor) -> tuple[Tensor, float, int]:
        """What is left of v (D, c) outside the row space, held against A itself.

        Returns:
            r = v − P v; the largest ‖A r‖ / (s_1 ‖v‖) of the columns; and the steps.

        Raises:
            ConsistencyError: if that residual is above the tolerance.
        """
        left, worst, most = [], 0.0, 0
        for columns in torch.split(v, WIDTH, 1):
            rest, steps = self.remove(columns)
            left.append(rest)
            residual = float(self.residuals(rest, columns).max()) if columns.shape[1] else 0.0
            worst, most = max(worst, residual), max(most, steps)
        if worst > self.tolerance:
            raise ConsistencyError(
                f"After {most} steps the part outside the row space still has ‖A r‖ = "
                f"{worst:.2g} s_1 ‖v‖, above the tolerance {self.tolerance:.2g}.",
                "It would not be a direction that changes no prediction.",
                "Allow a larger tolerance=..., more steps=... of the iterative method, or more "
                "memory=... for an exact one.",
            )
        return torch.cat(left, 1), worst, most

    def residuals(self, rest: Tensor, v: Tensor) -> Tensor:
        """‖A r‖ / (s_1 ‖v‖) of each column; 0 where v = 0 or A = 0."""
        scale = self.largest * v.norm(dim=0)
        return torch.nan_to_num(self.root.mv(rest).norm(dim=0) / scale, nan=0.0)


class ExactRowSpace(RowSpace):
    """A row space from an exact decomposition, whose rank is that of the spectrum.

    Args:
        root: A.
        decomposition: Of A.

    Raises:
        CapacityError: if the rank is open because its refinement does not fit in memory.
    """

    known = True

    def __init__(self, root: Root, decomposition: Decomposition) -> None:
        self.decomposition, self.method = decomposition, decomposition.method
        spectrum = decomposition.spectrum
        unrefined = decomposition.method != "svd" and spectrum.values is decomposition.first
        if unrefined and not spectrum.resolved:
            low, high = spectrum.rank_bounds
            raise CapacityError(
                f"The rank is open between {low:,} and {high:,}: small singular values of the "
                f"{root.shape[0]:,} × {root.shape[1]:,} root are hidden by rounding, and their "
                f"refinement does not fit in {format_bytes(decomposition.budget)}.",
                "Which directions belong to the radical would be guessed.",
                "Raise memory=..., measure fewer observations, or use method='iterative'.",
            )
        # Directions that the rank does not count are left outside, and have up to twice the cut.
        super().__init__(root, 2 * max(spectrum.tolerance, 8 * EPS))

    @cached_property
    def certificate(self) -> Dimension:
        """The rank d with its bounds."""
        return dimension_of(self.decomposition.spectrum)

    @cached_property
    def largest(self) -> float:
        """s_1."""
        return math.sqrt(self.decomposition.spectrum.largest)

    @cached_property
    def singular_values(self) -> Tensor:
        """s_1 ≥ … ≥ s_d."""
        return self.decomposition.spectrum.eigenvalues[: self.rank].sqrt()


class ExplicitRowSpace(ExactRowSpace):
    """A row space whose d singular vectors are held: from Aᵀ A, or from A itself."""

    @cached_property
    def vectors(self) -> Tensor:
        """All D or K right singular vectors, (D, min(K, D)), in descending order.

        Of Aᵀ A, eigenvectors of small eigenvalues have a little of large ones mixed in, of the
        order eps λ_1/λ_j of v_j, which A makes large. What Vᵀ Aᵀ A V_? is instead of 0 measures it;
        it is removed twice, and the large ones are then made orthogonal to the small ones, not the
        other way.
        """
        if self.decomposition.method == "svd":
            written: Tensor = torch.linalg.svd(self.root.dense(), full_matrices=False)[2].T
            return written
        values, vectors = self.decomposition.vectors
        few = int((values <= SMALL * values[-1]).sum())
        small, large = vectors[:, :few], vectors[:, few:]
        if not few or few == len(values):
            return vectors.flip(1)
        for _ in range(2):
            image = self.root.rmv(self.root.mv(small))
            small = torch.linalg.qr(small - large @ ((large.T @ image) / values[few:, None])).Q
        # Its singular vectors, in descending order.
        compressed = torch.linalg.qr(self.root.mv(small), mode="r").R
        small = small @ torch.linalg.svd(compressed, full_matrices=True)[2].T
        large = large.flip(1)
        for _ in range(2):
            large = large - small @ (small.T @ large)
            factor = torch.linalg.cholesky(large.T @ large)
            large = torch.linalg.solve_triangular(factor, large.T, upper=False).T
        return torch.cat([large, small], 1)

    def remove(self, v: Tensor) -> tuple[Tensor, int]:
        """By V Vᵀ, twice: the second time takes away what rounding left."""
        inside = self.vectors[:, : self.rank]
        for _ in range(2):
            v = v - inside @ (inside.T @ v)
        return v, 2

    def basis(self, count: int) -> Tensor:
        """The first singular vectors; of Aᵀ A no others where they are few and large.

        Then A takes out what rounding has mixed in of the radical, v_k = Aᵀ A v_k / λ_k, and a
        Cholesky factor what of larger ones is in smaller.
        """
        known = "vectors" in vars(self) or self.decomposition.method == "svd"
        above = self.singular_values > SMALL**0.5 * self.largest
        if known or not count or count > min(int(above.sum()), SHARE * self.root.shape[1]):
            return oriented(self.vectors[:, :count])
        values, vectors = self.decomposition.leading(count)
        found = self.root.rmv(self.root.mv(vectors)) / values
        return oriented(whitened(found))

    def complement(self) -> Tensor:
        """The other singular vectors, or from a QR factorisation if A has fewer rows."""
        if self.vectors.shape[1] == self.root.shape[1]:
            return self.vectors[:, self.rank :].clone()
        return orthogonal_complement(self.vectors[:, : self.rank])

    def leverages(self) -> Tensor:
        """Sums of squares."""
        return self.vectors[:, : self.rank].square().sum(1)

    def invert(self, v: Tensor) -> Tensor:
        """V S⁻² Vᵀ v."""
        inside = self.vectors[:, : self.rank]
        return inside @ ((inside.T @ v) / self.singular_values.square()[:, None])


def whitened(columns: Tensor) -> Tensor:
    """Columns (D, c) made orthonormal in their order, by the inverse of a Cholesky factor."""
    factor = torch.linalg.cholesky(columns.T @ columns)
    rows: Tensor = torch.linalg.solve_triangular(factor, columns.T, upper=False)
    return rows.T


def oriented(columns: Tensor) -> Tensor:
    """The same with the signs for which their products with one drawn vector are not negative.

    So a singular vector is the same one however many are asked for.
    """
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(columns), generator=random, dtype=torch.float64).to(columns)
    return columns * torch.where(drawn @ columns < 0, -1.0, 1.0)


def orthogonal_complement(basis: Tensor) -> Tensor:
    """An orthonormal basis (D, D − d) of what is orthogonal to an orthonormal one (D, d).

    Raises:
        CapacityError: if the D × D matrix that it comes from does not fit in memory.
    """
    size, rank = basis.shape
    need, there = 8.0 * 3 * size**2, available_memory()
    if need > there:
        raise no_room_for_complement(size, rank, need, there)
    whole: Tensor = torch.linalg.qr(basis, mode="complete").Q
    return whole[:, rank:]


def no_room_for_complement(size: int, rank: int, need: float, there: float) -> CapacityError:
    """The error for a basis of the radical that does not fit."""
    return CapacityError(
        f"A basis of the radical, {size:,} × {size - rank:,}, needs {format_bytes(need)} of the "
        f"{format_bytes(there)} that are there.",
        "It would swap or be killed half-way.",
        "Project vectors with radical.project(v) instead, which needs no basis, or select "
        "fewer parameters with parameters=....",
    )
