"""Whether a vector lies in a subspace, and how far it is from it."""

from __future__ import annotations

from dataclasses import dataclass

from lightlike.results import Result


@dataclass(frozen=True)
class Membership(Result):
    """Whether a vector lies in the radical or the screen; true or false in a condition.

    Attributes:
        value: Whether it does.
        residual: What it misses it by, relative as `reason` says; 0 for the zero vector.
        tolerance: Largest residual that passes.
        reason: The comparison in one sentence.
    """

    value: bool
    residual: float
    tolerance: float
    reason: str

    def __bool__(self) -> bool:
        return self.value


@dataclass(frozen=True)
class Criterion:
    """How a residual is read.

    Attributes:
        subject: What is compared, such as "‖A v‖ / (s_1 ‖v‖)".
        inside: What it means if it is small.
        beyond: What it means if it is not.
    """

    subject: str
    inside: str
    beyond: str

    def judge(self, residual: float, tolerance: float) -> Membership:
        """Compare a residual with a tolerance."""
        value = residual <= tolerance
        sign, meaning = ("≤", self.inside) if value else (">", self.beyond)
        reason = f"{self.subject} = {residual:.3g} {sign} {tolerance:.3g}: {meaning}."
        return Membership(value, residual, tolerance, reason)
