"""The numbers of a measurement from products with the Fisher matrix alone, by random probes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from lightlike.assess.layers import layers_of
from lightlike.assess.setting import Parts, Setting
from lightlike.geometry.dimension import dimension_of
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.gaussian import expand
from lightlike.length.stochastic import StochasticRazor, stochastic_razor
from lightlike.metric.alternatives import probing_route
from lightlike.metric.fisher import Fisher
from lightlike.metric.kronecker.control import control_of
from lightlike.metric.operator import FisherOperator
from lightlike.problem.problem import Problem
from lightlike.spectrum.density import Density
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.enclosed import Enclosed
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.probes import Operator, sphere
from lightlike.spectrum.quadrature import Quadrature, quadrature
from lightlike.spectrum.spectrum import Spectrum

# Stream of the probes of layers' traces, apart from those of the quadrature.
LAYERS = 2**41


def measure_probes(options: Quadrature, setting: Setting) -> Parts:
    """The razor by quadrature, then the spectrum of Î itself where the prior's is another one.

    Raises:
        ChoiceError: if the dtype is not float64.
        PriorError: if more than one variance is to be fitted, or its evidence has no maximum.
        EstimateError: if a fitted variance is left to chance.
    """
    setting.check_float64("slq")
    F, seed = setting.F, setting.seed
    iterations = setting.iterations(probing_route(F.root, options))
    memory = iterations.budget
    operator = FisherOperator(F, options.most, memory // 2)
    run = iterations.run("quadrature-scaled", prior=True)
    razor = stochastic_razor(
        operator, setting.prior, expand(F.problem), options,
        seed=seed, memory=memory, state=run.state, keep=run.put,
    )  # fmt: skip
    density = razor.density
    if not razor.prior.isotropic:
        run = iterations.run("quadrature")
        density = quadrature(
            operator, options, scale=float(F.problem.survey.observations),
            seed=seed, memory=memory, state=run.state, keep=run.put,
            approximation=control_of(F.root, options, memory),
        )  # fmt: skip
    spectrum = _spectrum(density, F)
    traces = layer_traces(operator, F.problem, density.vectors, options.probes, seed)
    operator.close()
    dimension, record = dimension_of(spectrum), _record(options, operator, razor, density, traces)
    parts = {name: float(estimate) for name, estimate in traces.items()}
    return Parts(
        spectrum=spectrum,
        dimension=dimension,
        length=razor.length,
        layers=layers_of(F.root, parts, ranks=setting.layers, memory=memory),
        record={"quadrature": record},
        notes=_notes(record),
        ranked=dimension.lower == dimension.upper,
    )


def _notes(record: dict[str, Any]) -> list[str]:
    """What to keep in mind when reading estimates by quadrature."""
    complexity = record["estimates"]["complexity"]
    low, high = complexity["interval_90"]
    told = (
        f"{record['leading']:,} leading eigenvectors make up {complexity['top_share']:.0%} of it."
    )
    if record["distinct"]:
        told = (
            f"the {record['found']:,} largest distinct eigenvalues are known; steps that keep no "
            "basis see a repeated one once."
        )
    found = [
        f"Complexity from {record['probes']:,} random probes: 90 % interval {low:.4g} to "
        f"{high:.4g} nats, ± {0.5 * (complexity['upper'] - complexity['lower']):.1g} by "
        f"quadrature; {told}",
        "Of the rank there are only bounds; of the eigenvalues only the leading ones.",
    ]
    if (error := record["log_variance_stderr"]) is not None:
        found.append(
            f"The prior variance is fitted to what the probes saw: ± {error:.1%} by chance. The "
            "error of the length includes that."
        )
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
    if density.distinct is not None:
        # Any other is no larger than the last, as far as the probes have seen.
        values, errors = density.eigenvalues, density.residuals
        floor = float(values[-1] + errors[-1]) if len(values) else 0.0
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
        "found": len(density.eigenvalues),
        "steps": list(density.steps),
        "most_steps": options.steps,
        "products": razor.density.products
        + (0 if density is razor.density else density.products)
        + (0 if exact is None else exact.products)
        + options.probes
        + len(density.leading),
        "way": operator.way,
        "displacement_error": None if exact is None else exact.error,
        "log_variance_stderr": None if razor.fitted is None else razor.fitted.log_stderr,
        "estimates": {name: each.to_dict() for name, each in estimates.items()},
        "layer_traces": {name: each.to_dict() for name, each in traces.items()},
    }
