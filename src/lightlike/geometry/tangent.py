"""The parts of the tangent space: directions that change no prediction, and the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, ParameterError, choice_error
from lightlike.geometry.angles import complementary_angles, principal_angles
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.membership import Criterion, Membership
from lightlike.geometry.rowspace import RowSpace
from lightlike.geometry.share import Share, entries_of, share_of
from lightlike.numbers import is_finite, is_whole
from lightlike.vectors import Vector, read_vectors

CHANGES_NOTHING = Criterion(
    "‖A v‖ / (s_1 ‖v‖)",
    "along v the predictions change by no more than rounding of the steepest direction",
    "along v the predictions change",
)
IN_THE_SCREEN = Criterion(
    "‖v − P v‖ / ‖v‖", "v has no part in the radical", "part of v lies in the radical"
)


@dataclass(frozen=True, eq=False)
class Split:
    """Vectors taken apart, v = radical + screen.

    Attributes:
        radical: The part that changes no prediction, (D,) or (D, c).
        screen: The part that does, of the same shape.
        residual: The largest ‖A radical‖ / (s_1 ‖v‖) that was reached, measured with A itself.
        tolerance: What it had to be below.
        steps: Steps of refinement or iteration that it took.
    """

    radical: Tensor
    screen: Tensor
    residual: float
    tolerance: float
    steps: int


def scaled(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (D, c) divided by their largest entries, and those (c,), so that squares are finite.

    Powers of two, so that nothing is rounded; 1 for a column of zeros.
    """
    largest = columns.abs().amax(0)
    exponents = torch.frexp(torch.where(largest > 0, largest, 1.0)).exponent - 1
    # In two steps: 2^-e itself may be beyond the range of numbers where the product is not.
    half = exponents // 2
    units = torch.ldexp(torch.ldexp(columns, -half), half - exponents)
    return units, torch.ldexp(torch.ones_like(largest), exponents)


def _tolerance(given: float | None, own: float) -> float:
    """The tolerance that was given, or the subspace's own."""
    if given is None:
        return own
    if not is_finite(given) or given < 0.0:
        raise choice_error("tolerance", given, ["None", "a finite number, 0 or positive"])
    return given


