"""What a measurement would cost and whether it would be exact, told before it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightlike.assess.accounts import check_accounts
from lightlike.assess.estimating import Options, estimate_stages
from lightlike.assess.exacting import Asked, Stage, exact_stages, largest_exact, peak, settled
from lightlike.assess.parts import Method, check_method, is_exact
from lightlike.assess.passes import Passes
from lightlike.meter import format_seconds
from lightlike.metric.alternatives import (
    estimates,
    leading_route,
    probing_route,
    thinning_route,
)
from lightlike.metric.drawing import sketch_route
from lightlike.metric.fisher import Fisher, fisher
from lightlike.metric.kronecker.cost import approximation_route
from lightlike.metric.kronecker.options import as_kronecker
from lightlike.metric.root import Root
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.precision import name_of
from lightlike.results import Result
from lightlike.spectrum.columns import as_columns
from lightlike.spectrum.memory import format_bytes, resolve_memory
from lightlike.spectrum.partial import as_lanczos
from lightlike.spectrum.quadrature import Quadrature, as_quadrature
from lightlike.spectrum.routes import Route, choose, routes
from lightlike.spectrum.sketch import as_sketch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Alternatives that are told.
ALTERNATIVES = 3
# What the answer of a route is worth that does not take every row.
WORTH = {
    "sketch": "estimated",
    "slq": "estimated",
    "columns": "estimated",
    "kronecker": "approximate",
    "lanczos": "certain bounds",
}
# What each of those takes a method for.
ESTIMATES: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("sketch", as_sketch),
    ("kronecker", as_kronecker),
    ("slq", as_quadrature),
    ("lanczos", as_lanczos),
    ("columns", as_columns),
)


@dataclass(frozen=True)
class LayerPlan:
    """How the rows of a layer's parameters are multiplied.

    Attributes:
        parameters: Their names.
        order: "inner products", "entries", "pairs of positions" or "shared tokens".
        share: Of the operations of the Gram matrix.
        aligned: Whether one backward pass serves a whole batch; otherwise one sample.
    """

    parameters: tuple[str, ...]
    order: str
    share: float
    aligned: bool


@dataclass(frozen=True)
class Plan(Result):
    """The route that a measurement would take, and the others.

    Attributes:
        method: "gram", "metric", "svd", "sketch", "kronecker", "slq", "lanczos" or
            "columns".
        exact: Whether the result would be exact: from every whitened row L_iᵀ J_i, all routes but
            the sketch and approximations, and in float64.
        memory: Peak bytes of the whole measurement, estimated; its route alone may take less, and
            that decides whether it fits.
        seconds: Time of the whole measurement: counts of operations and bytes over this machine's
            rates, and parts of passes over the data that were timed.
        reason: What it would do, with the sizes.
        alternatives: Three other routes at most: those that fit before those that do not, exact
            ones before estimates, then the cheapest first.
        parameters: D.
        observations: N.
        rows: K.
        budget: Bytes that may be used.
        rate: Measured float64 operations a second.
        dtype: "float64" or "float32".
        layers: How the inner products of each layer's rows would be made on the Gram route, with
            their share of its operations, in the order of the model.
        stages: Seconds of each stage of the measurement, in order.
        times: Seconds of a measurement by each of the alternatives.
        largest: Most observations of this kind that an exact route would fit in the budget, None if
            any number would.
    """

    method: str
    exact: bool
    memory: float
    seconds: float
    reason: str
    alternatives: tuple[Route, ...]
    parameters: int
    observations: int
    rows: int
    budget: int
    rate: float
    dtype: str = "float64"
    layers: tuple[LayerPlan, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    times: tuple[float, ...] = ()
    largest: int | None = None

    def time_of(self, route: Route) -> float:
        """Seconds of a measurement by an alternative."""
        return self.times[self.alternatives.index(route)]

    def plot(self, ax: Any = None) -> Figure:
        """Memory of each route, under what may be used, as a figure.

        Args:
            ax: Axes to draw in; a figure of its own unless given.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.values import plot_amounts

        rows = self._records()
        texts = [f"{format_bytes(r['memory'])}, {format_seconds(r['seconds'])}" for r in rows]
        most = max(r["memory"] for r in rows)
        return plot_amounts(
            [(r["method"], r["memory"]) for r in rows],
            f"{self.method}: {texts[0]}",
            "memory of each route, the chosen one first",
            texts=texts,
            marks={"budget": self.budget} if self.budget < 4 * most else {},
            ax=ax,
        )

    def _records(self) -> list[dict[str, Any]]:
        first = {"method": self.method, "chosen": True, "exact": self.exact,
                 "seconds": self.seconds, "memory": self.memory, "fits": True,
                 "reason": self.reason}  # fmt: skip
        return [first] + [
            {
                "method": route.method, "chosen": False, "exact": route.exact,
                "seconds": self.time_of(route), "memory": route.memory,
                "fits": route.fits(self.budget), "reason": route.reason,
            }
            for route in self.alternatives
        ]  # fmt: skip

    def __str__(self) -> str:
        worth = "exact, every row whitened" if self.exact else WORTH.get(self.method, "")
        if not worth:
            worth = f"every row whitened, in {self.dtype}: large eigenvalues, with their error"
        lines = [
            f"D = {self.parameters:,} parameters, N = {self.observations:,} observations, "
            f"K = {self.rows:,} rows ({self.rows // self.observations:,} an observation)",
            f"route    {self.method}: {self.reason}; {worth}",
            f"cost     {format_seconds(self.seconds)}, {format_bytes(self.memory)} of "
            f"{format_bytes(self.budget)}",
        ]
        most = "any number of" if self.largest is None else f"at most {self.largest:,}"
        lines.append(f"exact    with {most} observations, in this memory")
        if self.method == "gram" and self.layers:
            orders: dict[str, float] = {}
            for layer in self.layers:
                orders[layer.order] = orders.get(layer.order, 0.0) + layer.share
            ranked = sorted(orders.items(), key=lambda item: -item[1])
            lines.append("layers   by " + ", ".join(f"{k} ({v:.0%})" for k, v in ranked))
        for route in self.alternatives:
            worth = WORTH.get(route.method, "exact" if self.dtype == "float64" else self.dtype)
            lines.append(
                f"or       {route.method}: {route.reason}, "
                f"{format_seconds(self.time_of(route))}, {format_bytes(route.memory)}; {worth}"
                + ("" if route.fits(self.budget) else "; does not fit")
            )
        return "\n".join(lines)


