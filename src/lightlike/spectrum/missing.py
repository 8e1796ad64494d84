"""What a random start says about eigenvalues that a Krylov space may have missed.

Let g be standard normal in R^n, β_1 … β_j and the eigenvalues ϑ_1 ≥ … ≥ ϑ_j of the j-th tridiagonal
matrix those of the Lanczos process on a symmetric C from g. With p(t) = Π (t − ϑ_i), the monic
characteristic polynomial, |p(C) g| = |g| Π β_i. An eigenvector u of C with eigenvalue λ > ϑ_1 has

    |uᵀg| p(λ) = |uᵀ p(C) g| ≤ |g| Π β_i.

uᵀg is standard normal, so |uᵀg| ≤ √(π/2) δ has probability δ at most. Outside that event, which
does not depend on j, every j gives λ_max(C) ≤ μ with μ > ϑ_1 the root of

    Π (μ − ϑ_i) = √(2/π) |g| Π β_i / δ.

A start whose Krylov space is exhausted, so that Π β_i is nothing but rounding, may be followed by
another beside it: both must have missed u, the factors of both multiply, and so do the lengths.

It is a bound after the fact: as sharp as the process happens to be, where bounds in advance
(Kuczyński & Woźniakowski 1992, doi:10.1137/0613066) know its worst case only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from lightlike.spectrum.krylov import NOTHING
from lightlike.spectrum.rounding import EPS


def largest_unseen(
    ritz: NDArray[np.float64],
    steps: NDArray[np.float64],
    lengths: float,
    chance: float,
    scale: float,
) -> float:
    """μ, which λ_max(C) exceeds with probability `chance` at most.

    Args:
        ritz: ϑ, eigenvalues of the tridiagonal matrix, (j,).
        steps: β_1 … β_j, the last one being the length of the next direction.
        lengths: Σ log(√(2/π) |g|) over the starts, one unless spaces were exhausted.
        chance: δ.
        scale: Largest eigenvalue of what C is a part of: rounding is relative to it.
    """
    top, least = float(ritz.max()), NOTHING * EPS * scale
    if scale == 0.0:
        return 0.0
    goal = lengths - math.log(chance) + float(np.log(np.maximum(steps, least)).sum())
    # Every factor is at least μ − ϑ_1.
    high = top + 2.0 * math.exp(goal / len(ritz)) + least
    low = top + least

    def excess(t: float) -> float:
        return float(np.log(t - ritz).sum()) - goal

    if excess(low) >= 0.0:
        return low
    return float(brentq(excess, low, high, xtol=1e-3 * least, rtol=4 * EPS))