class Subspace(ABC):
    """One of the two complementary subspaces of the tangent space R^D.

    Args:
        rows: The row space of A, or of A Σ^½.
        weights: None, or the diagonal of Σ^½, (D,).
    """

    def __init__(self, rows: RowSpace, weights: Tensor | None) -> None:
        self.rows, self.weights = rows, weights

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Its dimension."""

    @property
    def rank(self) -> Dimension:
        """d̂ = rank A = dim S = D − dim Rad, with its bounds and kind."""
        return self.rows.certificate

    @property
    def method(self) -> str:
        """How projections are made: "gram", "metric", "svd" or "iterative"."""
        return self.rows.method

    def split(self, v: Vector) -> Split:
        """Take one vector (D,) or many (D, c) apart, with the residual that was reached.

        Raises:
            ParameterError: if the shape is another or an entry is not a finite number.
            ConsistencyError: if the residual is above its tolerance.
        """
        columns, behind = self._read(v)
        units, sizes = scaled(columns)
        rest, residual, steps = self.rows.outside(self._down(units))
        rest = self._up(rest)
        screen = ((units - rest) * sizes).reshape(len(columns), *behind)
        rest = (rest * sizes).reshape(screen.shape)
        return Split(rest, screen, residual, self.rows.tolerance, steps)

    @abstractmethod
    def project(self, v: Vector) -> Tensor:
        """The part of one vector (D,) or of many (D, c) in this subspace.

        Raises:
            ParameterError: if the shape is another or an entry is not a finite number.
            ConsistencyError: if a check against A itself fails.
        """

    @abstractmethod
    def contains(self, v: Vector, tolerance: float | None = None) -> Membership:
        """Whether a vector (D,) lies in this subspace."""

    @abstractmethod
    def share(self) -> Share:
        """How it is spread over layers; over parameters and coordinates when these are read.

        Sums of the projector's diagonal P_ii, divided by the dimension. It does not depend on the
        inner product's scale, and is in [0, 1].
        """

    def _screen_angles(self, other: Subspace) -> Tensor:
        """Angles between the two screens."""
        if type(other) is not type(self):
            raise choice_error("other", other, [f"a {type(self).__name__}"])
        mine, theirs = (side.rows.root.shape[1] for side in (self, other))
        if mine != theirs:
            raise ParameterError(
                f"The subspaces lie in spaces of {mine:,} and {theirs:,} parameters.",
                "Angles are between subspaces of one parameter space.",
                "Select the same parameters of the same architecture for both.",
            )
        inner = [side.weights for side in (self, other)]
        if any(w is None for w in inner) != all(w is None for w in inner) or (
            inner[0] is not None and inner[1] is not None and not torch.equal(inner[0], inner[1])
        ):
            raise ChoiceError(
                "The subspaces were made with different inner products.",
                "What an angle is depends on it.",
                "Give the same precision=... for both.",
            )
        first, second = (side.rows.basis(side.rows.rank) for side in (self, other))
        return principal_angles(first, second)

    def _read(self, v: Vector) -> tuple[Tensor, tuple[int, ...]]:
        """The vectors as a block (D, c) in float64, and the shape behind D that they came with."""
        root = self.rows.root
        found = read_vectors(v, root.shape[1], root.device)
        return found.reshape(len(found), -1), tuple(found.shape[1:])

    def _single(self, v: Vector) -> Tensor:
        """The vector as a column (D, 1)."""
        column, behind = self._read(v)
        if behind:
            raise ParameterError(
                f"The vector has shape {(len(column), *behind)}.",
                "Whether a vector is contained is asked of one at a time.",
                "Give one vector (D,).",
            )
        return column

    def _down(self, columns: Tensor) -> Tensor:
        """Σ^-½ v: coordinates in which the screen is the row space of A Σ^½."""
        return columns if self.weights is None else columns / self.weights[:, None]

    def _up(self, columns: Tensor) -> Tensor:
        """Σ^½ v."""
        return columns if self.weights is None else columns * self.weights[:, None]

    def __repr__(self) -> str:
        dimension = f"{self.dimension:,}" if self.rows.known else "not computed"
        return f"{type(self).__name__}(dimension {dimension} of {self.rows.root.shape[1]:,})"


class Radical(Subspace):
    """Rad(θ) = ker Î = {v : A v = 0}: the directions that change no prediction to first order."""

    @property
    def dimension(self) -> int:
        """D − d̂."""
        return self.rows.root.shape[1] - self.rows.rank

    def project(self, v: Vector) -> Tensor:
        """The part of v (D,) or (D, c) in the radical, v − P v; ‖A (v − P v)‖ is about eps s_1 ‖v‖.

        Raises:
            ParameterError: if the shape is another or an entry is not a finite number.
            ConsistencyError: if A sees more of it than the tolerance of the rank.
        """
        return self.split(v).radical

    def contains(self, v: Vector, tolerance: float | None = None) -> Membership:
        """Whether ‖A v‖ ≤ tolerance · s_1 ‖v‖, s_1 the largest singular value of A.

        It is relative to the change that the steepest direction of the same length makes.

        Args:
            v: A vector (D,).
            tolerance: Twice max(K, D) · 2.2e-16, or that of the iteration, unless given.
        """
        column = self._down(scaled(self._single(v))[0])
        residual = float(self.rows.residuals(column, column))
        return CHANGES_NOTHING.judge(residual, _tolerance(tolerance, self.rows.tolerance))

    def basis(self) -> Tensor:
        """An orthonormal basis (D, D − d̂), in the inner product that was chosen.

        Raises:
            CapacityError: if D × D does not fit in memory.
        """
        return self._up(self.rows.complement())

    def angles(self, other: Radical) -> Tensor:
        """Principal angles to another point's radical, radians, ascending: min of both dimensions.

        Those that are not 0 are the angles between the screens.

        Raises:
            ParameterError: if the other lies in a space of another size.
            ChoiceError: if it is no radical, or was made with another inner product.
            CapacityError: if bases of both screens do not fit in memory.
        """
        angles = self._screen_angles(other)
        return complementary_angles(angles, min(self.dimension, other.dimension))

    def share(self) -> Share:
        """How it is spread: sums of the diagonal of I − P."""
        rows, traces = self.rows, self.rows.traces()
        for name, entries in entries_of(rows.root).items():
            traces[name] = sum(entry.size for entry in entries) - traces[name]
        return share_of(rows.root, traces, lambda: 1.0 - rows.leverages(), self.dimension)


class Screen(Subspace):
    """S(θ): the row space of A, or Σ times it; Î is positive definite there."""

    @property
    def dimension(self) -> int:
        """d̂."""
        return self.rows.rank

    def project(self, v: Vector) -> Tensor:
        """The part of v (D,) or (D, c) in the screen, P v.

        Raises:
            ParameterError: if the shape is another or an entry is not a finite number.
            ConsistencyError: if A sees more of v − P v than the tolerance of the rank.
        """
        return self.split(v).screen

    def contains(self, v: Vector, tolerance: float | None = None) -> Membership:
        """Whether ‖v − P v‖ ≤ tolerance · ‖v‖, in the norm of the inner product that was chosen.

        Args:
            v: A vector (D,).
            tolerance: Unless given, twice max(K, D) · 2.2e-16 · s_1/s_d, as rounding turns the
                faintest direction of the screen by so much; the root of an iteration's tolerance.
        """
        column = self._down(scaled(self._single(v))[0])
        rest, _, _ = self.rows.outside(column)
        size = float(column.norm())
        residual = float(rest.norm()) / size if size else 0.0
        return IN_THE_SCREEN.judge(residual, _tolerance(tolerance, self.rows.turning))

    def basis(self, k: int | None = None) -> Tensor:
        """Singular vectors v_k = Aᵀ u_k / s_k in descending order, (D, d̂), or the first k.

        They are orthonormal in the inner product that was chosen. Where k is small, no others are
        computed. Singular values that agree to rounding share a space, of which any orthonormal
        vectors are as good: if k cuts through it, they need not be the first of a larger basis.

        Raises:
            ChoiceError: if k is not between 0 and d̂.
            CapacityError: if they do not fit in memory.
        """
        return self._up(self.rows.basis(self._count(k)))

    def metric(self, k: int | None = None) -> Tensor:
        """Bᵀ Î B in the basis B of `basis`, (d̂, d̂): diagonal, with the eigenvalues."""
        return torch.diag(self.rows.singular_values[: self._count(k)].square())

    def solve(self, v: Vector) -> Tensor:
        """Î⁺ v for one vector (D,) or many (D, c): x in the screen with Î x = Pᵀ v.

        For a gradient v it is the natural gradient. P is symmetric unless a precision was given.
        The part along the faintest direction is known to 1e-16 s_1/s_d of itself where singular
        vectors are held, else to 1e-16 (s_1/s_d)², but to 1e-2 at least; or as the iteration's
        tolerance says.
        """
        columns, behind = self._read(v)
        units, sizes = scaled(columns)
        found = self._up(self.rows.invert(self._up(units))) * sizes
        return found.reshape(len(columns), *behind)

    def norm(self, v: Vector) -> Tensor:
        """√(vᵀ Î v) = ‖A v‖ of one vector (D,), a scalar, or of many (D, c), (c,)."""
        image, behind = self._image(v)
        norms: Tensor = torch.linalg.vector_norm(image, dim=0)
        return norms.reshape(behind)

    def inner(self, u: Vector, v: Vector) -> Tensor:
        """The scalar uᵀ Î v; of blocks (D, c) and (D, c') all products, (c, c')."""
        (first, ahead), (second, behind) = self._image(u), self._image(v)
        return (first.T @ second).reshape(ahead + behind)

    def angles(self, other: Screen) -> Tensor:
        """Principal angles to another point's screen, radians, ascending: min(d̂, d̂').

        In the inner product that was chosen, accurate to 1e-15 s_1/s_d however small they are.

        Raises:
            ParameterError: if the other lies in a space of another size.
            ChoiceError: if it is no screen, or was made with another inner product.
            CapacityError: if both bases do not fit in memory.
        """
        return self._screen_angles(other)

    def share(self) -> Share:
        """How it is spread: sums of the diagonal of P."""
        rows = self.rows
        return share_of(rows.root, rows.traces(), rows.leverages, self.dimension)

    def _image(self, v: Vector) -> tuple[Tensor, tuple[int, ...]]:
        """A v, (K, c), and the shape of v behind D."""
        columns, behind = self._read(v)
        return self.rows.root.mv(self._down(columns)), behind

    def _count(self, k: int | None) -> int:
        if k is None:
            return self.dimension
        if not is_whole(k) or not 0 <= k <= self.dimension:
            raise choice_error("k", k, [f"0 to {self.dimension}", "None for all"])
        return k
