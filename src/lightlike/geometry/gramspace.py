"""The row space of A from A Aᵀ, without ever holding A or a D × D matrix.

With M near the pseudo-inverse of G = A Aᵀ, P₀ = Aᵀ M A is near the projector on the row space,
and steps r ← r − P₀ r take out of a vector what lies in it: A r shrinks by I − G M each time, and
what is subtracted is a combination of A's rows whatever M is. Each step costs one product with A
and one with Aᵀ, and A r itself says when it is enough.

- Where the smallest non-zero eigenvalue λ_d is well above the rounding τ of G, M = (G + τI)⁻¹ from
  one Cholesky factorisation serves, whatever the rank: A r shrinks by τ/(λ_d + τ), and A's null
  vectors on the left never enter it (iterated Tikhonov regularisation, e.g. Engl, Hanke & Neubauer
  1996, §5.1).
- Where it is not, eigenvectors U of G serve: M = U Λ⁻¹ Uᵀ on the large ones. Of the small ones,
  the singular vectors W of Aᵀ U_? in R^D are held; there what rounding has mixed in of the large
  ones is projected away, which leaves an error of the order eps s_1 (see
  `lightlike.spectrum.decomposition`).
"""

from __future__ import annotations

from functools import cached_property

import torch
from scipy.linalg.lapack import dtrtri
from torch import Tensor

from lightlike.errors import CapacityError
from lightlike.geometry.rowspace import (
    WIDTH,
    ExactRowSpace,
    no_room_for_complement,
    oriented,
    orthogonal_complement,
    whitened,
)
from lightlike.geometry.share import entries_of
from lightlike.metric.lengths import squared_lengths
from lightlike.spectrum.decomposition import CLOSE
from lightlike.spectrum.memory import available_memory, format_bytes
from lightlike.spectrum.rounding import EPS, SMALL, eigenvalue_floor

# λ_d above this many times the rounding of the Gram matrix: ten steps take A r to eps.
CLEAR = 100.0
# Steps at most; they end when A r no longer falls, or is as small as rounding of A r itself.
STEPS = 40
# What a residual must fall by in a step for another one to be made.
FALLING = 0.7
# Deviation from orthonormality that leverages may have.
ACCURATE = 1e-9
# Share of the dimension that rounding may move between layers.
SHARED = 1e-7