def plan(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    *,
    parameters: str | Sequence[str] | None = None,
    method: Method = "auto",
    memory: int | float | str | None = None,
    dtype: str | torch.dtype = "float64",
    layers: bool | None = None,
    explain: bool = False,
    saturation: bool = False,
    projections: bool | None = None,
) -> Plan:
    """What `measure` would do with these arguments: route, exactness, memory and time.

    Evaluates the model once on all data. Times some passes of the first batch with few rows an
    observation, one tile of inner products, and products and decompositions of small matrices;
    nothing large is allocated. What only the numbers can tell is not in it: eigenvalues of A Aᵀ
    that rounding hides take longer, and of iterations the usual number is assumed.

    Args:
        model: As of `lightlike.measure`, like all that follow.
        data: Inputs and labels.
        likelihood: Its name or an object.
        parameters: Which.
        method: The route.
        memory: What may be used.
        dtype: Of the passes.
        layers: Whether to measure the dimension of each layer.
        explain: Whether to name the sources of null directions.
        saturation: Whether to follow the dimension against observations.
        projections: Whether to keep what re-analysis needs.

    Raises:
        CapacityError: if no exact route fits; it names the sizes, the largest number of
            observations that would fit, and the ways out.
        ChoiceError: for an option that `measure` would refuse.
    """
    F = fisher(model, data, likelihood, parameters, dtype=dtype)
    return plan_for(F, method, memory, Asked(layers, explain, saturation, projections))


def plan_for(
    F: Fisher, method: Method, memory: int | float | str | None, asked: Asked | None = None
) -> Plan:
    """The plan for a Fisher matrix, and what is asked for besides the method.

    Raises:
        CapacityError, ChoiceError: as `plan`.
    """
    check_method(method)
    asked = asked or Asked()
    check_accounts(F, exact=is_exact(method), explain=asked.explain, saturation=asked.saturation)
    root = F.root
    budget = resolve_memory(memory)
    rows, columns = root.shape
    exact = routes(rows, columns, root.cost(budget))
    largest = largest_exact(root, budget)
    if is_exact(method):
        most = largest if method == "auto" else largest_exact(root, budget, str(method))
        inexact = estimates(root, budget)
        chosen = choose(exact, str(method), budget, lambda: inexact, most)
    else:
        chosen = asked_route(root, method, budget)
        inexact = [r for r in estimates(root, budget) if r.method != chosen.method]
    others = [r for r in (*exact, *inexact) if r is not chosen]
    others.sort(key=lambda r: (not r.fits(budget), not r.exact, r.operations))
    passes, options = Passes(root), _options(method)
    if chosen.exact:
        asked = settled(root, chosen, asked)
    stages = stages_of(passes, chosen, options, asked, budget, timed=True)
    return Plan(
        method=chosen.method,
        exact=chosen.exact and F.problem.dtype == torch.float64,
        memory=peak(root, chosen, stages),
        seconds=sum(stage.seconds for stage in stages),
        reason=chosen.reason,
        alternatives=tuple(others[:ALTERNATIVES]),
        parameters=columns,
        observations=F.problem.survey.observations,
        rows=rows,
        budget=budget,
        rate=passes.rates.product,
        dtype=name_of(F.problem.dtype),
        layers=layer_plans(root),
        stages={stage.name: stage.seconds for stage in stages},
        times=tuple(
            sum(s.seconds for s in stages_of(passes, r, options, asked, budget, timed=False))
            for r in others[:ALTERNATIVES]
        ),
        largest=largest,
    )


def stages_of(
    passes: Passes,
    route: Route,
    options: dict[str, Options],
    asked: Asked,
    budget: float,
    *,
    timed: bool,
) -> list[Stage]:
    """The stages of a measurement by a route; whether a product with Î is timed for it."""
    if route.exact:
        return list(exact_stages(passes, route, asked, budget))
    product = passes.product if timed else passes.foreseen
    return list(estimate_stages(passes, options[route.method], product, budget))


def asked_route(root: Root, method: Method, budget: int) -> Route:
    """The route of a method that is an estimate, with the options that are asked for."""
    if (sketch := as_sketch(method)) is not None:
        return sketch_route(root, sketch, budget)
    if (kronecker := as_kronecker(method)) is not None:
        return approximation_route(root, kronecker)
    if (leading := as_lanczos(method)) is not None:
        return leading_route(root, leading)
    if (sampled := as_columns(method)) is not None:
        return thinning_route(root, sampled, budget)
    return probing_route(root, as_quadrature(method) or Quadrature())


def _options(method: Method) -> dict[str, Options]:
    """The options of each estimate: those that a method means, or the defaults."""
    return {name: found(method) or found(name) for name, found in ESTIMATES}


def layer_plans(root: Root) -> tuple[LayerPlan, ...]:
    """How each unit of a root is contracted."""
    total = sum(unit.pair_operations for unit in root.units) or 1.0
    return tuple(
        LayerPlan(unit.names, unit.order, unit.pair_operations / total, unit.aligned)
        for unit in root.units
    )
