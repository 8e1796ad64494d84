"""The numbers of a measurement from a sample of the columns of A."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightlike.assess.layers import LayerSummary
from lightlike.assess.sketching import bounded
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import expand
from lightlike.length.prior import Prior
from lightlike.length.thinned import ThinnedRazor, thinned_razor
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.metric.thinned import ThinnedFisher
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.routes import Route
from lightlike.spectrum.spectrum import Spectrum

# Share of the complexity that its bias or standard error may be without advice.
WIDE = 0.05


@dataclass(frozen=True)
class ThinnedParts:
    """What a measurement takes from a sample of columns.

    Attributes:
        spectrum: Of the sample; its trace is unbiased.
        dimension: Bounded by the rank of the sample and min(D, K).
        length: The razor with its standard error.
        layers: Traces are estimates; dimensions are measured only if asked for.
        record: Options, columns that were kept, and every estimate with its error, in nats.
        ways: How the batches were back-propagated.
    """

    spectrum: Spectrum
    dimension: Dimension
    length: DescriptionLength
    layers: list[LayerSummary]
    record: dict[str, Any]
    ways: Sequence[str]


def thinning_route(root: Root, options: Columns, memory: int | float | str | None) -> Route:
    """The sample as a route.

    Raises:
        ChoiceError, CapacityError: as `ThinnedFisher`.
    """
    return ThinnedFisher(root, options, memory=memory).thinning.route


def measure_columns(
    F: Fisher, prior: Prior, options: Columns, *, seed: int, memory: int, layers: bool | None
) -> ThinnedParts:
    """The razor, then the spectrum of Î itself where the prior's is another one.

    Raises:
        ChoiceError: if the dtype is not float64.
        PriorError: if the prior is to be fitted.
        CapacityError, EstimateError: if it does not fit in memory, or in float64.
    """
    razor = thinned_razor(F, prior, expand(F.problem), options, seed=seed, memory=memory)
    length, thinned = razor.length.settled(), razor.thinned
    ways = thinned.root.sweep.ways
    if thinned.root is not F.root:
        thinned = ThinnedFisher(F.root, options, seed, memory)
    spectrum = thinned.spectrum
    dimension = dimension_of(spectrum)
    return ThinnedParts(
        spectrum=spectrum,
        dimension=dimension if thinned.exact else bounded(dimension, *F.root.shape),
        length=length,
        layers=_layers(F, thinned, layers, memory),
        record=_record(razor, thinned),
        ways=ways,
    )


def thinning_notes(record: dict[str, Any], dimension: Dimension) -> list[str]:
    """What to keep in mind when reading numbers from a sample of columns."""
    complexity, plain = record["estimates"]["complexity"], record["complexity_plain"]
    value, error = complexity["value"], complexity["stderr"]
    found = [
        f"Complexity from {record['kept']:,} of {record['columns']:,} columns of A, in whole "
        f"output units, {record['replicates']} replicates: ± {error:.3g} nats.",
    ]
    if max(error, abs(value - plain)) > WIDE * abs(value):
        found.append(
            f"The sample itself has {plain:.4g} nats, which is too little on average; the rest is "
            "a correction to second order. Raise Columns(share=...)."
        )
    left = record["displacement_error"]
    if left is not None and left > TOLERANCE:
        found.append(f"The displacement may be up to {left:.2g} nats more: see its products.")
    if dimension.lower < dimension.upper:
        found.append(
            f"The dimension is certain from below only: more columns may find more than "
            f"{dimension.lower:,}."
        )
    return found


def _record(razor: ThinnedRazor, thinned: ThinnedFisher) -> dict[str, Any]:
    exact = razor.displacement
    estimates: dict[str, Estimate] = {"complexity": razor.complexity, "trace": thinned.trace()}
    return {
        **asdict(thinned.options),
        "kept": thinned.thinning.kept,
        "columns": thinned.shape[0],
        "passes": len(thinned.passes),
        "complexity_plain": razor.plain,
        "displacement_error": None if exact is None else exact.error,
        "products": 0 if exact is None else exact.products,
        "estimates": {name: each.to_dict() for name, each in estimates.items()},
        "layer_traces": {name: e.to_dict() for name, e in thinned.layer_traces().items()},
    }


def _layers(
    F: Fisher, thinned: ThinnedFisher, ranks: bool | None, memory: int
) -> list[LayerSummary]:
    found, traces = [], thinned.layer_traces()
    for name, entries in F.problem.selection.layers().items():
        dimension = None
        if ranks:
            dimension = dimension_of(decompose(F.root.of_layer(name), "auto", memory).spectrum)
        size = sum(entry.size for entry in entries)
        found.append(LayerSummary(name, size, float(traces[name]), dimension))
    return found
