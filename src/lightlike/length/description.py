"""A description length and its terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from lightlike.errors import choice_error

UNITS = {"nats": 1.0, "bits": 1.0 / math.log(2)}


@dataclass(frozen=True)
class DescriptionLength:
    """Code length of the labels given the inputs, term by term.

    total = fit + displacement + dimension_term + spectrum_term. Terms that need labels are None
    without them, and so is then the total; they are never 0 for want of data.

    Attributes:
        fit: NLL_total(θ̂).
        displacement: What it costs that θ̂ is not the prior mean; parts of θ̂ in the radical cost
            nothing at a maximum-likelihood point.
        dimension_term: (d/2) log N.
        spectrum_term: ½ Σ_{k≤d} log(λ_k + 1/N), λ_k the eigenvalues in prior units: negative
            wherever λ_k < 1 − 1/N.
        effective_dimension: MacKay's γ = Σ N λ_k / (1 + N λ_k); ½ γ is what one e-fold more data
            costs.
        tuning_cost: At most this much more for numbers of the prior fitted to the same data
            (½ log N each); not part of the total.
        stderr: Standard error of the total (of the complexity without labels); 0 where nothing was
            sampled.
        complexity_error: A bound on the error of the complexity by lower precision; 0 in float64.
        displacement_error: The same of the displacement.
        kind: "exact" if every term was computed in full, "certified" or "estimated" otherwise.
        prior: What was assumed, with fitted numbers filled in.
        observations: N.
        units: "nats" or "bits".
        scale: 1, or 1/N for figures per observation.
    """

    fit: float | None
    displacement: float | None
    dimension_term: float
    spectrum_term: float
    effective_dimension: float
    tuning_cost: float
    stderr: float
    kind: str
    observations: int
    prior: dict[str, Any] = field(default_factory=dict)
    units: str = "nats"
    scale: float = 1.0
    complexity_error: float = 0.0
    displacement_error: float = 0.0

    @property
    def error(self) -> float:
        """A bound on the error of the total (of the complexity without labels) by rounding."""
        return self.complexity_error + self.displacement_error

    @property
    def complexity(self) -> float:
        """dimension_term + spectrum_term = ½ Σ log(1 + N λ_k), never negative."""
        return self.dimension_term + self.spectrum_term

    @property
    def total(self) -> float | None:
        """The whole length, or None without labels."""
        if self.fit is None or self.displacement is None:
            return None
        return self.fit + self.displacement + self.complexity

    def to(self, units: str) -> DescriptionLength:
        """The same length in "nats" or "bits" (1 nat = 1/ln 2 bits).

        Raises:
            ChoiceError: for other units.
        """
        if units not in UNITS:
            raise choice_error("units", units, [*map(repr, UNITS)])
        return self._times(UNITS[units] / UNITS[self.units], units=units)

    def per_observation(self) -> DescriptionLength:
        """The same length divided by N."""
        if self.scale != 1.0:
            return self
        return self._times(1.0 / self.observations, scale=1.0 / self.observations)

    def _times(self, factor: float, **changes: Any) -> DescriptionLength:
        def times(value: float | None) -> float | None:
            return None if value is None else value * factor

        return replace(
            self,
            fit=times(self.fit),
            displacement=times(self.displacement),
            dimension_term=self.dimension_term * factor,
            spectrum_term=self.spectrum_term * factor,
            tuning_cost=self.tuning_cost * factor,
            stderr=self.stderr * factor,
            complexity_error=self.complexity_error * factor,
            displacement_error=self.displacement_error * factor,
            **changes,
        )
