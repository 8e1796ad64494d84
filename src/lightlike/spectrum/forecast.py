"""How many steps it would take to make sure that no leading eigenvalue was missed."""

from __future__ import annotations

import math

import numpy as np

from lightlike.spectrum.leading import Vector, within

# Numbers of pairs that are compared, and steps of bisection in each.
CANDIDATES, BISECTIONS = 12, 8
# Share of the tolerance that pairs must meet beforehand: the bound on what was not seen will not
# be as low as the next pair suggests.
AHEAD = 0.25
# Residual relative to its eigenvalue of a pair that says how large the next ones are.
SETTLED = 0.05


def forecast(
    values: Vector,
    residuals: Vector,
    count: int,
    tolerance: float,
    decades: float,
    most: int,
) -> tuple[float, int]:
    """Steps that a search for what was missed would take, and beside how many pairs the fewest.

    Beside K pairs it has to bound what is unseen by what still bounds the errors, a multiple ρ of
    the largest that there is. A Krylov space of j steps tells the two apart by the Chebyshev
    polynomial of degree 2 j at √ρ.

    Args:
        values: θ of all pairs, descending.
        residuals: r of the same.
        count: k, how many are wanted.
        tolerance: Of errors, relative to θ_1.
        decades: Logarithm of the factor to be told apart, √n over the chance.
        most: Largest K that leaves room for the search, if that is above k.

    Returns:
        The number, infinite if no K would do, and K.
    """
    best = math.inf, count
    allowed = tolerance * float(values[0])
    # No gap is wider than θ itself.
    first, reach = values[:count], residuals[:count]
    linear, quadratic = reach > allowed, reach**2 > allowed * np.maximum(first, allowed)
    if (linear & quadratic).any():
        return best
    stride = max(1, (len(values) - count) // CANDIDATES)
    for kept in range(count, min(len(values), max(most, count) + 1), stride):
        if residuals[kept] > max(SETTLED * values[kept], AHEAD * allowed):
            break  # little is known yet of what comes there
        there = float(values[kept] + residuals[kept])
        some = values[:kept], residuals[:kept]
        low, high = there, float(values[count - 1]) + allowed
        if not (0.0 < low < high and within(*some, low, count, AHEAD * allowed)):
            continue
        for _ in range(BISECTIONS):
            middle = math.sqrt(low * high)
            if within(*some, middle, count, allowed):
                low = middle
            else:
                high = middle
        if low > there:
            steps = decades / (2.0 * math.acosh(math.sqrt(low / there)))
            best = min(best, (steps, kept))
    return best
