"""How the columns of a root are sampled: the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightlike.errors import ChoiceError, choice_error
from lightlike.numbers import is_finite, is_whole

# Replicates whose spread is a standard error to go by.
FEWEST = 4


@dataclass(frozen=True)
class Columns:
    """How columns of a root A are sampled: a share of the output units of every layer.

    Given as `method`, or "columns" for the defaults. Each layer is sampled by itself and without
    replacement, so that small ones are kept whole; a parameter stands for 1/share others.

    Args:
        share: Of the columns, above 0, at most 1. Time and memory of inner products fall in
            proportion, the standard error rises as one over its root.
        replicates: Parts of equal size that the sample is divided into, four or more: standard
            error and bias come from leaving out one after the other, each by a factorisation. The
            standard error has one degree of freedom less than there are replicates: of four,
            1.6 of them cover 80 %, not 90 %. Fewer take less memory.

    Raises:
        ChoiceError: if a number is out of range.
    """

    share: float = 0.125
    replicates: int = 8

    def __post_init__(self) -> None:
        if not is_finite(self.share) or not 0.0 < self.share <= 1.0:
            raise choice_error("share", self.share, ["a number above 0, 1 at most"])
        if not is_whole(self.replicates) or self.replicates < FEWEST:
            raise ChoiceError(
                f"Columns(replicates={self.replicates!r}) gives no standard error to go by.",
                "An estimate without one cannot be told from a guess.",
                f"Use {FEWEST} replicates or more, as a whole number.",
            )


def as_columns(method: Any) -> Columns | None:
    """The sample of columns that a `method` means, if it means one."""
    if isinstance(method, Columns):
        return method
    return Columns() if method == "columns" else None
