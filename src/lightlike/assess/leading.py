"""The numbers of a measurement from leading eigenvalues and the diagonal: certain bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lightlike.assess.iterations import Iterations
from lightlike.assess.layers import LayerSummary
from lightlike.errors import ChoiceError
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import expand
from lightlike.length.leading import LeadingRazor, leading_razor
from lightlike.length.prior import Prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.operator import FisherOperator
from lightlike.metric.root import Root
from lightlike.problem.precision import name_of
from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.lanczos import LEAST_ROOM, ROOM, lanczos
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.partial import Lanczos, eigenvalues_of
from lightlike.spectrum.routes import Route
from lightlike.spectrum.spectrum import Spectrum

# Products an eigenvalue, and besides, that suffice more often than not; those of a displacement.
OFTEN, CHECK, STEPS = 6, 60, 20
# Share of the complexity that may be open without advice.
WIDE = 0.1


@dataclass(frozen=True)
class LeadingParts:
    """What a measurement takes from leading eigenvalues.

    Attributes:
        spectrum: The leading eigenvalues with their errors, and the exact trace.
        dimension: Bounds: those that are told from 0, and min(D, K).
        length: The razor with certain bounds.
        layers: Traces are exact; dimensions are measured only if asked for.
        record: Options, products, and bounds.
        ways: How the batches were back-propagated for the diagonal.
    """

    spectrum: Spectrum
    dimension: Dimension
    length: DescriptionLength
    layers: list[LayerSummary]
    record: dict[str, Any]
    ways: Sequence[str]


def leading_products(root: Root, options: Lanczos) -> int:
    """Products with Î, if the search takes as many as it often does."""
    count = min(options.count, root.shape[1])
    return min(OFTEN * count + CHECK, 2 * root.shape[1]) + count + STEPS


def leading_route(root: Root, options: Lanczos) -> Route:
    """The search as a route, if it takes as many products as it often does."""
    problem, cost = root.problem, root.cost()
    count = min(options.count, root.shape[1])
    products = leading_products(root, options)
    # Of an observation's rows one takes a backward pass; a product about four.
    each = 4.0 * cost.row_operations / max(1, problem.survey.rank)
    vectors = min(root.shape[1], max(ROOM * count, LEAST_ROOM)) + 2 * count
    return Route(
        "lanczos",
        cost.row_operations + products * each,
        cost.fixed_memory + 8.0 * root.shape[1] * vectors,
        f"the {count:,} largest eigenvalues and the diagonal, some {products:,} products with the "
        "Fisher matrix",
        exact=False,
    )


def measure_leading(
    F: Fisher,
    prior: Prior,
    options: Lanczos,
    *,
    seed: int,
    layers: bool | None,
    iterations: Iterations,
) -> LeadingParts:
    """The diagonal, the razor, then the spectrum of Î itself where the prior's is another one.

    Raises:
        ChoiceError: if the dtype is not float64.
        PriorError: if the prior is to be fitted.
        CapacityError, EstimateError: if the eigenvalues do not fit in memory or do not settle.
    """
    if F.problem.dtype != torch.float64:
        raise ChoiceError(
            f"method='lanczos' computes in float64, not {name_of(F.problem.dtype)}.",
            "The record would name a precision that no number has.",
            "Leave dtype='float64'.",
        )
    memory = iterations.budget
    approximation = F.diagonal()
    diagonal = approximation.diagonal()
    # Products to come are never known, only that they are many.
    operator = FisherOperator(F, 100 * options.count + 1000, memory // 2)
    most = min(F.root.shape)
    isotropic = prior.resolve(F.problem).isotropic
    run = iterations.run("lanczos" if isotropic else "lanczos-scaled", prior=not isotropic)
    razor = leading_razor(
        operator, prior, expand(F.problem), diagonal, options,
        most=most, seed=seed, memory=memory, state=run.state, keep=run.offer,
    )  # fmt: skip
    found = razor.enclosing.leading
    if not isotropic:
        run = iterations.run("lanczos")
        found = lanczos(
            operator, **asdict(options),
            seed=seed, memory=memory, state=run.state, keep=run.offer,
        )  # fmt: skip
    operator.close()
    spectrum = Spectrum(
        eigenvalues_of(found, F.root.shape, operator.precision, float(diagonal.sum()))
    )
    split = F.problem.selection.split(diagonal)
    return LeadingParts(
        spectrum=spectrum,
        dimension=dimension_of(spectrum),
        length=razor.length,
        layers=[
            LayerSummary(
                name,
                sum(entry.size for entry in entries),
                sum(float(split[entry.name].sum()) for entry in entries),
                dimension_of(decompose(F.root.of_layer(name), "auto", memory).spectrum)
                if layers
                else None,
            )
            for name, entries in F.problem.selection.layers().items()
        ],
        record=_record(options, operator, razor, found),
        ways=approximation.ways,
    )


def leading_notes(record: dict[str, Any]) -> list[str]:
    """What to keep in mind when reading bounds from leading eigenvalues."""
    complexity = record["bounds"]["complexity"]
    low, high = complexity["lower"], complexity["upper"]
    found = [
        f"Complexity is certain between {low:.6g} and {high:.6g} nats: the {record['leading']:,} "
        f"largest eigenvalues make up {record['leading_share']:.0%} of the trace. That one was "
        f"missed has a probability of {record['chance']:.0e} at most.",
        "Of the rank there are only bounds; of the eigenvalues only the leading ones.",
    ]
    if high - low > WIDE * max(low, 1.0):
        found.append(
            "More of them, Lanczos(count=...), narrow the bounds; method='slq' estimates what lies "
            "between them, with a standard error."
        )
    left = record["displacement_error"]
    if left is not None and left > TOLERANCE:
        found.append(f"The displacement may be up to {left:.2g} nats more: see its products.")
    return found


def _record(
    options: Lanczos, operator: FisherOperator, razor: LeadingRazor, found: Leading
) -> dict[str, Any]:
    exact, mine = razor.displacement, razor.enclosing.leading
    return {
        **asdict(options),
        "leading": len(mine),
        "leading_share": razor.leading_share,
        "products": mine.products
        + len(mine)
        + (0 if found is mine else found.products)
        + (0 if exact is None else exact.products),
        "way": operator.way,
        "displacement_error": None if exact is None else exact.error,
        "bounds": {
            "complexity": razor.complexity.to_dict(),
            "effective_dimension": razor.effective_dimension.to_dict(),
        },
    }
