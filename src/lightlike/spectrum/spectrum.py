"""A spectrum of a positive semi-definite matrix, and the numbers that are functions of it."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from lightlike.errors import UndefinedError
from lightlike.numbers import check_not_negative
from lightlike.results import Result, plain
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.inertia import Count
from lightlike.spectrum.rounding import EPS, Rounding, worth
from lightlike.spectrum.symmetric import Shifted, SymmetricMatrix


class Source(Protocol):
    """A matrix Aᵀ A whose eigenvalues can be computed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D), the shape of A."""

    @property
    def precision(self) -> float:
        """Rounding unit of A's entries."""

    @property
    def method(self) -> str:
        """The route that is taken: "gram", "metric", "svd" or "dense"."""

    @property
    def symmetric(self) -> SymmetricMatrix | None:
        """The matrix whose eigenvalues the route takes, None if it takes singular values of A."""

    def solve(self) -> Eigenvalues:
        """Compute the eigenvalues."""


class Spectrum(Result):
    """Non-zero eigenvalues λ_1 ≥ λ_2 ≥ … of a positive semi-definite matrix Aᵀ A.

    They are computed when something first needs them, which printing does too, and kept. `trace`,
    `above`, `participation_ratio`, `logdet` and `effective_dimension` need them only where nothing
    cheaper is as good: these take sums, one LDLᵀ or one Cholesky factorisation of the matrix while
    the eigenvalues are not there, and agree with the sums over eigenvalues to 1e-9.

    A spectrum that is not `whole` holds the largest only. What takes all of them is then an
    `UndefinedError`, and so is a number of eigenvalues above a bound that it cannot decide.

    Args:
        source: Eigenvalues that are known, or what they can be computed from.
    """

    def __init__(self, source: Eigenvalues | Source) -> None:
        self._known: Eigenvalues | None = None
        self._source: Source | None = None
        if isinstance(source, Eigenvalues):
            self._known = source
        else:
            self._source = source

    @property
    def known(self) -> bool:
        """Whether the eigenvalues have been computed."""
        return self._known is not None

    @property
    def values(self) -> Eigenvalues:
        """The eigenvalues with all that their route can tell; computed on first use."""
        if self._known is None:
            assert self._source is not None
            self._known = self._source.solve()
            self._source = None  # lets go of the matrix
        return self._known

    def settled(self) -> Spectrum:
        """The same spectrum with its eigenvalues computed; it keeps no matrix."""
        return Spectrum(self.values)

    @property
    def symmetric(self) -> SymmetricMatrix | None:
        """The matrix to be asked while eigenvalues are not known, None otherwise."""
        return None if self._source is None else self._source.symmetric

    @property
    def eigenvalues(self) -> Tensor:
        """Descending, float64, 1-D: those that are distinguishable from zero."""
        return self.values.eigenvalues

    @property
    def whole(self) -> bool:
        """Whether every eigenvalue is held that is distinguishable from zero."""
        return self._known is None or self._known.whole

    @property
    def trace(self) -> float:
        """Σ λ of the whole matrix.

        Raises:
            UndefinedError: if only the largest eigenvalues are held and the trace is not known.
        """
        matrix = self.symmetric
        if matrix is not None:
            return matrix.trace
        found = self.values.trace
        if found is None:
            raise partial_error("trace", self.values)
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D), the shape of A; (D, D) if only the matrix itself is known."""
        return self.values.shape if self._source is None else self._source.shape

    @property
    def precision(self) -> float:
        """Rounding unit of A's entries."""
        return self.values.precision if self._source is None else self._source.precision

    @property
    def kind(self) -> str:
        """One of "exact", "certified", "estimated" and "approximate"; see `Eigenvalues`."""
        return self._known.kind if self._known is not None else worth(self.precision)

    @property
    def method(self) -> str:
        """The route: "gram", "metric", "svd", "sketch", "lanczos" or "dense"."""
        return self.values.method if self._source is None else self._source.method

    @property
    def reason(self) -> str:
        """Why this route was taken, and how small eigenvalues were refined."""
        return self.values.reason

    @property
    def floor(self) -> float:
        """Absolute size of eigenvalues below which this route knows none of them.

        Rounding hides them, or only the largest are held: then no other one exceeds it.
        """
        return self.values.floor

    @property
    def rounding(self) -> Rounding | None:
        """How far A in lower precision was found from A in float64; None if it is not asked for."""
        matrix = self.symmetric
        return self.values.rounding if matrix is None else matrix.rounding

    @property
    def errors(self) -> Tensor:
        """A bound on the error of each eigenvalue, as `lightlike.spectrum.rounding` derives it."""
        return self.eigenvalues.new_tensor(self.values.errors)

    def logdet_error(self, scale: float) -> float:
        """A bound on the error of `logdet` by lower precision; 0 in float64."""
        if self.precision <= EPS:
            return 0.0
        return self.all("error of a log-determinant").logdet_error(scale)

    @property
    def tolerance(self) -> float:
        """The default tolerance of `rank`."""
        return self.values.tolerance

    @property
    def residue(self) -> float:
        """Largest computed eigenvalue below the cut, 0 if there is none."""
        return self.values.residue

    @property
    def rank_bounds(self) -> tuple[int, int]:
        """Certain bounds on the number of singular values above the default tolerance of `rank`."""
        return self.values.rank_bounds

    @property
    def resolved(self) -> bool:
        """Whether the rank is decided: no eigenvalue is hidden by rounding or close to call."""
        return self.values.resolved

    @property
    def largest(self) -> float:
        """λ_1, or 0 for a zero matrix."""
        return self.values.largest

    def all(self, wanted: str) -> Eigenvalues:
        """`values` if they are all there is.

        Raises:
            UndefinedError: if only the largest are held; it names what was wanted.
        """
        values = self.values
        if not values.whole:
            raise partial_error(wanted, values)
        return values

    def rank(self, tolerance: float | None = None) -> int:
        """Number of singular values s_k = √λ_k of A above tolerance · s_1.

        The default tolerance is max(K, D) · precision, as `matrix_rank` has it, or √(floor / λ_1)
        where lower precision was held against float64. It counts what this spectrum resolves;
        `rank_bounds` says what rounding may hide.

        Raises:
            UndefinedError: if only the largest are held and do not reach down to the tolerance.
        """
        if tolerance is None:
            tolerance = self.tolerance
        if not self.whole:
            return self.above(tolerance**2 * self.largest)
        return int((self.eigenvalues > tolerance**2 * self.largest).sum())

    def above(self, eps: float) -> int:
        """d_ε, the number of eigenvalues above eps (absolute): the significant dimensions.

        While the eigenvalues are not known, one factorisation a call: for a whole curve of them
        read `eigenvalues` first. `count` has the bounds.

        Raises:
            ChoiceError: if eps is negative or not a finite number.
            UndefinedError: if only the largest are held and the bounds do not meet.
        """
        check_not_negative("eps", eps)
        found = self.count(eps)
        if found.lower != found.upper:
            self.all(f"number of eigenvalues above {eps:.3g}")
        return found.value

    def count(self, above: float) -> Count:
        """The number of eigenvalues above a bound, with what rounding leaves open.

        By inertia while the eigenvalues are not known, if the bound is clear of their error.

        Raises:
            ChoiceError: if the bound is negative or not a finite number.
        """
        check_not_negative("above", above)
        matrix = self.symmetric
        found = None if matrix is None else matrix.count(above, min(self.shape))
        return self.values.count(above) if found is None else found

    def effective_dimension(self, tau: float) -> float:
        """MacKay's γ(τ) = Σ λ_k / (λ_k + τ); the natural τ is 1/(N σ²).

        Raises:
            ChoiceError: if τ is negative or not a finite number; at 0 it is the rank.
        """
        check_not_negative("tau", tau)
        matrix = self.symmetric
        if matrix is not None and tau > 0.0:
            return self.soft_count_of(matrix.shifted(1.0 / tau))
        values = self.all("effective dimension").eigenvalues
        return float((values / (values + tau)).sum())

    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ², between 1 and the rank; 0 for a zero matrix."""
        matrix = self.symmetric
        if matrix is not None and self.precision <= EPS:
            return matrix.participation_ratio()
        values = self.all("participation ratio").eigenvalues
        squares = float(values.square().sum())
        return float(values.sum()) ** 2 / squares if squares else 0.0

    def stable_rank(self) -> float:
        """Σλ / λ_1; 0 for a zero matrix."""
        values = self.all("stable rank")
        return float(values.eigenvalues.sum()) / values.largest if values.largest else 0.0

    def entropy_dimension(self) -> float:
        """exp(−Σ q_k log q_k) with q = λ/Σλ; 0 for a zero matrix."""
        values = self.all("entropy dimension").eigenvalues
        total = float(values.sum())
        if not total:
            return 0.0
        return math.exp(float(torch.special.entr(values / total).sum()))

    def logdet(self, scale: float) -> float:
        """Log det(I + scale · Aᵀ A) = Σ log(1 + scale λ_k).

        Raises:
            ChoiceError: if the scale is negative or not a finite number.
        """
        check_not_negative("scale", scale)
        matrix = self.symmetric
        if matrix is not None:
            return self.logdet_of(matrix.shifted(scale))
        return float(torch.log1p(scale * self.all("log-determinant").eigenvalues).sum())

    def logdet_of(self, shifted: Shifted) -> float:
        """`logdet` at the scale of I + scale · G, from its factor where that is good to 1e-10."""
        value = None if self.known else shifted.logdet
        if value is None:
            values = self.all("log-determinant").eigenvalues
            value = float(torch.log1p(shifted.scale * values).sum())
        return value

    def soft_count_of(self, shifted: Shifted) -> float:
        """Σ c λ / (1 + c λ) for I + c G, from its factor where that is good to 1e-10."""
        value = None if self.known else shifted.soft_count
        if value is None:
            scaled = shifted.scale * self.all("effective dimension").eigenvalues
            value = float((scaled / (1.0 + scaled)).sum())
        return value

    def to_dict(self) -> dict[str, Any]:
        """Eigenvalues and what is known of them, in plain Python types."""
        names = ("eigenvalues", "trace", "shape", "kind", "method", "reason", "floor", "residue",
                 "rank_bounds", "tolerance", "precision", "whole")  # fmt: skip
        return {name: plain(getattr(self, name)) for name in names}

    def _records(self) -> list[dict[str, Any]]:
        pairs = zip(self.eigenvalues.tolist(), self.errors.tolist(), strict=True)
        return [{"index": k, "eigenvalue": v, "error": e} for k, (v, e) in enumerate(pairs, 1)]

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return self.values == other.values if isinstance(other, Spectrum) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.shape, self.method))

    def __repr__(self) -> str:
        if not self.whole:
            least = f" to {float(self.eigenvalues[-1]):.3g}" if len(self) else ""
            return (
                f"Spectrum(only the {len(self)} largest eigenvalues, from {self.largest:.3g}"
                f"{least}; others up to {self.floor:.3g}; {self.kind} by {self.method})"
            )
        return (
            f"Spectrum({len(self)} eigenvalues from {self.largest:.3g}, trace {self.trace:.4g}, "
            f"{self.kind} by {self.method})"
        )


def partial_error(wanted: str, values: Eigenvalues) -> UndefinedError:
    """The error of asking the largest eigenvalues for something that takes all of them."""
    return UndefinedError(
        f"The {wanted} takes more than the {len(values)} largest of up to {min(values.shape):,} "
        f"eigenvalues, which are all that method={values.method!r} has computed.",
        f"Of the others it is only known that none exceeds {values.floor:.3g}.",
        "Compute all of them with method='auto', or estimate with method='sketch' where the matrix "
        "is a Fisher matrix.",
    )
