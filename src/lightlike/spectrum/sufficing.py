"""When the steps of a probe suffice: what quadrature leaves open is small beside chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from lightlike.spectrum.beginning import Steps
from lightlike.spectrum.tridiagonal import Measure

if TYPE_CHECKING:
    from lightlike.spectrum.quadrature import Quadrature

# Steps after which what quadrature leaves open is looked at; then again after as many times more.
FIRST, GROWTH = 4, 1.3


def take_steps(
    run: Steps,
    options: Quadrature,
    mass: float,
    scale: float | None,
    above: float | None,
) -> None:
    """Steps until what is open of every vector is small beside chance.

    Vectors that are taken out stand for one dimension each (mass 1) and are to be as sure as if
    they did not, to a share of what they would leave to chance.
    """
    look = FIRST
    if run.steps and all(_suffices(m, options, mass, scale, above) for m in run.measures()):
        return
    while run.steps < options.steps and not run.finished:
        run.advance()
        if run.steps < look or (scale is None and above is None):
            continue
        look = max(look + 1, int(GROWTH * look))
        if all(_suffices(m, options, mass, scale, above) for m in run.measures()):
            return


def _suffices(
    measure: Measure, options: Quadrature, mass: float, scale: float | None, above: float | None
) -> bool:
    """Whether what is open of a probe is below the share of the standard error it foretells."""

    def small(width: float, variance: float) -> bool:
        stderr = math.sqrt(2.0 * variance / (mass + 2.0) / options.probes)
        return 0.5 * width <= max(options.share * stderr, measure.noise * 1e-3)

    if measure.exhausted:
        return True
    if scale is not None:
        c = scale
        low, high = measure.bounds(lambda t: torch.log1p(c * t))
        if not small(high - low, measure.variance(lambda t: torch.log1p(c * t))):
            return False
    if above is not None:
        low, high = measure.above(above)
        middle = 0.5 * (low + high)
        return small(high - low, middle * (1.0 - middle))
    return True
