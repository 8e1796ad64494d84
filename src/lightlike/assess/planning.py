"""What a measurement would cost and whether it would be exact, told before it is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightlike.assess.layers import layer_operations, worth_ranking
from lightlike.assess.parts import Method, check_method, is_exact
from lightlike.assess.passes import pass_seconds
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

# Alternatives that are told, and observations that count as any number of them.
ALTERNATIVES, ANY = 3, 10**12
# What the answer of a route is worth that does not take every row.
WORTH = {
    "sketch": "estimated",
    "slq": "estimated",
    "columns": "estimated",
    "kronecker": "approximate",
    "lanczos": "certain bounds",
}


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
        memory: Peak bytes, estimated.
        seconds: Time of the whole measurement, estimated from its operations, this machine's
            matrix-product rate, and one timed backward pass.
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
        beside: Operations of an exact measurement beside those of its route: the length, and ranks
            of layers where they are cheap.
        passes: How often an exact measurement back-propagates all rows.
        pass_seconds: How long that takes once, by one backward pass of the first batch.
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
    beside: float = 0.0
    passes: int = 2
    pass_seconds: float = 0.0
    largest: int | None = None

    def time_of(self, route: Route) -> float:
        """Seconds of a measurement by a route, estimated."""
        if route.exact:
            operations, passes = route.operations + self.beside, float(self.passes)
        elif route.method == "slq":
            # Products with the Fisher matrix are passes alone, in operations of the rows.
            operations = 0.0
            passes = route.operations / row_operations(self.rows, self.parameters)
        else:
            operations, passes = route.operations, 2.0 if route.method == "kronecker" else 1.0
        return operations / self.rate + passes * self.pass_seconds

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
) -> Plan:
    """What `measure` would do with these arguments: route, exactness, memory and time.

    Evaluates the model once on all data and once backwards on the first batch, and times one matrix
    product; nothing large is allocated.

    Raises:
        CapacityError: if no exact route fits; it names the sizes, the largest number of
            observations that would fit, and the ways out.
    """
    return plan_for(fisher(model, data, likelihood, parameters, dtype=dtype), method, memory)


def plan_for(F: Fisher, method: Method, memory: int | float | str | None) -> Plan:
    """The plan for a Fisher matrix.

    Raises:
        CapacityError: as `plan`.
    """
    check_method(method)
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
    beside, passes = work_beside(root, chosen)
    found = Plan(
        method=chosen.method,
        exact=chosen.exact and F.problem.dtype == torch.float64,
        memory=chosen.memory,
        seconds=0.0,
        reason=chosen.reason,
        alternatives=tuple(others[:ALTERNATIVES]),
        parameters=columns,
        observations=F.problem.survey.observations,
        rows=rows,
        budget=budget,
        rate=product_rate(root.device),
        dtype=name_of(F.problem.dtype),
        layers=layer_plans(root),
        beside=beside,
        passes=passes,
        pass_seconds=pass_seconds(root),
        largest=largest,
    )
    return replace(found, seconds=found.time_of(chosen))


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


def work_beside(root: Root, route: Route) -> tuple[float, int]:
    """Operations of an exact measurement that are not its route's, and passes over the rows."""
    layers = root.problem.selection.layers()
    ranks = layer_operations(root.of_layer(name) for name in layers)
    ranked = worth_ranking(ranks, route.operations)
    # A factorisation gives the length; its products with A take rows anew, as each layer does.
    length = min(root.shape) ** 3 / 3
    return length + (ranks if ranked else 0.0), 2 + (len(layers) if ranked else 0)


def row_operations(rows: int, columns: int) -> float:
    """Operations that routes count for writing out A."""
    return 6.0 * rows * columns


def largest_exact(root: Root, budget: float, method: str = "auto") -> int | None:
    """Most observations that an exact route, or one of them, fits; None if any number do.

    They have as many rows each as the present ones, and come in batches of the same size.
    """
    rank, columns = root.problem.survey.rank, root.shape[1]

    def fits(observations: int) -> bool:
        rows = observations * rank
        found = routes(rows, columns, root.cost(budget, rows))
        return any(r.fits(budget) for r in found if method in ("auto", r.method))

    if fits(ANY):
        return None
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def layer_plans(root: Root) -> tuple[LayerPlan, ...]:
    """How each unit of a root is contracted."""
    total = sum(unit.pair_operations for unit in root.units) or 1.0
    return tuple(
        LayerPlan(unit.names, unit.order, unit.pair_operations / total, unit.aligned)
        for unit in root.units
    )


@cache
def product_rate(device: torch.device, size: int = 768) -> float:
    """Float64 operations a second of a matrix product on a device, the best of three tries.

    Measured once in a process, in less than a tenth of a second on most machines.
    """
    a = torch.ones(size, size, dtype=torch.float64, device=device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
