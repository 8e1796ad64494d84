"""How many rows to draw in place of the exact ones, and what that costs."""

from __future__ import annotations

from lightlike.errors import CapacityError, ChoiceError
from lightlike.metric.root import Root
from lightlike.problem.draws import Draws
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.routes import Route, routes
from lightlike.spectrum.sketch import Sketch

# Draws an observation unless told: the bias falls about as 1/draws, the cost rises in proportion.
MOST = 8


def sketched(root: Root, draws: Draws) -> Root:
    """S with E[SᵀS] = AᵀA, (N r, D): the rows Ξ_iᵀ L_iᵀ J_i / √N in place of L_iᵀ J_i / √N.

    Ξ_i (rank Λ_i × r) has independent entries of mean 0 and variance 1/r that depend on the seed
    and on the observation's place in the data alone: any split into batches gives the same S.

    Raises:
        ValueError: if the root is a sketch already.
    """
    return Root(root.problem.sketched(draws), root.weights, root.layer)


def draw_memory(root: Root) -> float:
    """Bytes that one draw an observation takes while rows are made: L_i Ξ_i and its source."""
    survey = root.problem.survey
    return 4 * 8.0 * survey.width * max(survey.samples) * survey.positions


def inner_route(root: Root, draws: int, budget: float) -> Route | None:
    """The cheapest route for the sketch with r draws an observation that fits, if one does."""
    rows = draws * root.problem.survey.observations
    found = routes(rows, root.shape[1], root.cost(budget, rows))
    left = budget - draws * draw_memory(root)
    return next((route for route in found if route.fits(left)), None)


def fit_draws(root: Root, sketch: Sketch, budget: float) -> tuple[int, Route]:
    """Draws an observation that fit in a budget of bytes, and the route for the sketch.

    Raises:
        ChoiceError: if the exact root has no more rows than the sketch would.
        CapacityError: if the draws asked for, or a single one, do not fit.
    """
    observations, rank = root.problem.survey.observations, root.problem.survey.rank
    asked = sketch.draws or 1
    if asked >= rank:
        raise ChoiceError(
            f"A sketch with draws={asked} has no fewer rows than the exact root, which has {rank} "
            "for each observation.",
            "It would be an estimate at the price of the exact numbers.",
            "Use method='auto'" + (" or fewer draws." if rank > 1 else "."),
        )
    most = min(MOST, rank - 1) if sketch.draws is None else sketch.draws
    for draws in range(most, 0, -1):
        route = inner_route(root, draws, budget)
        if route is not None:
            break
    if route is not None and draws >= asked:
        return draws, route
    fewer = f"Use Sketch(draws={draws}), which fits; measure" if route is not None else "Measure"
    raise CapacityError(
        f"A sketch of {observations:,} observations with draws={asked} does not fit in "
        f"{format_bytes(budget)}.",
        "Going on would swap or be killed half-way.",
        f"{fewer} fewer observations, select fewer parameters with parameters=..., or raise "
        "memory=... if more is there.",
    )


def sketch_route(root: Root, sketch: Sketch, budget: float) -> Route:
    """What the sketch costs in all, its repetitions and those with half the draws included.

    Raises:
        ChoiceError, CapacityError: as `fit_draws`.
    """
    draws, route = fit_draws(root, sketch, budget)
    operations = route.operations
    if draws > 1:
        half = inner_route(root, draws // 2, budget)
        operations += half.operations if half is not None else 0.0
    rank = root.problem.survey.rank
    return Route(
        "sketch",
        operations * sketch.repetitions,
        route.memory + draws * draw_memory(root),
        f"{sketch.repetitions} × {route.reason}, "
        f"{draws:,} draw{'s' if draws > 1 else ''} for {rank:,} rows",
        exact=False,
    )


def sketch_that_fits(root: Root, budget: float) -> Route | None:
    """The default sketch of a root, if it has one that fits."""
    try:
        return sketch_route(root, Sketch(), budget)
    except (ChoiceError, CapacityError):
        return None
