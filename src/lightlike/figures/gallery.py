"""Which figure an answer is drawn as: what `.plot()` calls, one entry for each kind of answer."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightlike.errors import choice_error
from lightlike.figures.bars import layer_name, plot_share, plot_sources
from lightlike.figures.chart import Place, brief
from lightlike.figures.curves import plot_path, plot_saturation
from lightlike.figures.length import plot_length, plot_steps, unit_of
from lightlike.figures.spectrum import plot_spectrum
from lightlike.figures.values import Value, plot_amounts, plot_band, plot_values
from lightlike.figures.walk import Trail, plot_walk
from lightlike.geometry.chain import DimensionChain
from lightlike.geometry.dimension import Dimension, SignificantDimension, dimension_of
from lightlike.geometry.membership import Membership
from lightlike.geometry.path import PathLength
from lightlike.geometry.saturation import Saturation
from lightlike.geometry.share import Share
from lightlike.geometry.symmetry.explanation import Explanation, ExplanationSummary, Source
from lightlike.geometry.variation import DimensionNear, DimensionPath
from lightlike.geometry.walk import Walk
from lightlike.length.codelength import CodeLength
from lightlike.length.coefficient import LearningCoefficient, SingularLength
from lightlike.length.criteria import NAMES, Criteria
from lightlike.length.description import DescriptionLength
from lightlike.length.noise import NoiseVariance
from lightlike.length.prequential import PrequentialLength
from lightlike.length.region import EffectiveDimension
from lightlike.spectrum.density import Density
from lightlike.spectrum.enclosed import Enclosed
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.inertia import Count
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.spectrum import Spectrum

# Standard errors on either side of an estimate.
WIDE = 2.0
# Powers of ten below the largest eigenvalue at which a density is counted.
DECADES = 8


@singledispatch
def draw(result: Any, ax: Place = None) -> Figure:  # noqa: ARG001 — those below draw in it
    """The figure of an answer.

    Args:
        result: The answer.
        ax: Axes to draw in; a figure of its own unless given.

    Raises:
        ChoiceError: if it is of a kind that has no figure.
    """
    raise choice_error("result", type(result).__name__, ["an answer of lightlike"])


@draw.register
def _(result: Spectrum, ax: Place = None) -> Figure:
    return plot_spectrum(result, dimension_of(result), ax=ax)


@draw.register
def _(result: Dimension, ax: Place = None) -> Figure:
    value = Value("dimension d̂", result.value, result.lower, result.upper)
    return plot_values(
        [value], f"{_between(result)} directions change the predictions", result.kind, "directions",
        ax=ax,
    )  # fmt: skip


@draw.register
def _(result: SignificantDimension, ax: Place = None) -> Figure:
    value = Value("dimension above ε", result.value, result.lower, result.upper)
    title = f"{_between(result)} eigenvalues exceed {brief(result.above)}"
    return plot_values([value], title, result.kind, "directions", ax=ax)


@draw.register
def _(result: Count, ax: Place = None) -> Figure:
    value = Value("eigenvalues", result.value, result.lower, result.upper)
    return plot_values([value], f"{_between(result)} eigenvalues exceed the bound", ax=ax)


@draw.register
def _(result: Estimate, ax: Place = None) -> Figure:
    below = f"95 % intervals from {result.degrees + 1} repetitions; bias: {result.bias}"
    low, high = result.interval()
    if isinstance(result.value, Tensor):
        value, below_it, above_it = (
            torch.as_tensor(v).flatten().tolist() for v in (result.value, low, high)
        )
        return plot_band(
            value, below_it, above_it, f"{result.value.numel():,} estimates", below, ax=ax
        )
    one = Value("estimate", result.value, float(low), float(high))
    return plot_values([one], f"An estimate of {brief(result.value)}", below, ax=ax)


@draw.register
def _(result: Leading, ax: Place = None) -> Figure:
    values, errors = result.eigenvalues, result.errors
    title = f"The {len(result):,} largest eigenvalues, others up to {brief(result.beyond)}"
    bounds = (values - errors).clamp_min(0.0).tolist(), (values + errors).tolist()
    return plot_band(values.tolist(), *bounds, title, f"{result.products:,} products", ax=ax)


@draw.register
def _(result: Enclosed, ax: Place = None) -> Figure:
    value = Value("estimate", result.value, *result.interval(0.9))
    below = f"90 % interval from {result.probes:,} probes, quadrature included"
    return plot_values([value], f"An estimate of {brief(result.value)}", below, ax=ax)


@draw.register
def _(result: Density, ax: Place = None) -> Figure:
    top = max([float(m.gauss.nodes.max()) for m in (*result.leading, *result.probes) if len(m)])
    bounds = [top * 10.0**-decade for decade in range(1, DECADES + 1)]
    counts = [result.above(eps) for eps in bounds]
    values = [
        Value(f"above {brief(eps)}", count.value, *count.interval(0.9))
        for eps, count in zip(bounds, counts, strict=True)
    ]
    title = f"Eigenvalues of a matrix of size {result.size:,} above a bound"
    below = f"90 % intervals from {len(result.probes):,} probes, quadrature included"
    return plot_values(values, title, below, "eigenvalues", ax=ax)


@draw.register
def _(result: Saturation, ax: Place = None) -> Figure:
    return plot_saturation(result, ax=ax)


@draw.register
def _(result: DimensionPath, ax: Place = None) -> Figure:
    return plot_path(result, ax=ax)


@draw.register
def _(result: DimensionNear, ax: Place = None) -> Figure:
    counts = [(f"{value:,}", float(count)) for value, count in result.counts.items()]
    return plot_amounts(
        counts,
        f"{result.here.value:,} dimensions at θ, up to {result.greatest:,} near it",
        f"points by their dimension: {len(result.dimensions):,} drawn from a {result.region} of "
        f"radius {brief(result.radius)}",
        ax=ax,
    )


@draw.register
def _(result: DimensionChain, ax: Place = None) -> Figure:
    return plot_amounts(
        [(one.name or "(model)", float(one.added)) for one in result.layers],
        f"{sum(one.added for one in result.layers):,} dimensions, layer by layer",
        "what each layer adds to those after it, input first",
        texts=[f"{one.added:,} of {one.parameters:,}" for one in result.layers],
        ax=ax,
    )


@draw.register(Explanation)
@draw.register(ExplanationSummary)
def _(result: Explanation | ExplanationSummary, ax: Place = None) -> Figure:
    return plot_sources(result, ax=ax)


@draw.register
def _(result: Source, ax: Place = None) -> Figure:
    where = f" in {layer_name(result.where)}" if result.where else ""
    return plot_amounts(
        [
            ("claimed", float(result.claimed)),
            ("verified", float(result.verified)),
            ("added", float(result.dimension)),
        ],
        f"{result.kind}{where}",
        "null directions: proposed, held against A, and independent of others before",
        ax=ax,
    )


@draw.register
def _(result: PathLength, ax: Place = None) -> Figure:
    return plot_amounts(
        [(f"{i} to {i + 1}", value) for i, value in enumerate(result.segments)],
        f"A path of length {brief(result.value)} ± {brief(result.error)}",
        "Fisher–Rao length from point to point",
        ax=ax,
    )


@draw.register
def _(result: Walk, ax: Place = None) -> Figure:
    controls = [Trail(c.name, [c.displacement], [c.divergence]) for c in result.controls]
    return plot_walk(result, controls, ax=ax)


@draw.register
def _(result: Share, ax: Place = None) -> Figure:
    return plot_share(result.layers, subspace="subspace", ax=ax)


@draw.register
def _(result: Membership, ax: Place = None) -> Figure:
    value = Value("residual", *[result.residual] * 3)
    return plot_values(
        [value],
        "Inside" if result.value else "Not inside",
        result.reason.partition(":")[2].strip(),
        "residual (log)",
        marks={"tolerance": result.tolerance},
        ratio=True,
        ax=ax,
    )


@draw.register
def _(result: DescriptionLength, ax: Place = None) -> Figure:
    return plot_length(result, ax=ax)


@draw.register
def _(result: CodeLength, ax: Place = None) -> Figure:
    terms = {result.name: result.total}
    if result.fit is not None and result.penalty is not None:
        terms = {"fit": result.fit, "penalty": result.penalty}
    error = f" ± {brief(result.stderr)}" if result.stderr else ""
    below = f"{result.name}{error}, {result.observations:,} labels, {result.kind}"
    return plot_steps(terms, result.total, unit_of(result), below, ax=ax)


@draw.register
def _(result: PrequentialLength, ax: Place = None) -> Figure:
    starts = [0, *result.ends[:-1]]
    means = (result.blocks.mean(0) * (1.0 / result.scale)).tolist()
    blocks = list(zip(starts, result.ends, means, strict=True))
    return plot_amounts(
        [(f"{a + 1:,} to {b:,}", value / (b - a)) for a, b, value in blocks],
        f"{result.total:,.1f} {unit_of(result)} describe the labels",
        f"{result.units} a label, each block by a model trained on those before",
        ax=ax,
    )


@draw.register
def _(result: SingularLength, ax: Place = None) -> Figure:
    terms = {
        "fit": result.fit,
        "λ log n": result.penalty,
        "multiplicity": result.multiplicity_term,
    }
    below = f"± {brief(result.stderr)}, {result.observations:,} labels, {result.kind}"
    return plot_steps(terms, result.total, result.units, below, ax=ax)


@draw.register
def _(result: NoiseVariance, ax: Place = None) -> Figure:
    return plot_length(result.length, ax=ax)


@draw.register
def _(result: LearningCoefficient, ax: Place = None) -> Figure:
    reach = WIDE * result.stderr
    values = [Value("λ̂", result.value, result.value - reach, result.value + reach)]
    for d in result.diagnostics:
        at = f" at β = {brief(d.temperature)}" if len(result.diagnostics) > 1 else ""
        values += [Value(f"chain {i}{at}", *[m] * 3) for i, m in enumerate(d.chain_means, 1)]
    bound = {} if result.rank_bound is None else {"half the rank": result.rank_bound}
    title = f"A learning coefficient of {brief(result.value)} ± {brief(result.stderr)}"
    below = "bar: two standard errors on either side; then the mean of each chain"
    return plot_values(values, title, below, "λ", marks=bound, ax=ax)


@draw.register
def _(result: EffectiveDimension, ax: Place = None) -> Figure:
    reach = WIDE * result.stderr
    value = Value("effective dimension", result.value, result.value - reach, result.value + reach)
    return plot_values(
        [value],
        f"An effective dimension of {brief(result.value)} ± {brief(result.stderr)}",
        f"seen with {result.observations:,} observations; bar: two standard errors",
        "dimensions",
        marks={"largest rank": result.largest_rank},
        ax=ax,
    )


@draw.register
def _(result: Criteria, ax: Place = None) -> Figure:
    known = [(NAMES.get(key, key), value) for key, value in result.items() if value is not None]
    return plot_amounts(known, "What the labels cost by other counts", "nats", ax=ax)


def _between(result: Dimension | SignificantDimension | Count) -> str:
    if result.lower == result.upper:
        return f"{result.value:,}"
    return f"{result.lower:,} to {result.upper:,}"
