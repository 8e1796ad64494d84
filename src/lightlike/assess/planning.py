"""What a measurement would cost and whether it would be exact, told before it is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightlike.assess.leading import leading_route
from lightlike.assess.parts import Method, check_method
from lightlike.assess.probing import probing_route
from lightlike.meter import format_seconds
from lightlike.metric.drawing import sketch_route, sketch_that_fits
from lightlike.metric.fisher import Fisher, fisher
from lightlike.metric.kronecker.cost import approximation_route
from lightlike.metric.kronecker.options import as_kronecker
from lightlike.metric.root import Root
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.precision import name_of
from lightlike.results import Result
from lightlike.spectrum.memory import format_bytes, resolve_memory
from lightlike.spectrum.partial import as_lanczos
from lightlike.spectrum.quadrature import as_quadrature
from lightlike.spectrum.routes import Route, choose, routes
from lightlike.spectrum.sketch import as_sketch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        method: "gram", "metric", "svd", "sketch", "kronecker", "slq" or "lanczos".
        exact: Whether the result would be exact: from every whitened row L_iᵀ J_i, all routes but
            the sketch and approximations, and in float64.
        memory: Peak bytes, estimated.
        seconds: Time, estimated from the operations and this machine's matrix-product rate.
        reason: What it would do, with the sizes.
        alternatives: The other routes, cheapest first.
        parameters: D.
        observations: N.
        rows: K.
        budget: Bytes that may be used.
        rate: Measured float64 operations a second.
        dtype: "float64" or "float32".
        layers: How the inner products of each layer's rows would be made on the Gram route, with
            their share of its operations, in the order of the model.
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
                "seconds": route.operations / self.rate, "memory": route.memory,
                "fits": route.fits(self.budget), "reason": route.reason,
            }
            for route in self.alternatives
        ]  # fmt: skip

    def __str__(self) -> str:
        worth = "exact, every row whitened" if self.exact else "estimated"
        if self.method == "kronecker":
            worth = "approximate"
        elif self.method == "lanczos":
            worth = "certain bounds"
        elif not self.exact and self.method not in ("sketch", "slq"):
            worth = f"every row whitened, in {self.dtype}: large eigenvalues, with their error"
        lines = [
            f"D = {self.parameters:,} parameters, N = {self.observations:,} observations, "
            f"K = {self.rows:,} rows ({self.rows // self.observations:,} an observation)",
            f"route    {self.method}: {self.reason}; {worth}",
            f"cost     {format_seconds(self.seconds)}, {format_bytes(self.memory)} of "
            f"{format_bytes(self.budget)}",
        ]
        if self.method == "gram" and self.layers:
            orders: dict[str, float] = {}
            for layer in self.layers:
                orders[layer.order] = orders.get(layer.order, 0.0) + layer.share
            ranked = sorted(orders.items(), key=lambda item: -item[1])
            lines.append("layers   by " + ", ".join(f"{k} ({v:.0%})" for k, v in ranked))
        for route in self.alternatives:
            fits = "" if route.exact else "; estimated"
            fits += "" if route.fits(self.budget) else "; does not fit"
            lines.append(
                f"or       {route.method}: {route.reason}, "
                f"{format_seconds(route.operations / self.rate)}, "
                f"{format_bytes(route.memory)}{fits}"
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

    Evaluates the model once on all data and once backwards on the first batch; nothing large is
    allocated.

    Raises:
        CapacityError: if no exact route fits; it names the sizes and the ways out.
    """
    return plan_for(fisher(model, data, likelihood, parameters, dtype=dtype), method, memory)


def plan_for(F: Fisher, method: Method, memory: int | float | str | None) -> Plan:
    """The plan for a Fisher matrix."""
    check_method(method)
    root = F.root
    budget = resolve_memory(memory)
    rows, columns = root.shape
    candidates = routes(rows, columns, root.cost(budget))
    sketch, kronecker, probed = as_sketch(method), as_kronecker(method), as_quadrature(method)
    leading = as_lanczos(method)
    if sketch is not None:
        estimate: Route | None = sketch_route(root, sketch, budget)
    else:
        estimate = sketch_that_fits(root, budget)
    if kronecker is not None:
        chosen = approximation_route(root, kronecker)
        candidates.append(chosen)
    elif probed is not None:
        chosen = probing_route(root, probed)
        candidates.append(chosen)
    elif leading is not None:
        chosen = leading_route(root, leading)
        candidates.append(chosen)
    elif isinstance(method, str) and sketch is None:
        chosen = choose(candidates, method, budget, estimate)
    elif estimate is not None:
        chosen = estimate
    candidates += [estimate] if estimate is not None else []
    rate = product_rate(root.device)
    return Plan(
        method=chosen.method,
        exact=chosen.exact and F.problem.dtype == torch.float64,
        memory=chosen.memory,
        seconds=chosen.operations / rate,
        reason=chosen.reason,
        alternatives=tuple(r for r in candidates if r is not chosen),
        parameters=columns,
        observations=F.problem.survey.observations,
        rows=rows,
        budget=budget,
        rate=rate,
        dtype=name_of(F.problem.dtype),
        layers=layer_plans(root),
    )


def layer_plans(root: Root) -> tuple[LayerPlan, ...]:
    """How each unit of a root is contracted."""
    total = sum(unit.pair_operations for unit in root.units) or 1.0
    return tuple(
        LayerPlan(unit.names, unit.order, unit.pair_operations / total, unit.aligned)
        for unit in root.units
    )


def product_rate(device: torch.device, size: int = 768) -> float:
    """Float64 operations a second of a matrix product on a device, the best of three tries."""
    a = torch.ones(size, size, dtype=torch.float64, device=device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
