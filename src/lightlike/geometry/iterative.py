"""The row space of A from products alone, where no matrix of A's fits in memory.

P v = Aᵀ c for the c that makes ‖v − Aᵀ c‖ least: conjugate gradients on A Aᵀ c = A v in the form of
Hestenes & Stiefel for least squares (1952, doi:10.6028/jres.049.044), with A r of the present
remainder r taken anew in each step. The preconditioner is a randomised Nyström approximation of
A Aᵀ (Frangella, Tropp & Udell 2023, arXiv 2110.02820): it evens out the eigenvalues it has found,
so that those left decide how many steps there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, ConsistencyError
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.geometry.rowspace import WIDTH, RowSpace
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.spectrum.rounding import EPS, rank_tolerance

# Random vectors of the preconditioner: this many, or this share of K; and bytes that they may take.
VECTORS, SHARE, ROOM = 256, 8, 1 << 30

# What ‖P v − Aᵀ A x‖ / ‖P v‖ a solution x may have unless a tolerance is given.
SOLVED = 1e-10


@dataclass(frozen=True, eq=False)
class Deflation:
    """A preconditioner from approximate eigenvectors: I − Q Qᵀ + Q (λ_n/Λ) Qᵀ.

    Attributes:
        vectors: Q, orthonormal, (size, n).
        values: Λ > 0, descending, (n,).
    """

    vectors: Tensor
    values: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """Multiply u (size, c)."""
        Q = self.vectors
        inner = Q.T @ u
        rest = u - Q @ inner
        # Once more: what is left along the first vectors is to be far smaller than u.
        rest = rest - Q @ (Q.T @ rest)
        return rest + Q @ ((self.values[-1:] / self.values)[:, None] * inner)


def nystrom(root: Root) -> Deflation:
    """Of A Aᵀ, from its products with a few random vectors."""
    rows, columns = root.shape
    width = max(1, min(rows, max(VECTORS, rows // SHARE), ROOM // (8 * rows)))
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(rows, width, generator=random, dtype=torch.float64).to(root.device)
    omega = torch.linalg.qr(drawn).Q
    parts = torch.split(omega, max(1, min(WIDTH, ROOM // (8 * columns))), 1)
    image = torch.cat([root.mv(root.rmv(part)) for part in parts], 1)
    # A shift keeps the factorisation real; it is taken off again.
    shift = math.sqrt(rows) * EPS * float(torch.linalg.vector_norm(image))
    if shift == 0.0:
        return Deflation(omega[:, :0], image.new_zeros(0))
    image = image + shift * omega
    inner = omega.T @ image
    factor = torch.linalg.cholesky((inner + inner.T) / 2)
    half = torch.linalg.solve_triangular(factor, image.T, upper=False).T
    U, s, _ = torch.linalg.svd(half, full_matrices=False)
    kept = s.square() > 10 * shift
    return Deflation(U[:, kept], s[kept].square() - shift)


class IterativeRowSpace(RowSpace):
    """A row space that is only ever projected on, to a stated residual.

    Directions along which A changes less than tolerance · s_1 may be found on either side: by
    default no more than the exact routes leave open.

    Args:
        F: At the root A.
        tolerance: ‖A r‖ / (s_1 ‖v‖) at which the iteration stops; that of the exact routes, twice
            max(K, D) · 2.2e-16, if None.
        steps: After which it gives up.
        memory: For the dimension, if it is asked for.
    """

    known = False
    method = "iterative"

    def __init__(
        self, F: Fisher, tolerance: float | None, steps: int, memory: int | float | str | None
    ) -> None:
        exact = 2 * max(rank_tolerance(F.root.shape), 8 * EPS)
        super().__init__(F.root, exact if tolerance is None else tolerance)
        # Products with Aᵀ A round to more than projections do.
        self.accuracy = SOLVED if tolerance is None else tolerance
        self.F, self.steps, self.memory = F, steps, memory

    @property
    def certificate(self) -> Dimension:
        """The rank d with its bounds, from an exact decomposition.

        Raises:
            CapacityError: if none fits in memory.
        """
        return dimension_of(self.F.decomposition("auto", self.memory).spectrum)

    @cached_property
    def preconditioner(self) -> Deflation:
        """Of A Aᵀ."""
        return nystrom(self.root)

    @cached_property
    def across(self) -> Deflation:
        """Of Aᵀ A, along Aᵀ U, of which as many vectors are held as there is room for."""
        count = max(1, ROOM // (8 * self.root.shape[1]))
        pulled = self.root.rmv(self.preconditioner.vectors[:, :count])
        Q, s, _ = torch.linalg.svd(pulled, full_matrices=False)
        kept = s > math.sqrt(EPS) * s[0]
        return Deflation(Q[:, kept], s[kept].square())

    @property
    def largest(self) -> float:
        """A lower bound on s_1, by which the residual is the stricter."""
        values = self.preconditioner.values
        return math.sqrt(float(values[0])) if len(values) else 0.0

    @property
    def turning(self) -> float:
        """√tolerance: what is left of a direction of the screen depends on its singular value."""
        return math.sqrt(self.tolerance)

    @property
    def singular_values(self) -> Tensor:
        """Not known here.

        Raises:
            ChoiceError: always.
        """
        raise unknown("singular values")

    def basis(self, count: int) -> Tensor:  # noqa: ARG002 — there is none of any size
        """Not known here.

        Raises:
            ChoiceError: always.
        """
        raise unknown("a basis")

    def complement(self) -> Tensor:
        """Not known here.

        Raises:
            ChoiceError: always.
        """
        raise unknown("a basis")

    def leverages(self) -> Tensor:
        """Not known here.

        Raises:
            ChoiceError: always.
        """
        raise unknown("shares")

    def remove(self, v: Tensor) -> tuple[Tensor, int]:
        """By conjugate gradients on A Aᵀ, for each column its own."""
        rest, image = v, self.root.mv(v)
        target = self.tolerance * self.largest * v.norm(dim=0)
        taken = 0
        direction, before = torch.zeros_like(image), torch.ones_like(target)
        while self.largest and taken < self.steps:
            open_still = image.norm(dim=0) > target
            if not bool(open_still.any()):
                break
            steered = self.preconditioner(image)
            now = (image * steered).sum(0)
            direction = (
                steered + (ratio(now, before) if taken else torch.zeros_like(now)) * direction
            )
            pulled = self.root.rmv(direction)
            length = torch.where(open_still, ratio(now, pulled.square().sum(0)), 0.0)
            rest = rest - length * pulled
            image, before, taken = self.root.mv(rest), now, taken + 1
        return rest, taken

    def invert(self, v: Tensor) -> Tensor:
        """(Aᵀ A)⁺ v by conjugate gradients on Aᵀ A x = P v, in the row space throughout.

        Raises:
            ConsistencyError: if ‖P v − Aᵀ A x‖ stays above accuracy · ‖P v‖.
        """
        inside = v - self.outside(v)[0]
        target = self.accuracy * inside.norm(dim=0)
        if not self.largest:
            return torch.zeros_like(v)

        def product(p: Tensor) -> Tensor:
            return self.root.rmv(self.root.mv(p))

        x, rest = conjugate_gradients(product, self.across, inside, target, self.steps)
        missed = torch.nan_to_num(rest.norm(dim=0) / inside.norm(dim=0), nan=0.0)
        worst = float(missed.max()) if len(missed) else 0.0
        if worst > self.accuracy:
            raise ConsistencyError(
                f"After {self.steps} steps Î x differs from v on the screen by {worst:.2g} of it, "
                f"above the tolerance {self.accuracy:.2g}.",
                "x would not be the solution.",
                "Allow a larger tolerance=..., more steps=..., or more memory=... for an exact "
                "method.",
            )
        return x


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    steer: Callable[[Tensor], Tensor],
    b: Tensor,
    target: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Solve for each column of b until its residual is below the target.

    Args:
        product: With a symmetric positive semi-definite matrix.
        steer: With the preconditioner.
        b: In the range of both, (n, c).
        target: (c,).
        steps: At most.

    Returns:
        The solutions and their residuals as products give them, not as the recurrence has them.
    """
    x, rest = torch.zeros_like(b), b
    direction, before = torch.zeros_like(b), torch.ones_like(target)
    for step in range(steps):
        open_still = rest.norm(dim=0) > target
        if not bool(open_still.any()):
            rest = b - product(x)
            # The recurrence drifts; go on from the truth if it was too hopeful.
            open_still = rest.norm(dim=0) > target
            if not bool(open_still.any()):
                return x, rest
            direction = torch.zeros_like(b)
        steered = steer(rest)
        now = (rest * steered).sum(0)
        direction = steered + (ratio(now, before) if step else torch.zeros_like(now)) * direction
        image = product(direction)
        length = torch.where(open_still, ratio(now, (direction * image).sum(0)), 0.0)
        x, rest, before = x + length * direction, rest - length * image, now
    return x, b - product(x)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """The quotient a / b, and 0 where b = 0: a column that is solved already goes nowhere."""
    found: Tensor = torch.where(b != 0, a / b, 0.0)
    return found


def unknown(what: str) -> ChoiceError:
    """The error for what projections alone cannot give."""
    return ChoiceError(
        f"method='iterative' does not know {what}.",
        "It solves for one projection at a time and decomposes nothing.",
        "Use an exact method, with fewer observations or parameters if it does not fit.",
    )
