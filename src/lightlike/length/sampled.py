"""What sub-samples of n of N observations say of the complexity on all of them.

Let Î_n be the mean over a sub-sample and Î that over all. With c = N σ²:

- n Î_n ⪯ N Î, so that ½ log det(I + n σ² Î_n) and rank Î_n are certain lower bounds of the
  complexity and the dimension on all observations: both only grow with data;
- E Î_n = Î for sub-samples drawn uniformly, and log det(I + c ·) is concave, so that by Jensen's
  inequality ½ log det(I + N σ² Î_n) is at most the complexity in expectation, and nearer to it;
- E tr Î_n = tr Î, and of all spectra with d eigenvalues and this trace the flat one has the
  largest log-determinant: the complexity is at most ½ d log(1 + N σ² tr Î/d), d = min(D, K).

Nothing two-sided is known without an assumption on how the spectrum grows, and none is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightlike.errors import ChoiceError
from lightlike.numbers import check_positive, check_whole
from lightlike.spectrum.density import Density
from lightlike.spectrum.estimate import Estimate


@dataclass(frozen=True)
class Extrapolation:
    """Bounds on the complexity under N(μ, σ²I) on N observations, from sub-samples of n.

    Attributes:
        observations: N.
        sampled: n.
        certain: The largest ½ log det(I + n σ² Î_n), as it is bounded below by quadrature at the
            level of confidence; whatever the sub-samples, the complexity is above it.
        below: Mean of ½ log det(I + N σ² Î_n): at most the complexity in expectation, with a
            standard error by sub-samples and probes.
        above: ½ d log(1 + N σ² tr/d) of the mean trace, at its upper end at the level.
        trace: Unbiased for tr Î.
        dimension: A certain lower bound of rank Î.
        level: Of confidence.
    """

    observations: int
    sampled: int
    certain: float
    below: Estimate
    above: float
    trace: Estimate
    dimension: int
    level: float


def extrapolate(
    densities: Sequence[Density],
    *,
    sampled: int,
    observations: int,
    rows: int,
    variance: float = 1.0,
    level: float = 0.95,
) -> Extrapolation:
    """Bounds on the complexity on all observations, from quadratures of sub-samples.

    Args:
        densities: Of Î_n of independent sub-samples, drawn uniformly, with different seeds.
        sampled: n.
        observations: N.
        rows: K of all observations, N rank Λ.
        variance: σ².
        level: Of confidence, for what is left to chance.

    Raises:
        ChoiceError: if there are fewer than two, or a number is out of range.
    """
    check_whole("sampled", sampled, 1)
    check_whole("observations", observations, sampled)
    check_whole("rows", rows, 1)
    check_positive("variance", variance)
    if len(densities) < 2:
        raise ChoiceError(
            f"{len(densities)} sub-sample{'' if len(densities) == 1 else 's'} cannot be "
            "extrapolated.",
            "How far sub-samples differ is not known from one.",
            "Take two or more.",
        )
    if len({density.seed for density in densities}) < len(densities):
        raise ChoiceError(
            "Densities of different sub-samples were made with the same seed.",
            "Their probes' errors would not average out, and the standard error would not say so.",
            "Give each a seed of its own.",
        )
    here = [0.5 * d.logdet(sampled * variance).interval(level)[0] for d in densities]
    whole = [d.logdet(observations * variance).times(0.5) for d in densities]
    trace = Estimate.of([d.trace.value for d in densities])
    most = min(densities[0].size, rows)
    highest = trace.interval(level)[1]
    assert isinstance(highest, float)
    return Extrapolation(
        observations=observations,
        sampled=sampled,
        certain=max(here),
        below=Estimate.of([w.lower for w in whole], "below"),
        above=0.5 * most * math.log1p(observations * variance * highest / most),
        trace=trace,
        dimension=max(d.least_rank for d in densities),
        level=level,
    )
