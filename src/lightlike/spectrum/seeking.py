"""How long steps without a basis go on until the largest eigenvalues are found, and stay."""

from __future__ import annotations

from lightlike.errors import EstimateError
from lightlike.spectrum.distinct import Distinct, distinct
from lightlike.spectrum.threeterm import ThreeTerm

# Steps ahead of the first look, and how many times as many ahead of the next one.
FIRST, GROWTH = 8, 1.05
# What was found has to stay for so many steps more, and for this share of those taken.
STAY, STAY_SHARE = 8, 0.1


def seek(run: ThreeTerm, count: int, tolerance: float, most: int) -> Distinct:
    """Steps until the largest distinct eigenvalues are known to a tolerance and stay the same.

    Args:
        run: At its start.
        count: How many; fewer are found where there are no more, or the others cannot be told from
            zero to the tolerance.
        tolerance: Of each, relative to the largest.
        most: Steps at most.

    Raises:
        EstimateError: if they do not do.
    """
    look, since = FIRST, 0
    held: Distinct | None = None
    while not run.finished and run.steps < most:
        run.advance()
        if run.steps < look:
            continue
        look = max(look + 1, int(GROWTH * look))
        found = distinct(run.measures(), count, tolerance)
        if found.unsettled:
            held = None
        elif held is None or not held.same(found):
            held, since = found, run.steps
        elif run.steps >= since + max(STAY, int(STAY_SHARE * since)):
            return found
    found = distinct(run.measures(), count, tolerance)
    if not run.finished:
        raise EstimateError(
            f"{run.steps:,} steps did not settle {count:,} eigenvalues to {tolerance:.1g} of the "
            f"largest: {len(found):,} are known, {found.unsettled:,} on their way.",
            "Returned as they are, one among them might be missing.",
            "Raise maximum=... or tolerance=..., or ask for fewer.",
        )
    return found
