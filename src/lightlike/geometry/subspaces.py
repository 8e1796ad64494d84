"""Radical and screen: the directions that change no prediction, and the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightlike.errors import ModelError, ParameterError, choice_error
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.gramspace import GramRowSpace
from lightlike.geometry.membership import Criterion, Membership
from lightlike.geometry.rowspace import ExplicitRowSpace, RowSpace
from lightlike.metric.fisher import Fisher
from lightlike.spectrum.rounding import EPS

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

    def split(self, v: Tensor) -> Split:
        """Take one vector (D,) or many (D, c) apart, with the residual that was reached.

        Raises:
            ParameterError: if the shape is another or an entry is not finite.
            ConsistencyError: if the residual is above its tolerance.
        """
        columns = self._columns(v)
        rest, residual, steps = self.rows.outside(self._down(columns))
        rest = self._up(rest).reshape(v.shape)
        screen = columns.reshape(v.shape) - rest
        return Split(rest, screen, residual, self.rows.tolerance, steps)

    @abstractmethod
    def project(self, v: Tensor) -> Tensor:
        """The part of one vector (D,) or of many (D, c) in this subspace.

        Raises:
            ParameterError: if the shape is another or an entry is not finite.
            ConsistencyError: if a check against A itself fails.
        """

    @abstractmethod
    def contains(self, v: Tensor, tolerance: float | None = None) -> Membership:
        """Whether a vector (D,) lies in this subspace."""

    def _columns(self, v: Tensor) -> Tensor:
        """The vectors as a block (D, c) in float64."""
        size = self.rows.root.shape[1]
        if v.ndim not in (1, 2) or v.shape[0] != size:
            raise ParameterError(
                f"The vector has shape {tuple(v.shape)}, not ({size},) or ({size}, c).",
                "A tangent vector has one number for every selected parameter.",
                "Flatten parameters in the model's order, as `F.problem.selection.flatten` does.",
            )
        columns = v.detach().to(self.rows.root.device, torch.float64).reshape(size, -1)
        if not bool(torch.isfinite(columns).all()):
            raise ParameterError(
                "The vector has an entry that is not finite.",
                "Its projection would be NaN everywhere.",
                "Give finite numbers.",
            )
        return columns

    def _single(self, v: Tensor) -> Tensor:
        """The vector as a column (D, 1)."""
        if v.ndim != 1:
            raise ParameterError(
                f"The vector has shape {tuple(v.shape)}.",
                "Whether a vector is contained is asked of one at a time.",
                "Give one vector (D,).",
            )
        return self._columns(v)

    def _down(self, columns: Tensor) -> Tensor:
        """Σ^-½ v: coordinates in which the screen is the row space of A Σ^½."""
        return columns if self.weights is None else columns / self.weights[:, None]

    def _up(self, columns: Tensor) -> Tensor:
        """Σ^½ v."""
        return columns if self.weights is None else columns * self.weights[:, None]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension {self.dimension:,} of {self.rows.root.shape[1]:,})"


class Radical(Subspace):
    """Rad(θ) = ker Î = {v : A v = 0}: the directions that change no prediction to first order."""

    @property
    def dimension(self) -> int:
        """D − d̂."""
        return self.rows.root.shape[1] - self.rows.rank

    def project(self, v: Tensor) -> Tensor:
        """The part of v (D,) or (D, c) in the radical, v − P v; ‖A (v − P v)‖ is about eps s_1 ‖v‖.

        Raises:
            ParameterError: if the shape is another or an entry is not finite.
            ConsistencyError: if A sees more of it than the tolerance of the rank.
        """
        return self.split(v).radical

    def contains(self, v: Tensor, tolerance: float | None = None) -> Membership:
        """Whether ‖A v‖ ≤ tolerance · s_1 ‖v‖, s_1 the largest singular value of A.

        It is relative to the change that the steepest direction of the same length makes.

        Args:
            v: A vector (D,).
            tolerance: max(K, D) · 2.2e-16, or the tolerance of the iteration, unless given.
        """
        residual = float(self.rows.residuals(self._down(self._single(v)), self._down(v[:, None])))
        return CHANGES_NOTHING.judge(
            residual, self.rows.tolerance if tolerance is None else tolerance
        )


class Screen(Subspace):
    """S(θ): the row space of A, or Σ times it; Î is positive definite there."""

    @property
    def dimension(self) -> int:
        """d̂."""
        return self.rows.rank

    def project(self, v: Tensor) -> Tensor:
        """The part of v (D,) or (D, c) in the screen, P v.

        Raises:
            ParameterError: if the shape is another or an entry is not finite.
            ConsistencyError: if A sees more of v − P v than the tolerance of the rank.
        """
        return self.split(v).screen

    def contains(self, v: Tensor, tolerance: float | None = None) -> Membership:
        """Whether ‖v − P v‖ ≤ tolerance · ‖v‖, in the norm of the inner product that was chosen.

        Args:
            v: A vector (D,).
            tolerance: Unless given, max(K, D) · 2.2e-16 · s_1/s_d: rounding turns the
                faintest direction of the screen by so much.
        """
        column = self._down(self._single(v))
        rest, _, _ = self.rows.outside(column)
        size = float(column.norm())
        residual = float(rest.norm()) / size if size else 0.0
        return IN_THE_SCREEN.judge(residual, self._turning if tolerance is None else tolerance)

    @cached_property
    def _turning(self) -> float:
        return self.rows.turning


def subspaces(
    F: Fisher,
    method: str = "auto",
    *,
    memory: int | float | str | None = None,
) -> tuple[Radical, Screen]:
    """The radical and the screen: T_θM = Rad(θ) ⊕ S(θ) (Sun & Nielsen, arXiv 1905.11027, §3).

    Rad = ker Î = {v : A v = 0}; S is its orthogonal complement, the row space of A. Nothing of size
    D × D is made: projections come from A Aᵀ and products with A, held against A each time.

    Args:
        F: From `lightlike.fisher`, in float64.
        method: "auto" (the cheapest exact one that fits), "gram" (A Aᵀ), "metric" (Aᵀ A) or "svd".
        memory: Bytes or a text such as "8 GB" that may be used; nine tenths of what is available
            unless given.

    Raises:
        ChoiceError: for an unknown method, or a Fisher matrix in lower precision.
        ModelError: if the model casts to lower precision inside.
        CapacityError: if no exact route fits in memory.
    """
    if F.problem.dtype != torch.float64:
        raise choice_error("dtype", F.problem.dtype, ["'float64', which alone decides rank"])
    if F.root.precision > EPS:
        raise ModelError(
            f"The model rounds to {F.root.precision:.2g} inside, although it runs in float64.",
            "Which directions change nothing cannot be told from those that change little.",
            "Remove casts to lower precision from the model's code.",
        )
    decomposition = F.decomposition(method, memory)
    kind = GramRowSpace if decomposition.method == "gram" else ExplicitRowSpace
    rows = kind(F.root, decomposition)
    return Radical(rows, None), Screen(rows, None)
