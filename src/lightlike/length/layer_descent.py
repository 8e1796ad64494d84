"""One variance a layer at a minimum of the evidence, variances of 0 among them.

MacKay's fixed point σ_l² ← |δ_l|²/γ_l (doi:10.1162/neco.1992.4.3.415) is taken as long as it lowers
the criterion; L-BFGS (doi:10.1007/BF01589116) goes on from there. A layer whose variance shrinks to
nothing is set to 0 and stays there if the criterion rises with the variance from 0 on: the
condition of Karush, Kuhn and Tucker for a minimum over σ_l² ≥ 0.

In a network the razor often falls all the way to 0: the quadratic model at θ̂ lets one layer do the
work of all, where the network could not. So a limit of 0 is believed only if the network's own loss
at the posterior mean is what the quadratic model promises; always so in linear models. Where it is
not, the variances are those that maximise Laplace's evidence with θ̂ for its mode, which has exactly
one maximum, and the record says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from torch import Tensor

from lightlike.errors import DataError, ModelError, PriorError
from lightlike.length.layer_evidence import (
    LOG_RANGE,
    Criterion,
    LayerEvidence,
    Layers,
    ModeEvidence,
    Point,
    layers_of,
)
from lightlike.length.prior import ResolvedPrior
from lightlike.metric.root import Root
from lightlike.problem.parameters import Entry
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition

# Fixed-point steps before L-BFGS takes over, and by how much |δ_l|²/(γ_l σ_l²) may be off 1.
STEPS = 20
CLOSE, ENOUGH = 1e-8, 1e-4
# A layer with fewer parameters determined than this may be tried at a variance of 0.
VANISHING = 1e-2
# Share of the complexity by which the loss may be off what the quadratic model promises.
CONFIRMED = 0.1


def fit_layers(
    problem: Problem,
    prior: ResolvedPrior,
    groups: Mapping[str, list[Entry]],
    decomposition: Decomposition,
    gradient: Tensor,
    start: float,
) -> ResolvedPrior:
    """The variances of layers at a minimum of the razor, or of Laplace's bound on it.

    It is the minimum that the descent from one common variance leads to; others may exist.

    Args:
        problem: Model, data and likelihood at θ̂.
        prior: With any variance where it is to be fitted.
        groups: The parameters that share a fitted variance, by layer.
        decomposition: Of A.
        gradient: ∇NLL_total(θ̂).
        start: The common variance to start from.

    Returns:
        The prior; in its description `fitted_by` is "evidence" or "laplace", and `limits` names the
        layers whose evidence is largest at a limit, with that limit.

    Raises:
        PriorError: if neither has a minimum, naming the layer and the limit; if the labels do not
            depend on a layer; or in lower precision than float64.
        CapacityError: if the layers' Gram matrices do not fit in memory.
    """
    if decomposition.rounding is not None:
        raise PriorError(
            "Variances of layers are fitted in float64 only.",
            "The error of products in float32 is known for all layers together, not for each.",
            "Measure with dtype='float64', or give the variances as numbers.",
        )
    layers = layers_of(problem, prior, groups, decomposition, gradient)
    for name, gram in zip(groups, layers.grams, strict=True):
        if not float(gram.diagonal().sum()) > 0:
            raise PriorError(
                f"No output depends on layer {name!r}.",
                "The labels say nothing about the variance of its parameters.",
                f"Give it as a number: PerLayer({{{name!r}: 1.0, '.*': 'evidence'}}).",
            )
    names, first = list(groups), np.full(len(groups), math.log(start))
    razor = LayerEvidence(layers)
    t, point = lowest(razor, first)
    check_interior(t, point, names)
    limits = {name: 0.0 for name, at in zip(names, t, strict=True) if at == -math.inf}
    variance, by = _spread(prior, groups, t), "evidence"
    if limits:
        root = decomposition.factor
        assert isinstance(root, Root)
        there = prior.mean + razor.displacement(t, variance)
        complexity = float(layers.factor(t).diagonal().log().sum())
        if not _confirmed(problem, root, there, gradient, complexity):
            t, by = _at_mode(problem, prior, groups, layers, first), "laplace"
            variance = _spread(prior, groups, t)
    if not bool((variance > 0).any()):
        raise _unbounded(names[0], 0.0, 0.0)
    given = prior.description["variance"]
    known = given if isinstance(given, Mapping) else {}
    values = {name: v for name, v in known.items() if not isinstance(v, str)}
    values |= dict(zip(groups, np.exp(t).tolist(), strict=True))
    description = {**prior.description, "variance": values, "fitted_by": by}
    if limits:
        description["limits"] = limits
    return replace(prior, variance=variance, tuned=len(groups), description=description)


def lowest(criterion: Criterion, start: np.ndarray) -> tuple[np.ndarray, Point]:
    """The t at a minimum over σ² ≥ 0 within the search range, −∞ for a variance of 0."""
    limits = criterion.layers.limits
    t = np.minimum(start, limits)
    point = criterion(t)
    # Every round but the last takes layers to 0 or back, each at most once.
    for _ in range(2 * len(t) + 1):
        t, point = _step(criterion, t, point, limits)
        if (vanished := _vanished(criterion, t, point)) is not None:
            t, point = vanished
            continue
        t, point = _refined(criterion, t, point, limits)
        if (vanished := _vanished(criterion, t, point)) is not None:
            t, point = vanished
            continue
        back = (t == -math.inf) & (point.slope < 0)
        if not bool(back.any()):
            break
        t = np.where(back, np.minimum(start, limits), t)
        point = criterion(t)
    return t, point


def check_interior(t: np.ndarray, point: Point, names: Sequence[str]) -> None:
    """Raise a PriorError unless the derivatives vanish where variances are not 0."""
    for name, at, gamma, moved in zip(names, t, point.gamma, point.moved, strict=True):
        if at == -math.inf or (at > 1 - LOG_RANGE and abs(moved / gamma - 1) <= ENOUGH):
            continue
        raise _unbounded(name, 0.0 if moved < gamma else math.inf, math.exp(at))


def _unbounded(name: str, limit: float, reached: float) -> PriorError:
    towards = "0" if limit == 0.0 else "infinity"
    return PriorError(
        f"The evidence has no maximum: it grows as the variance of layer {name!r} goes to "
        f"{towards} (it was followed to {reached:.2g}).",
        "At this point the labels do not determine how far the layer's parameters lie from "
        "their prior mean.",
        f"Give this variance as a number, PerLayer({{{name!r}: ..., '.*': 'evidence'}}), or "
        "another prior mean.",
    )


def _step(
    criterion: Criterion, t: np.ndarray, point: Point, limits: np.ndarray
) -> tuple[np.ndarray, Point]:
    """Fixed-point steps, as long as they descend and no layer vanishes."""
    free = t > -math.inf
    for _ in range(STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(free, np.log(point.moved / point.gamma), 0.0)
        if bool((abs(step) <= CLOSE).all()) or bool((free & (point.gamma < VANISHING)).any()):
            break
        trial = np.where(free, np.clip(t + step, -LOG_RANGE, limits), t)
        found = criterion(trial)
        if not found.value < point.value:
            break
        t, point = trial, found
    return t, point


def _vanished(criterion: Criterion, t: np.ndarray, point: Point) -> tuple[np.ndarray, Point] | None:
    """The same with layers at 0 that shrink to it, or None if none does."""
    shrinking = (t > -math.inf) & (point.gamma < VANISHING) & (point.slope > 0)
    if not bool(shrinking.any()):
        return None
    trial = np.where(shrinking, -math.inf, t)
    with np.errstate(divide="ignore"):
        found = criterion(trial)
    if found.value <= point.value and bool((found.slope[shrinking] > 0).all()):
        return trial, found
    return None


def _refined(
    criterion: Criterion, t: np.ndarray, point: Point, limits: np.ndarray
) -> tuple[np.ndarray, Point]:
    """The minimum over the layers that are not at 0, by their derivatives."""
    free = t > -math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(free, abs(np.log(point.moved / point.gamma)), 0.0)
    if not bool((off > CLOSE).any()):
        return t, point

    def whole(part: np.ndarray) -> np.ndarray:
        found = t.copy()
        found[free] = part
        return found

    def objective(part: np.ndarray) -> tuple[float, np.ndarray]:
        found = criterion(whole(part))
        return found.value, 0.5 * (found.gamma - found.moved)[free]

    best = minimize(
        objective,
        t[free],
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LOG_RANGE, limit) for limit in limits[free].tolist()],
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000},
    ).x
    t = whole(best)
    return t, criterion(t)


def _spread(prior: ResolvedPrior, groups: Mapping[str, list[Entry]], t: np.ndarray) -> Tensor:
    """All variances, (D,)."""
    variance = prior.variance.clone()
    for fitted, entries in zip(np.exp(t).tolist(), groups.values(), strict=True):
        for entry in entries:
            variance[entry.start : entry.stop] = fitted
    return variance


def _confirmed(
    problem: Problem, root: Root, there: Tensor, gradient: Tensor, complexity: float
) -> bool:
    """Whether the loss at a point is what the quadratic model at θ̂ makes of it."""
    away = there - problem.theta
    nll = problem.survey.nll
    assert nll is not None
    square = float(root.mv(away).square().sum())
    promised = float(nll.sum()) + float(gradient @ away)
    promised += 0.5 * problem.survey.observations * square
    try:
        found = problem.at(there).survey.nll
    except (DataError, ModelError):
        # Outputs that are no numbers, where the quadratic model promised some.
        return False
    assert found is not None
    return abs(float(found.sum()) - promised) <= CONFIRMED * max(1.0, complexity)


def _at_mode(
    problem: Problem,
    prior: ResolvedPrior,
    groups: Mapping[str, list[Entry]],
    layers: Layers,
    start: np.ndarray,
) -> np.ndarray:
    """The t at the minimum of Laplace's criterion, which is the only one."""
    away = (problem.theta - prior.mean).square()
    squares = np.array(
        [sum(float(away[e.start : e.stop].sum()) for e in entries) for entries in groups.values()]
    )
    for name, square in zip(groups, squares, strict=True):
        if not square > 0.0:
            raise _unbounded(name, 0.0, 0.0)
    t, point = lowest(ModeEvidence(layers, squares), start)
    check_interior(t, point, list(groups))
    return t