class GramRowSpace(ExactRowSpace):
    """A row space of which K × K matrices are held, and D × few where the spectrum needs it."""

    @cached_property
    def floor(self) -> float:
        """τ, the rounding of G and of its factorisations."""
        return eigenvalue_floor(self.root.shape[0], self.largest**2)

    @property
    def clear(self) -> bool:
        """Whether no eigenvalue that counts is near rounding."""
        return not self.rank or float(self.singular_values[-1]) ** 2 >= CLEAR * self.floor

    @cached_property
    def factor(self) -> Tensor:
        """Lower Cholesky factor of G + τI, or of G if it is regular."""
        shifted = self.decomposition.matrix.clone()
        if self.rank < len(shifted):
            shifted.diagonal().add_(self.floor)
        factor: Tensor = torch.linalg.cholesky(shifted)
        return factor

    @cached_property
    def large(self) -> tuple[Tensor, Tensor]:
        """Eigenvectors (K, n) of the large eigenvalues, descending, and their square roots.

        All that the rank counts where they are clear of rounding.
        """
        values, vectors = self.decomposition.vectors
        n = self.rank if self.clear else len(values) - self.few
        return vectors[:, len(values) - n :].flip(1), values[len(values) - n :].flip(0).sqrt()

    @cached_property
    def few(self) -> int:
        """How many eigenvalues of G are refined in R^D: all that rounding touches if they fit.

        Raises:
            CapacityError: if not even those that are close to call fit.
        """
        values = self.decomposition.vectors[0]
        columns, budget = self.root.shape[1], self.decomposition.budget
        for share in (SMALL, CLOSE * self.floor / self.largest**2):
            few = int((values <= share * values[-1]).sum())
            if (need := 8.0 * 5 * columns * few) <= budget:
                return few
        raise CapacityError(
            f"{few:,} singular values of the {self.root.shape[0]:,} × {columns:,} root are near "
            f"rounding; their singular vectors need {format_bytes(need)} of "
            f"{format_bytes(budget)}.",
            "Without them directions of the screen would be taken for the radical's.",
            "Raise memory=..., measure fewer observations, or use method='iterative'.",
        )

    @cached_property
    def small(self) -> tuple[Tensor, Tensor]:
        """Right singular vectors W (D, d − n) of the others, and their singular values."""
        columns = self.root.shape[1]
        if self.clear:
            return self.decomposition.matrix.new_zeros(columns, 0), self.singular_values[:0]
        vectors = self.decomposition.vectors[1][:, : self.few]
        pulled = torch.cat([self.root.rmv(part) for part in torch.split(vectors, WIDTH, 1)], 1)
        empty = pulled[:, :0]
        pulled, _ = self.sweep_out(pulled, empty)
        W, s, _ = torch.linalg.svd(pulled, full_matrices=False)
        wanted = self.rank - self.large[0].shape[1]
        # Once more: division by small singular values has magnified what was left.
        W, _ = self.sweep_out(W[:, :wanted], empty)
        return torch.linalg.qr(W).Q, s[:wanted]

    def solve(self, u: Tensor) -> Tensor:
        """M u for a block (K, c)."""
        if self.clear and "vectors" not in vars(self.decomposition):
            return torch.cholesky_solve(u, self.factor)
        vectors, roots = self.large
        return vectors @ ((vectors.T @ u) / roots.square()[:, None])

    def sweep_out(self, v: Tensor, held: Tensor) -> tuple[Tensor, int]:
        """Take out of v (D, c) what lies in the large row space and in held vectors."""
        rest = v - held @ (held.T @ v)
        image = self.seen(self.root.mv(rest))
        # Rounding of A r: no column can be made better than this.
        target = 8 * EPS * self.largest * v.norm(dim=0)
        for step in range(1, STEPS + 1):
            trial = rest - self.root.rmv(self.solve(image))
            trial = trial - held @ (held.T @ trial)
            moved = self.seen(self.root.mv(trial))
            better = moved.norm(dim=0) < FALLING * image.norm(dim=0)
            if not bool(better.any()):
                return rest, step
            rest = torch.where(better, trial, rest)
            image = torch.where(better, moved, image)
            if bool((image.norm(dim=0) <= target).all()):
                return rest, step
        return rest, STEPS

    def seen(self, image: Tensor) -> Tensor:
        """Of A r, what M can take out: its part along the large eigenvectors, if it is not all."""
        if self.clear:
            return image
        vectors, _ = self.large
        return vectors @ (vectors.T @ image)

    def remove(self, v: Tensor) -> tuple[Tensor, int]:
        """By steps of Aᵀ M A and W Wᵀ."""
        if not self.rank:
            return v, 0
        return self.sweep_out(v, self.small[0])

    @property
    def roots(self) -> Tensor:
        """Singular values of the vectors that are not held, (n,)."""
        return self.large[1]

    @property
    def orthonormal(self) -> Tensor:
        """C (K, n) for which the columns of Aᵀ C are an orthonormal basis, but for rounding.

        From a Cholesky factor of G = L Lᵀ as L⁻ᵀ where that does, else U / s.
        """
        if self.clear and self.rank == self.root.shape[0]:
            return inverse_of(self.factor).T
        return self.coefficients(len(self.roots))

    @property
    def apparent(self) -> int:
        """How many singular vectors come from eigenvectors of G for certain."""
        if self.clear:
            return self.rank
        return int((self.singular_values > SMALL**0.5 * self.largest).sum())

    def coefficients(self, count: int) -> Tensor:
        """C (K, c) for which the columns of Aᵀ C are the first singular vectors: U / s."""
        if count <= self.apparent:
            values, vectors = self.decomposition.leading(count)
            return vectors / values.sqrt()
        return self.large[0][:, :count] / self.roots[:count]

    def basis(self, count: int) -> Tensor:
        """The first singular vectors, Aᵀ u_k / s_k, made orthonormal in that order.

        The u_k have a little of one another mixed in, which for small s_k Aᵀ makes large: of larger
        ones in smaller, so that the inverse of a Cholesky factor removes it.
        """
        columns = self.root.shape[1]
        need, there = 8.0 * 3 * columns * count, available_memory()
        if need > there:
            raise CapacityError(
                f"A basis of {columns:,} × {count:,} needs {format_bytes(need)} of the "
                f"{format_bytes(there)} that are there.",
                "It would swap or be killed half-way.",
                "Ask for the first k vectors with basis(k), or project vectors without a basis.",
            )
        if not count:
            return self.decomposition.matrix.new_zeros(columns, 0)
        pulled = [self.root.rmv(part) for part in torch.split(self.coefficients(count), WIDTH, 1)]
        if count > self.apparent:
            pulled.append(self.small[0][:, : max(0, count - len(self.roots))])
        return oriented(whitened(torch.cat(pulled, 1)))

    def complement(self) -> Tensor:
        """From a QR factorisation."""
        size = self.root.shape[1]
        need, there = 8.0 * 3 * size**2, available_memory()
        if need > there:
            raise no_room_for_complement(size, self.rank, need, there)
        return orthogonal_complement(self.basis(self.rank))

    def leverages(self) -> Tensor:
        """Sums of squares of an orthonormal basis, some vectors at a time, to 1e-9 or `turning`.

        The deviation E = Cᵀ A Aᵀ C − I changes them by ‖E‖ at most. Products with random signs tell
        ‖E‖_F; if it is too large, all of E is computed, with A, and the inverse of the Cholesky
        factor of I + E removes it.
        """
        found = self.small[0].square().sum(1)
        if not self.rank:
            return found
        C = self.orthonormal
        random = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (C.shape[1], 8), generator=random, dtype=torch.float64)
        signs = (2 * signs - 1).to(C)
        deviation = C.T @ self.root.mv(self.root.rmv(C @ signs)) - signs
        if float(deviation.square().sum(0).mean().sqrt()) > ACCURATE:
            parts = torch.split(C, WIDTH, 1)
            image = torch.cat([self.root.mv(self.root.rmv(part)) for part in parts], 1)
            inner = C.T @ image
            factor = torch.linalg.cholesky((inner + inner.T) / 2)
            C = torch.linalg.solve_triangular(factor, C.T, upper=False).T
        return found + squared_lengths(self.root, C, ACCURATE)

    def traces(self) -> dict[str, float]:
        """Sums over each layer as tr(G_l G⁻¹), where rounding of that is known to be small.

        G_l = A_l A_lᵀ is the layer's Gram matrix. With n_i² = G_ii its entries are off
        by eps n_i n_j times a little, and tr(G_l G⁻¹) by Σ n_i n_j |G⁻¹|_ij as much. Where that is
        more than 1e-7 of the dimension, or G is singular, sums of `leverages`.
        """
        inverse = self.inverse() if self.clear and self.rank == self.root.shape[0] else None
        if inverse is None or self._blur(inverse) > SHARED * self.rank:
            return super().traces()
        names = entries_of(self.root)
        parts = (self.root if self.root.layer else self.root.of_layer(name) for name in names)
        return {
            name: float(torch.dot(part.gram().reshape(-1), inverse.reshape(-1)))
            for name, part in zip(names, parts, strict=True)
        }

    def inverse(self) -> Tensor:
        """G⁻¹ of a regular G, from its Cholesky factor."""
        return torch.cholesky_inverse(self.factor)

    def _blur(self, inverse: Tensor) -> float:
        """What rounding may change tr(G_l G⁻¹) by."""
        norms = self.decomposition.matrix.diagonal().sqrt()
        return eigenvalue_floor(len(norms), 1.0) * float(norms @ (inverse.abs() @ norms))

    def invert(self, v: Tensor) -> Tensor:
        """Aᵀ M² A v + W S⁻² Wᵀ v, where all is clear of rounding refined against Aᵀ A.

        Then it is known to about eps (s_1/s_d)² of itself, as whatever takes products with Aᵀ A; so
        these would only spoil what W tells of fainter directions, to eps s_1/s_d.
        """
        if not self.rank:
            return torch.zeros_like(v)
        inside = v - self.outside(v)[0]
        W, s = self.small

        def once(b: Tensor) -> Tensor:
            found = self.root.rmv(self.solve(self.solve(self.root.mv(b))))
            return found + W @ ((W.T @ b) / s.square()[:, None])

        found = once(inside)
        if not self.clear:
            return found
        rest = inside - self.root.rmv(self.root.mv(found))
        for _ in range(STEPS):
            trial = found + once(rest)
            remainder = inside - self.root.rmv(self.root.mv(trial))
            better = remainder.norm(dim=0) < FALLING * rest.norm(dim=0)
            found, rest = torch.where(better, trial, found), torch.where(better, remainder, rest)
            if not bool(better.any()):
                break
        return found


def inverse_of(factor: Tensor) -> Tensor:
    """L⁻¹ of a lower triangular matrix."""
    if factor.device.type != "cpu":
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        found: Tensor = torch.linalg.solve_triangular(factor, eye, upper=False)
        return found
    # LAPACK reads columns first: our lower factor is its upper one.
    upper, _ = dtrtri(factor.numpy().T, lower=0)
    return torch.from_numpy(upper.T)
