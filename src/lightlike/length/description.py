"""A description length and its terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lightlike.errors import choice_error
from lightlike.results import Result, plain

UNITS = {"nats": 1.0, "bits": 1.0 / math.log(2)}


def check_units(units: str) -> None:
    """Raise a ChoiceError unless it is a unit of code lengths."""
    if not isinstance(units, str) or units not in UNITS:
        raise choice_error("units", units, [*map(repr, UNITS)])


class Counts(Protocol):
    """How many directions a length counts, with and without weights."""

    @property
    def dimension(self) -> int | None:
        """d, the positive eigenvalues λ_k in prior units; None if they were not counted."""

    @property
    def effective_dimension(self) -> float:
        """MacKay's γ = Σ N λ_k / (1 + N λ_k)."""


@dataclass(frozen=True)
class KnownCounts:
    """Counts that have been computed.

    Attributes:
        dimension: d; None if it was not counted.
        effective_dimension: γ.
    """

    dimension: int | None
    effective_dimension: float


@dataclass(frozen=True, repr=False)
class DescriptionLength(Result):
    """Code length of the labels given the inputs, term by term.

    total = fit + displacement + complexity + prior_term, where complexity = dimension_term +
    spectrum_term and prior_term is 0 unless the prior is more than a Gaussian. Terms that need
    labels are None without them, and so is then the total; they are never 0 for want of data.
    The total takes one Cholesky factorisation; `dimension`, `dimension_term` and `spectrum_term`
    need the eigenvalues and have them computed when they are first read, or printed; they are None
    where eigenvalues were not counted but estimated as a whole.

    Attributes:
        fit: NLL_total(θ̂).
        displacement: What it costs that θ̂ is not the prior mean; parts of θ̂ in the radical cost
            nothing at a maximum-likelihood point.
        complexity: ½ log det(I + N Σ^½ Î Σ^½) = ½ Σ log(1 + N λ_k), λ_k the eigenvalues in prior
            units; never negative.
        counts: d and γ.
        tuning_cost: At most this much more for numbers of the prior fitted to the same data
            (½ log N each); not part of the total.
        stderr: Standard error of the total (of the complexity without labels); 0 where nothing was
            sampled.
        complexity_error: A bound on the error of the complexity by lower precision, or by
            quadrature where it was estimated so; otherwise 0 in float64.
        displacement_error: A bound on that of the displacement, by lower precision or by ending an
            iteration.
        name: Which length it is: "gaussian", "interpolating", "variational", ...
        prior_term: What a prior that is not Gaussian adds to the razor of its Gaussian part.
        effective_draws: What the draws behind an estimate are worth, as independent draws of equal
            weight; None where nothing was drawn.
        validity: What the number can be trusted for, in a sentence; "" where nothing is to be added
            to what is said of its kind.
        kind: "exact" if every term was computed in full, "certified" or "estimated" otherwise;
            "approximate" if another matrix stands for Î in the complexity.
        observations: N.
        prior: What was assumed, with fitted numbers filled in.
        units: "nats" or "bits".
        scale: 1, or 1/N for figures per observation.
    """

    fit: float | None
    displacement: float | None
    complexity: float
    counts: Counts
    tuning_cost: float
    stderr: float
    kind: str
    observations: int
    prior: dict[str, Any] = field(default_factory=dict)
    units: str = "nats"
    scale: float = 1.0
    complexity_error: float = 0.0
    displacement_error: float = 0.0
    name: str = "gaussian"
    prior_term: float = 0.0
    effective_draws: float | None = None
    validity: str = ""

    @property
    def error(self) -> float:
        """A bound on the error of the total (of the complexity without labels), chance apart."""
        return self.complexity_error + self.displacement_error

    @property
    def dimension(self) -> int | None:
        """d, the number of positive eigenvalues in prior units; None if not counted."""
        return self.counts.dimension

    @property
    def dimension_term(self) -> float | None:
        """(d/2) log N; None if d was not counted."""
        counted = self.counts.dimension
        if counted is None:
            return None
        return 0.5 * counted * math.log(self.observations) * UNITS[self.units] * self.scale

    @property
    def spectrum_term(self) -> float | None:
        """½ Σ_{k≤d} log(λ_k + 1/N): negative wherever λ_k < 1 − 1/N; None if d was not counted."""
        known = self.dimension_term
        return None if known is None else self.complexity - known

    @property
    def effective_dimension(self) -> float:
        """MacKay's γ = Σ N λ_k / (1 + N λ_k); ½ γ is what one e-fold more data costs."""
        return self.counts.effective_dimension

    @property
    def total(self) -> float | None:
        """The whole length, or None without labels."""
        if self.fit is None or self.displacement is None:
            return None
        return self.fit + self.displacement + self.complexity + self.prior_term

    def to(self, units: str) -> DescriptionLength:
        """The same length in "nats" or "bits" (1 nat = 1/ln 2 bits).

        Raises:
            ChoiceError: for other units.
        """
        check_units(units)
        return self._times(UNITS[units] / UNITS[self.units], units=units)

    def per_observation(self) -> DescriptionLength:
        """The same length divided by N."""
        if self.scale != 1.0:
            return self
        return self._times(1.0 / self.observations, scale=1.0 / self.observations)

    def settled(self) -> DescriptionLength:
        """The same length with its counts computed; it keeps no matrix."""
        return replace(self, counts=KnownCounts(self.dimension, self.effective_dimension))

    def to_dict(self) -> dict[str, Any]:
        """All terms and what they rest on, by name, in plain Python types; infinite ones None."""
        names = (
            "total", "fit", "displacement", "complexity", "dimension_term", "spectrum_term",
            "dimension", "effective_dimension", "tuning_cost", "stderr", "kind", "observations",
            "prior", "units", "scale", "complexity_error", "displacement_error", "error",
            "name", "prior_term", "effective_draws", "validity",
        )  # fmt: skip
        return {name: plain(getattr(self, name)) for name in names}

    @staticmethod
    def from_dict(terms: dict[str, Any]) -> DescriptionLength:
        """The length that `to_dict` took apart."""
        given = dict(terms)
        counts = KnownCounts(given.pop("dimension"), given.pop("effective_dimension"))
        for derived in ("total", "dimension_term", "spectrum_term"):
            del given[derived]
        given.pop("error", None)
        return DescriptionLength(counts=counts, **given)

    def __repr__(self) -> str:
        terms = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"DescriptionLength({terms})"

    def _times(self, factor: float, **changes: Any) -> DescriptionLength:
        def times(value: float | None) -> float | None:
            return None if value is None else value * factor

        return replace(
            self,
            fit=times(self.fit),
            displacement=times(self.displacement),
            complexity=self.complexity * factor,
            tuning_cost=self.tuning_cost * factor,
            stderr=self.stderr * factor,
            prior_term=self.prior_term * factor,
            complexity_error=self.complexity_error * factor,
            displacement_error=self.displacement_error * factor,
            **changes,
        )
