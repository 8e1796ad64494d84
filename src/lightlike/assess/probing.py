"""The numbers of a measurement from products with the Fisher matrix alone, by random probes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightlike.assess.iterations import Iterations
from lightlike.assess.layers import LayerSummary
from lightlike.errors import ChoiceError
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import expand
from lightlike.length.prior import Prior
from lightlike.length.stochastic import StochasticRazor, stochastic_razor
from lightlike.metric.fisher import Fisher
from lightlike.metric.operator import FisherOperator
from lightlike.metric.root import Root
from lightlike.problem.precision import name_of
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.density import Density, Enclosed
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.probes import Operator, sphere
from lightlike.spectrum.quadrature import BLOCK, Quadrature, quadrature
from lightlike.spectrum.routes import Route
from lightlike.spectrum.spectrum import Spectrum

# Stream of the probes of layers' traces, apart from those of the quadrature.
LAYERS = 2**41
# Steps of a probe that suffice more often than not.
OFTEN = 20


@dataclass(frozen=True)
class ProbedParts:
    """What a measurement takes from stochastic quadrature.

    Attributes:
        spectrum: The leading eigenvalues, and an estimate of the trace.
        dimension: Bounds: the Ritz values that rounding leaves above 0, and min(D, K).
        length: The razor with its standard error.
        layers: Traces are estimates; dimensions are measured only if asked for.
        record: Options, products, and every estimate with its error.
    """

    spectrum: Spectrum
    dimension: Dimension
    length: DescriptionLength
    layers: list[LayerSummary]
    record: dict[str, Any]


def probing_products(root: Root, options: Quadrature) -> int:
    """Products with Î, if the steps are as many as they often are.

    Those of each probe and one for the traces of layers, those of the leading vectors, and those of
    the displacement.
    """
    steps = min(OFTEN, options.steps, root.shape[1])
    return options.probes * (steps + 1) + 5 * options.deflate + OFTEN


def probing_route(root: Root, options: Quadrature) -> Route:
    """The quadrature as a route, if the steps are as many as they often are."""
    problem = root.problem
    steps = min(OFTEN, options.steps, root.shape[1])
    products = probing_products(root, options)
    # Of an observation's rows one takes a backward pass; a product about four.
    each = 4.0 * root.cost().row_operations / max(1, problem.survey.rank)
    vectors = options.deflate + min(BLOCK, options.probes) * steps
    return Route(
        "slq",
        products * each,
        root.cost().fixed_memory + 8.0 * root.shape[1] * vectors,
        f"{options.probes:,} random probes, some {products:,} products with the Fisher matrix",
        exact=False,
    )


def measure_probes(
    F: Fisher,
    prior: Prior,
    options: Quadrature,
    *,
    seed: int,
    layers: bool | None,
    iterations: Iterations,
) -> ProbedParts:
    """The razor by quadrature, then the spectrum of Î itself where the prior's is another one.

    Raises:
        ChoiceError: if the dtype is not float64.
        PriorError: if the prior is to be fitted.
    """
    if F.problem.dtype != torch.float64:
        raise ChoiceError(
            f"method='slq' computes in float64, not {name_of(F.problem.dtype)}.",
            "The record would name a precision that no number has.",
            "Leave dtype='float64'.",
        )
    memory = iterations.budget
    operator = FisherOperator(F, options.probes * options.steps, memory // 2)
    run = iterations.run("quadrature-scaled", prior=True)
    razor = stochastic_razor(
        operator, prior, expand(F.problem), options,
        seed=seed, memory=memory, state=run.state, keep=run.put,
    )  # fmt: skip
    density = razor.density
    if not razor.prior.isotropic:
        run = iterations.run("quadrature")
        density = quadrature(
            operator, options, scale=float(F.problem.survey.observations),
            seed=seed, memory=memory, state=run.state, keep=run.put,
        )  # fmt: skip
    spectrum = _spectrum(density, F)
    traces = layer_traces(operator, F.problem, density.vectors, options.probes, seed)
    operator.close()
    return ProbedParts(
        spectrum=spectrum,
        dimension=dimension_of(spectrum),
        length=razor.length,
        layers=_layers(F, traces, layers, memory),
        record=_record(options, operator, razor, density, traces),
    )


def probe_notes(record: dict[str, Any]) -> list[str]:
    """What to keep in mind when reading estimates by quadrature."""
    complexity = record["estimates"]["complexity"]
    low, high = complexity["interval_90"]
    found = [
        f"Complexity from {record['probes']:,} random probes: 90 % interval {low:.4g} to "
        f"{high:.4g} nats, ± {0.5 * (complexity['upper'] - complexity['lower']):.1g} by "
        f"quadrature; {record['leading']:,} leading eigenvectors make up "
        f"{complexity['top_share']:.0%} of it.",
        "Of the rank there are only bounds; of the eigenvalues only the leading ones.",
    ]
    if complexity["upper"] - complexity["lower"] > 2 * complexity["stderr"]:
        found.append(
            f"Quadrature leaves more open than chance after {record['steps'][1]:,} steps: raise "
            "Quadrature(steps=...)."
        )
    left = record["displacement_error"]
    if left is not None and left > TOLERANCE:
        found.append(f"The displacement may be up to {left:.2g} nats more: see its products.")
    return found


def layer_traces(
    operator: FisherOperator, problem: Problem, vectors: Tensor, probes: int, seed: int
) -> dict[str, Estimate]:
    """The part of tr Î of every layer's parameters.

    With E the projection on a layer's parameters, Q the leading eigenvectors and P = I − Q Qᵀ, that
    is tr(E Î) = tr(QᵀE Î Q) + E[zᵀP E Î P z], whatever Q.
    """
    matrix = Operator(operator)
    Q = vectors.to(matrix.device)
    taken = (Q * (matrix @ Q)).sum(1) if Q.shape[1] else Q.new_zeros(matrix.size)
    products: list[Tensor] = []
    for index in range(probes):
        z = sphere(matrix.size, seed, range(LAYERS + index, LAYERS + index + 1), matrix.device)
        z = z - Q @ (Q.T @ z)
        products.append(taken + (z * (matrix @ z))[:, 0])
    split = [problem.selection.split(each) for each in products]
    return {
        name: Estimate.of([sum(float(part[e.name].sum()) for e in entries) for part in split])
        for name, entries in problem.selection.layers().items()
    }


def _spectrum(density: Density, F: Fisher) -> Spectrum:
    """The leading eigenvalues, with what no other one has been found to exceed as their floor."""
    lower = min(density.least_rank, *F.root.shape)
    nodes = [
        float(m.gauss.nodes[m.gauss.weights > m.noise].max()) for m in density.probes if len(m)
    ]
    floor = max([0.0, *nodes])
    shape = F.root.shape
    return Spectrum(
        Eigenvalues(
            eigenvalues=density.eigenvalues,
            trace=density.trace.value,
            shape=shape,
            kind="estimated",
            method="slq",
            floor=floor,
            residue=0.0,
            rank_bounds=(lower, min(shape)),
            reason=f"{len(density.probes):,} random probes, {density.products:,} products",
            whole=False,
            deviations=tuple(density.residuals.tolist()),
        )
    )


def _layers(
    F: Fisher, traces: dict[str, Estimate], ranks: bool | None, memory: int
) -> list[LayerSummary]:
    found = []
    for name, entries in F.problem.selection.layers().items():
        dimension = None
        if ranks:
            dimension = dimension_of(decompose(F.root.of_layer(name), "auto", memory).spectrum)
        size = sum(entry.size for entry in entries)
        found.append(LayerSummary(name, size, float(traces[name]), dimension))
    return found


def _record(
    options: Quadrature,
    operator: FisherOperator,
    razor: StochasticRazor,
    density: Density,
    traces: dict[str, Estimate],
) -> dict[str, Any]:
    exact = razor.displacement
    estimates: dict[str, Enclosed] = {
        "complexity": razor.complexity,
        "effective_dimension": razor.effective_dimension,
        "trace": density.trace,
        "squared_norm": density.squared_norm,
    }
    return {
        **asdict(options),
        "leading": len(density.leading),
        "steps": list(density.steps),
        "most_steps": options.steps,
        "products": razor.density.products
        + (0 if density is razor.density else density.products)
        + (0 if exact is None else exact.products)
        + options.probes
        + len(density.leading),
        "way": operator.way,
        "displacement_error": None if exact is None else exact.error,
        "estimates": {name: each.to_dict() for name, each in estimates.items()},
        "layer_traces": {name: each.to_dict() for name, each in traces.items()},
    }
