"""The numbers of a measurement from a block-diagonal approximation of the Fisher matrix."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from lightlike.assess.layers import layers_of
from lightlike.assess.setting import Parts, Setting
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.approximate import ApproximateRazor, approximate_razor
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.gaussian import expand
from lightlike.metric.fisher import Fisher
from lightlike.metric.kronecker.approximation import ApproximateFisher
from lightlike.metric.kronecker.cost import approximation_route, check_memory
from lightlike.metric.kronecker.deviation import ApproximationError
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.root import Root
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT, routes
from lightlike.spectrum.symmetric import CLEAR

# The error is measured unasked where one factorisation of the exact matrix takes at most this many
# times the operations of the approximation, or some seconds in any case.
FEW, LIGHT = 10.0, 1e11
NAMES = {
    "ekfac": "EKFAC",
    "kfac": "KFAC",
    "blocks": "the blocks of layers",
    "diagonal": "the diagonal",
}


def measure_approximation(options: Kronecker, setting: Setting) -> Parts:
    """Approximate, and hold the result against the exact matrix where that is cheap."""
    F, memory = setting.F, setting.budget
    check_memory(F.root, options, memory)

    def approximate(G: Fisher) -> ApproximateFisher:
        return options.of(G.root, lambda: G.decomposition("auto", memory), memory)

    M = approximate(F)
    razor = approximate_razor(F, setting.prior, M, approximate, expand(F.problem))
    check = affordable(F.root, options, memory) if options.check is None else options.check
    error = razor.approximation.error(razor.scale) if check else None
    dimension = _dimension(F, M, memory, checked=check)
    record = _record(M, options, razor, error)
    return Parts(
        spectrum=M.spectrum,
        dimension=dimension,
        length=razor.length,
        layers=layers_of(F.root, _traces(M), ranks=setting.layers, memory=memory),
        ways=M.ways,
        record={"approximation": record},
        notes=_notes(record, dimension),
        ranked=dimension.lower == dimension.upper,
    )


def affordable(root: Root, options: Kronecker, memory: float) -> bool:
    """Whether one factorisation of A Aᵀ or Aᵀ A fits, and takes little more than approximating."""
    limit = max(LIGHT, FEW * approximation_route(root, options).operations)
    sizes = {"gram": root.shape[0], "metric": root.shape[1]}
    for route in routes(*root.shape, root.cost(memory)):
        if route.method in sizes and route.fits(memory):
            # Two factorisations, for the determinant and the rank, in place of eigenvalues.
            spared = (EIGENVALUE_WEIGHT * 4 / 3 - 2 / 3) * float(sizes[route.method]) ** 3
            return route.operations - spared <= limit
    return False


def _notes(record: dict[str, Any], dimension: Dimension) -> list[str]:
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


def _traces(M: ApproximateFisher) -> dict[str, float]:
    traces: dict[str, float] = {}
    for part in M.parts:
        traces[part.layer] = traces.get(part.layer, 0.0) + float(part.form.values.sum())
    return traces
