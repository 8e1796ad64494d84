"""How a matrix is sketched: the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightlike.errors import ChoiceError, choice_error

DISTRIBUTIONS = ("normal", "rademacher")


@dataclass(frozen=True)
class Sketch:
    """How a root A is sketched: r random combinations of each observation's rows in their place.

    Given as `method`, or "sketch" for the defaults.

    Args:
        draws: r; as many as fit in memory, 8 at most, unless given.
        repetitions: Independent sketches, two or more; standard errors come from them.
        distribution: "normal", or "rademacher" (±1).

    Raises:
        ChoiceError: if a number is too small or the distribution unknown.
    """

    draws: int | None = None
    repetitions: int = 4
    distribution: str = "normal"

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise choice_error("distribution", self.distribution, [*map(repr, DISTRIBUTIONS)])
        if self.draws is not None and not (isinstance(self.draws, int) and self.draws > 0):
            raise choice_error("draws", self.draws, ["None", "a whole number from 1 up"])
        if not (isinstance(self.repetitions, int) and self.repetitions > 1):
            raise ChoiceError(
                f"Sketch(repetitions={self.repetitions!r}) gives no standard error.",
                "An estimate without one cannot be told from a guess.",
                "Use two repetitions or more.",
            )

    @property
    def half(self) -> int | None:
        """Half the draws, rounded down; None if that is nothing."""
        return self.draws // 2 if self.draws is not None and self.draws > 1 else None


def as_sketch(method: Any) -> Sketch | None:
    """The sketch that a `method` means, if it means one."""
    if isinstance(method, Sketch):
        return method
    return Sketch() if method == "sketch" else None
