"""Whether a quadratic picture of the loss at θ can be believed, by what it promises nearby."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightlike.length.description import UNITS, DescriptionLength
from lightlike.problem.problem import Problem

# Nats, in units of what is paid for the parameters, that an expansion may promise below θ without
# a warning.
FAR = 0.5
REMEDY = "Train on, then measure."


def is_discrete(problem: Problem) -> bool:
    """Whether labels are from a finite set."""
    return problem.likelihood.uniform_nll(problem.survey.width) is not None


def impossible(length: DescriptionLength, *, discrete: bool) -> str:
    """Why no code has this length, or "" if one may: labels of a finite set cost something."""
    total = length.total
    if total is None or not discrete or total >= 0:
        return ""
    return (
        "The length is negative, which no code for discrete labels can be: θ is so far from an "
        "optimum that the quadratic expansion fails."
    )


def far(promised: float, price: float) -> str:
    """Why θ is far from an optimum, or "" if it is not.

    Args:
        promised: Nats by which the expansion takes the fit to be better nearby.
        price: Nats paid for the parameters.
    """
    if not promised > FAR * max(price, 1.0):
        return ""
    return (
        f"θ is far from an optimum: the expansion counts on a fit {promised:.1f} nats better "
        "nearby."
    )


def doubts(problem: Problem, length: DescriptionLength) -> tuple[str, ...]:
    """What is wrong with a length off an optimum, with the remedy; nothing without labels."""
    if length.total is None or length.displacement is None:
        return ()
    nats = 1.0 / (UNITS[length.units] * length.scale)
    what = impossible(length, discrete=is_discrete(problem)) or far(
        -length.displacement * nats, length.complexity * nats
    )
    return (f"{what} {REMEDY}",) if what else ()


def told_of_limits(prior: Mapping[str, Any]) -> str:
    """What became of layers whose evidence is largest at a variance of 0; "" if there are none.

    Args:
        prior: The description of a prior with fitted variances.
    """
    limits = prior.get("limits")
    if not limits:
        return ""
    named = ", ".join(map(repr, limits))
    layers = f"layer {named}" if len(limits) == 1 else f"layers {named}"
    if prior["fitted_by"] == "evidence":
        return f"The evidence is largest with {layers} held at the prior mean: variance 0."
    return (
        f"The quadratic picture would hold {layers} at the prior mean, which the network itself "
        "does not bear out; so the variances maximise Laplace's evidence with θ̂ for its mode."
    )
