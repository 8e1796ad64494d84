"""An estimated sum over eigenvalues, with what is open by chance and by quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scipy.special import gammaincinv, ndtri, stdtrit

from lightlike.numbers import check_share
from lightlike.results import Result

Pair = tuple[float, float]


@dataclass(frozen=True)
class Enclosed(Result):
    """An estimated sum over eigenvalues; what is open by chance and by quadrature, apart.

    Attributes:
        taken: Bounds on the part of the vectors that were taken out; nothing there is random.
        seen: Bounds by quadrature on the mean over the probes.
        stderr: Standard error of that mean by chance.
        certain: Whether the bounds are certain; if not, they are two rules that differ.
        positive: Whether every summand is at least 0.
        probes: How many there were.
        bias: "none" but for the quadrature, or "below" or "above" if the mean is on that side in
            expectation.
        degrees: Of freedom of the standard error, if it is of the probes' own spread; None if it is
            of the spectrum that they saw.
    """

    taken: Pair
    seen: Pair
    stderr: float
    certain: bool
    positive: bool
    probes: int
    bias: str = "none"
    degrees: int | None = None

    @property
    def lower(self) -> float:
        """The estimate by the lower rule; chance apart."""
        return self.taken[0] + self.seen[0]

    @property
    def upper(self) -> float:
        """The estimate by the upper rule; chance apart."""
        return self.taken[1] + self.seen[1]

    @property
    def value(self) -> float:
        """Half way between them."""
        return 0.5 * (self.lower + self.upper)

    @property
    def bracket(self) -> float:
        """What quadrature leaves open on either side of the value."""
        return 0.5 * (self.upper - self.lower)

    @property
    def top_share(self) -> float:
        """The share of the value that vectors taken out contribute."""
        return 0.5 * sum(self.taken) / self.value if self.value else 1.0

    def interval(self, level: float = 0.95) -> Pair:
        """An interval for the sum at a level of confidence, open ends of the quadrature included.

        z_⊥ᵀ f(F) z_⊥ is a sum of squares with weights f(λ_k) ≥ 0, nearly a multiple of χ²; the mean
        over probes has as many degrees of freedom as give it its variance (Satterthwaite 1946,
        doi:10.2307/3002019). That is skewed where few eigenvalues count, and normal where many do.
        Student's interval where the probes' own spread is the error.

        Raises:
            ChoiceError: if the level is not between 0 and 1.
        """
        check_share("level", level)
        low, high = self.seen
        tail = 0.5 - 0.5 * level
        mean = 0.5 * (low + high)
        if not self.stderr:
            return self.lower, self.upper
        if self.degrees is not None or not self.positive or mean <= 0.0:
            low_tail = ndtri(tail) if self.degrees is None else stdtrit(self.degrees, tail)
            reach = -float(low_tail) * self.stderr
            return self.lower - reach, self.upper + reach
        shape = (mean / self.stderr) ** 2
        down, up = (float(gammaincinv(shape, p)) / shape for p in (tail, 1.0 - tail))
        return self.taken[0] + low / up, self.taken[1] + high / down

    def times(self, factor: float) -> Enclosed:
        """The same sum times a number ≥ 0."""
        scaled = [(factor * pair[0], factor * pair[1]) for pair in (self.taken, self.seen)]
        return Enclosed(
            scaled[0], scaled[1], factor * self.stderr, self.certain, self.positive, self.probes,
            self.bias, self.degrees,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "value": self.value,
            "stderr": self.stderr,
            "lower": self.lower,
            "upper": self.upper,
            "certain": self.certain,
            "top_share": self.top_share,
            "probes": self.probes,
            "bias": self.bias,
            "interval_90": list(self.interval(0.9)),
        }

    def __float__(self) -> float:
        return self.value
