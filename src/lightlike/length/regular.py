"""The razor of Rissanen and Balasubramanian, for models whose metric is regular on a region.

L = NLL(θ̂) + (D/2) log(N/2π) + log ∫_Θ √det I(θ) dθ + ½ log(det 𝒥(θ̂) / det I(θ̂)),

with I the Fisher matrix on the sample and 𝒥 the observed information (Rissanen 1996,
doi:10.1109/18.481776; Balasubramanian 1997, doi:10.1162/neco.1997.9.2.349). It is the code of the
mixture under Jeffreys' prior on Θ, up to terms that vanish as N grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightlike.errors import CapacityError, UndefinedError, choice_error
from lightlike.length.arguments import check_fisher
from lightlike.length.codelength import CodeLength
from lightlike.length.observed import observe, require_labels, require_second_derivatives
from lightlike.length.prior import named_vector
from lightlike.length.volume import Region, Volume
from lightlike.metric.fisher import Fisher
from lightlike.metric.twice import twice
from lightlike.numbers import check_seed, check_whole, is_finite
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

Bounds = tuple[float, float] | Sequence[tuple[float, float]] | Tensor | Mapping[str, object]

METHODS = ("auto", "quadrature", "monte_carlo")
# Parameters up to which "auto" takes quadrature, it can be asked for, and anything is done.
QUADRATURE, MOST_QUADRATURE, MOST = 2, 3, 64
# Nats that the point may lie above the minimum of its quadratic picture.
STATIONARY = 1e-3
NOTE = "Regular model on a bounded region, N large; θ̂ an interior optimum."


def rissanen(
    F: Fisher,
    *,
    bounds: Bounds | None = None,
    volume: float | None = None,
    method: str = "auto",
    draws: int = 2000,
    seed: int = 0,
    tolerance: float = 1e-8,
) -> CodeLength:
    """Rissanen's and Balasubramanian's razor in nats.

    Args:
        F: From `lightlike.fisher`, at the optimum, with labels.
        bounds: The box Θ: (low, high) for all parameters, one such pair a parameter (D, 2), or a
            mapping from every parameter's name to a pair.
        volume: Instead of bounds, ∫_Θ √det I(θ) dθ where it is known in closed form.
        method: "quadrature" (adaptive; D ≤ 3), "monte_carlo" (uniform draws, with a standard
            error), or "auto": quadrature for D ≤ 2.
        draws: Of Monte Carlo.
        seed: Of Monte Carlo.
        tolerance: Relative error of the quadrature.

    Raises:
        UndefinedError: without labels; if the region is unbounded or of no volume; if I is singular
            at θ̂ or anywhere met or found on the region; if θ̂ is no optimum inside it; if the
            draws are too few to tell the integral.
        CapacityError: if D is above 64, or the integral does not converge.
        ChoiceError: if an option is not one.
    """
    check_fisher(F)
    problem = F.problem.reference
    if method not in METHODS:
        raise choice_error("method", method, [*map(repr, METHODS)])
    check_whole("draws", draws, 2)
    check_seed(seed)
    if not is_finite(tolerance) or not 1e-13 <= tolerance < 1:
        raise choice_error("tolerance", tolerance, ["a number from 1e-13 to below 1"])
    if (bounds is None) == (volume is None):
        raise choice_error("bounds", bounds, ["bounds of the region, or else volume=..."])
    size, n = problem.parameters, problem.survey.observations
    _check_size(problem)
    require_labels(problem, "razor of regular models")
    require_second_derivatives(problem)
    box = None if bounds is None else resolve_bounds(bounds, problem)
    if box is not None:
        _check_inside(problem, box)
    region = Region(problem, _around(problem) if box is None else box)
    with isolated(), twice():
        log_metric = 2 * region.log_density(problem.theta.cpu().numpy())
        log_observed, nll, decrement = _observed(problem)
        known, route = _volume(region, volume, method, int(draws), seed, tolerance)
    total = (
        nll + 0.5 * size * math.log(n / (2 * math.pi)) + known.log
        + 0.5 * (log_observed - log_metric)
    )  # fmt: skip
    sampled = route == "monte_carlo"
    return CodeLength(
        name="rissanen",
        total=total,
        fit=nll,
        stderr=known.error if sampled else 0.0,
        kind="estimated" if sampled else "exact",
        observations=n,
        note=NOTE,
        record={
            "log_volume": known.log,
            "log_volume_error": known.error,
            "log_det_ratio": log_observed - log_metric,
            "route": route,
            "points": known.points,
            "smallest_singular_value": known.smallest,
            "decrement": decrement,
            "seed": seed if sampled else None,
        },
    )


def resolve_bounds(bounds: Bounds, problem: Problem) -> Tensor:
    """Bounds of every parameter, (D, 2).

    Raises:
        UndefinedError: if they are not finite, or a side has no length.
        ChoiceError: if their shape is another.
        PriorError: if a name is missing or an entry has another shape.
    """
    size = problem.parameters
    if isinstance(bounds, Mapping):
        sides = [{name: _sides(pair)[..., k] for name, pair in bounds.items()} for k in (0, 1)]
        like = problem.theta
        box = torch.stack([named_vector(s, problem.selection, like, "bounds") for s in sides], 1)
    else:
        box = _sides(bounds)
        if box.shape == (2,):
            box = box.expand(size, 2)
    if box.shape != (size, 2):
        raise choice_error("bounds", tuple(box.shape), ["(low, high)", f"pairs ({size}, 2)"])
    if not bool(torch.isfinite(box).all()):
        raise UndefinedError(
            "The region is unbounded.",
            "The integral of √det I over it is infinite, or cannot be known to be finite.",
            "Give finite bounds, or volume=... where it is known in closed form.",
        )
    if not bool((box[:, 0] < box[:, 1]).all()):
        raise UndefinedError(
            "The region has no volume: a lower bound is not below its upper bound.",
            "The length would be −∞.",
            "Give bounds low < high, and leave fixed parameters out with parameters=....",
        )
    return box.cpu()


def _sides(given: object) -> Tensor:
    """Lower and upper bounds as a float64 tensor (..., 2)."""
    try:
        sides = torch.as_tensor(given)
        told = isinstance(given, tuple | list) and any(isinstance(side, bool) for side in given)
        if not told and sides.ndim and sides.shape[-1] == 2 and not sides.is_complex():
            return torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise choice_error("bounds", given, ["(low, high)", "a pair (low, high) a parameter"])


def _check_size(problem: Problem) -> None:
    size, rows = problem.parameters, problem.survey.rows
    if rows < size:
        raise UndefinedError(
            f"The Fisher matrix of {size:,} parameters has rank {rows:,} at most, everywhere.",
            "Its determinant is 0: the length is that of regular models only.",
            "Use the Gaussian razor, which is defined everywhere, or more observations.",
        )
    if size > MOST:
        raise CapacityError(
            f"The model has {size:,} parameters.",
            f"An integral over a box is not known to any use beyond {MOST} dimensions.",
            "Use the Gaussian razor, or give fewer parameters.",
        )


def _check_inside(problem: Problem, box: Tensor) -> None:
    theta = problem.theta.cpu()
    outside = (theta <= box[:, 0]) | (theta >= box[:, 1])
    if bool(outside.any()):
        index = int(outside.nonzero()[0])
        raise UndefinedError(
            f"Parameter {index} of θ̂ is {float(theta[index]):.6g}, not inside its bounds "
            f"({float(box[index, 0]):g}, {float(box[index, 1]):g}).",
            "The expansion takes the whole peak of the likelihood to lie in the region.",
            "Give wider bounds.",
        )


def _observed(problem: Problem) -> tuple[float, float, float]:
    """Log det 𝒥(θ̂), the NLL, and how many nats θ̂ lies above the minimum.

    Raises:
        UndefinedError: if θ̂ is no strict minimum.
    """
    found = observe(problem, "razor of regular models")
    values, vectors = found.eigen()
    decrement = found.decrement(values, vectors)
    if decrement > STATIONARY:
        raise UndefinedError(
            f"The point lies {decrement:.3g} nats above the minimum of the loss around it.",
            f"The length is that of an optimum; up to {STATIONARY:g} nats are let pass.",
            "Train on, in float64 if need be, then ask again.",
        )
    if not float(values[0]) > 1e-14 * float(values[-1]):
        raise UndefinedError(
            f"The Hessian of the loss is singular (eigenvalues from {float(values[0]):.3g} to "
            f"{float(values[-1]):.3g}).",
            "The optimum is no isolated one.",
            "Remove redundant parameters, or use the Gaussian razor.",
        )
    return float(values.log().sum()), found.nll, decrement


def _volume(
    region: Region, volume: float | None, method: str, draws: int, seed: int, tolerance: float
) -> tuple[Volume, str]:
    if volume is not None:
        if not is_finite(volume) or not volume > 0:
            raise UndefinedError(
                f"The volume is {volume!r}.",
                "The length takes its logarithm.",
                "Give a finite number above 0.",
            )
        return Volume(math.log(volume), 0.0, region.points, region.least()), "given"
    size = len(region.low)
    if method == "auto":
        method = "quadrature" if size <= QUADRATURE else "monte_carlo"
    if method == "monte_carlo":
        return region.monte_carlo(draws, seed), method
    if size > MOST_QUADRATURE:
        raise CapacityError(
            f"Quadrature in {size} dimensions takes too many points.",
            f"It is offered up to {MOST_QUADRATURE}.",
            "Use method='monte_carlo'.",
        )
    return region.quadrature(tolerance), method


def _around(problem: Problem) -> Tensor:
    """The point itself as a box, where only the metric at it is asked for."""
    return torch.stack([problem.theta, problem.theta], 1)
