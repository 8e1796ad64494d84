"""The search for the largest distinct eigenvalues by steps without a basis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.spectrum.distinct import Distinct, distinct
from lightlike.spectrum.locking import Beside, lock, without
from lightlike.spectrum.probes import Operator
from lightlike.spectrum.threeterm import ThreeTerm
from lightlike.spectrum.tridiagonal import Measure

# Steps ahead of the first look, and how many times as many ahead of the next one.
FIRST, GROWTH = 8, 1.05
# What was found has to stay for so many steps more, and for this share of those taken.
STAY, STAY_SHARE = 8, 0.1
# Vectors that are taken out are to be better than eigenvalues are asked for by this factor, but
# not better than this many rounding units.
SHARPER, UNITS = 1.5, 400.0


@dataclass(frozen=True, eq=False)
class Sought:
    """What a search has come to.

    Attributes:
        run: The steps from the first start, which are of F itself.
        measure: Of the steps that found eigenvalues: those, or others beside vectors taken out.
        locked: Eigenvalues of X F Xᵀ for X taken out, (k,).
        coupling: R, how far those are from eigenvalues of F at most.
    """

    run: ThreeTerm
    measure: Measure
    locked: Tensor
    coupling: float


def search(
    operator: Operator,
    starts: tuple[Tensor, Tensor],
    count: int,
    taken: int,
    tolerance: float,
    most: int,
) -> Sought:
    """The largest distinct eigenvalues.

    Args:
        operator: F.
        starts: (n,) each, random: of the first steps, and of those beside vectors taken out.
        count: How many.
        taken: Of how many the vectors are taken out for a search beside them.
        tolerance: Of each, relative to the largest.
        most: Steps of each search at most.

    Raises:
        EstimateError: if they do not do.
    """
    run = ThreeTerm(operator, starts[0])
    if not taken:
        seek(run, count, tolerance, most)
        return Sought(run, run.measures()[0], torch.zeros(0, dtype=torch.float64), 0.0)
    sharp = max(tolerance / (SHARPER * math.sqrt(taken)), UNITS * operator.precision)
    # None of them need be the next largest: what is missed here is found beside them.
    seek(run, taken, sharp, most, stay=False)
    locked = lock(operator, starts[0], run.measures()[0], taken, sharp)
    beside = ThreeTerm(
        Beside(operator, locked.rows), without(locked.rows, without(locked.rows, starts[1]))
    )
    seek(beside, count, tolerance, most, locked=locked.values, coupling=locked.coupling)
    return Sought(run, beside.measures()[0], locked.values, locked.coupling)


def seek(
    run: ThreeTerm,
    count: int,
    tolerance: float,
    most: int,
    *,
    locked: Tensor | None = None,
    coupling: float = 0.0,
    stay: bool = True,
) -> Distinct:
    """Steps until the largest distinct eigenvalues are known to a tolerance, and stay the same.

    Args:
        run: At its start.
        count: How many; fewer are found where there are no more, or the others cannot be told from
            zero to the tolerance.
        tolerance: Of each, relative to the largest.
        most: Steps at most.
        locked: See `lightlike.spectrum.distinct.distinct`.
        coupling: And this.
        stay: Whether what was found has to stay the same for some steps more.

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
        found = distinct(run.measures(), count, tolerance, locked, coupling)
        if not stay and len(found) == count:
            return found
        if found.unsettled:
            held = None
        elif held is None or not held.same(found):
            held, since = found, run.steps
        elif run.steps >= since + max(STAY, int(STAY_SHARE * since)):
            return found
    found = distinct(run.measures(), count, tolerance, locked, coupling)
    if not run.finished:
        raise EstimateError(
            f"{run.steps:,} steps did not settle {count:,} eigenvalues to {tolerance:.1g} of the "
            f"largest: {len(found):,} are known, {found.unsettled:,} on their way.",
            "Returned as they are, one among them might be missing.",
            "Raise maximum=... or tolerance=..., or ask for fewer.",
        )
    return found
