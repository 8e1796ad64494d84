"""The numbers of a measurement from a block-diagonal approximation of the Fisher matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lightlike.assess.layers import SMALL, LayerSummary
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.approximate import ApproximateRazor, approximate_razor
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import expand
from lightlike.length.prior import Prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.kronecker.approximation import ApproximateFisher
from lightlike.metric.kronecker.cost import check_memory
from lightlike.metric.kronecker.deviation import ApproximationError
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.root import Root
from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.routes import routes
from lightlike.spectrum.spectrum import Spectrum
from lightlike.spectrum.symmetric import CLEAR

# The error is measured unasked where the exact matrix takes at most this many times the operations
# of writing out the rows of A, or few in any case.
FEW = 10.0
NAMES = {
    "ekfac": "EKFAC",
    "kfac": "KFAC",
    "blocks": "the blocks of layers",
    "diagonal": "the diagonal",
}


@dataclass(frozen=True)
class ApproximateParts:
    """What a measurement takes from an approximation M of Î.

    Attributes:
        spectrum: Of M.
        dimension: Certain bounds on the rank of Î, which M does not tell.
        length: Razor of M, with the displacement of Î.
        layers: Traces are those of M; dimensions are measured only if asked for.
        record: What M is made of, and its error where it was measured.
        ways: How the batches were back-propagated.
    """

    spectrum: Spectrum
    dimension: Dimension
    length: DescriptionLength
    layers: list[LayerSummary]
    record: dict[str, Any]
    ways: Sequence[str]


def measure_approximation(
    F: Fisher,
    prior: Prior,
    options: Kronecker,
    *,
    seed: int,  # noqa: ARG001 — nothing is random
    memory: int,
    layers: bool | None,
) -> ApproximateParts:
    """Approximate, and hold the result against the exact matrix where that is cheap."""
    check_memory(F.root, options, memory)

    def approximate(G: Fisher) -> ApproximateFisher:
        return options.of(G.root, lambda: G.decomposition("auto", memory), memory)

    M = approximate(F)
    razor = approximate_razor(F, prior, M, approximate, expand(F.problem))
    check = affordable(F.root, memory) if options.check is None else options.check
    error = razor.approximation.error(razor.scale) if check else None
    dimension = _dimension(F, M, memory, checked=check)
    return ApproximateParts(
        spectrum=M.spectrum,
        dimension=dimension,
        length=razor.length,
        layers=_layers(F, M, layers, memory),
        record=_record(M, options, razor, error),
        ways=M.ways,
    )


def affordable(root: Root, memory: float) -> bool:
    """Whether an exact decomposition fits, and takes little more than the rows of A do."""
    cost = root.cost(memory)
    fitting = [route for route in routes(*root.shape, cost) if route.fits(memory)]
    return bool(fitting) and fitting[0].operations <= max(SMALL, FEW * cost.row_operations)


def approximation_notes(record: dict[str, Any], dimension: Dimension) -> list[str]:
    """What to keep in mind when reading approximate numbers."""
    name, error = NAMES[record["form"]], record["error"]
    found = []
    if error is not None:
        found.append(
            f"Approximation error: {record['complexity_error']:+.4g} nats of complexity, which is "
            f"{0.5 * error['exact']:.4g} exactly; ‖M − Î‖_F is {error['frobenius']:.2g} of ‖Î‖_F."
        )
    elif record["bound"] == "above":
        found.append(
            f"Complexity and length are upper bounds, by {name}; their error is not known: "
            "Kronecker(check=True) measures it."
        )
    else:
        found.append(
            f"The error of {name} is not known, nor its sign: Kronecker(check=True) measures it."
        )
    bounded = " Of the rank of Î there are only bounds." if dimension.kind != "exact" else ""
    found.append(f"The spectrum is that of the approximation M, not of Î.{bounded}")
    left = record["displacement_error"]
    if left is not None and left > TOLERANCE:
        found.append(f"The displacement may be up to {left:.2g} nats more: see its products.")
    return found


def _record(
    M: ApproximateFisher,
    options: Kronecker,
    razor: ApproximateRazor,
    error: ApproximationError | None,
) -> dict[str, Any]:
    exact = razor.displacement
    return {
        **asdict(options),
        "structures": razor.approximation.structures,
        "bound": "above" if M.above and M.root.precision <= EPS else None,
        "error": None if error is None else asdict(error),
        "complexity_error": None if error is None else 0.5 * error.logdet,
        "displacement_error": None if exact is None else exact.error,
        "products": 0 if exact is None else exact.products,
    }


def _dimension(F: Fisher, M: ApproximateFisher, memory: int, *, checked: bool) -> Dimension:
    """Bounds on rank Î: 1 if anything is positive, more by inertia where Î was decomposed.

    From above min(K, D), D without the parameters that no output depends on.
    """
    found = dimension_of(M.spectrum)
    rows, columns = F.root.shape
    lower, exact = found.lower, F.decomposition("auto", memory) if checked else None
    if exact is not None and exact.symmetric is not None:
        least = 2.0 * CLEAR * exact.symmetric.error
        lower = max(lower, exact.spectrum.count(least).lower)
    upper = min(rows, columns, sum(part.width for part in M.parts))
    return replace(
        found,
        value=lower,
        lower=lower,
        upper=upper,
        kind="exact" if lower == upper and F.root.precision <= EPS else "certified",
        gap=math.inf,
        data_limited=lower == rows < columns,
    )


def _layers(F: Fisher, M: ApproximateFisher, ranks: bool | None, memory: int) -> list[LayerSummary]:
    traces: dict[str, float] = {}
    for part in M.parts:
        traces[part.layer] = traces.get(part.layer, 0.0) + float(part.form.values.sum())
    found = []
    for name, entries in F.problem.selection.layers().items():
        dimension = None
        if ranks:
            dimension = dimension_of(decompose(F.root.of_layer(name), "auto", memory).spectrum)
        size = sum(entry.size for entry in entries)
        found.append(LayerSummary(name, size, traces.get(name, 0.0), dimension))
    return found
