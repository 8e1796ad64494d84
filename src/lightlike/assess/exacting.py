"""What an exact measurement takes, stage by stage: seconds and bytes, told before it is made.

Every term is a count of operations or bytes over a measured rate, or a timed part of a pass times
the number of such parts; the stages are those of `lightlike.assess.stages`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lightlike.assess.layers import SHARE, SMALL, layer_operations, worth_ranking
from lightlike.assess.passes import Passes
from lightlike.assess.stages import VECTORS
from lightlike.geometry.saturation import steps
from lightlike.metric.footprint import model_memory, strip_memory
from lightlike.metric.root import SLAB, Root
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT, SVD_WEIGHT, Route, routes

# Matrices of n × n numbers: LAPACK's eigenvalues take the matrix, a copy and its workspace beside
# it; eigenvectors take two more (dsyevd).
VALUES, BOTH = 3, 6
# Any number of observations.
ANY = 10**12


@dataclass(frozen=True)
class Asked:
    """The options of `measure` that decide what an exact route does.

    Attributes:
        layers: As in `measure`.
        explain: As in `measure`.
        saturation: As in `measure`.
        projections: As in `measure`.
    """

    layers: bool | None = None
    explain: bool = False
    saturation: bool = False
    projections: bool | None = None


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: What it does.
        seconds: How long it takes.
        bytes: Its peak beside the model and a pass over it.
    """

    name: str
    seconds: float
    bytes: float


def exact_stages(passes: Passes, route: Route, asked: Asked, budget: float) -> Iterator[Stage]:
    """The stages of a measurement by an exact route."""
    root, rates, plain = passes.root, passes.rates, passes.plain
    rows, columns = root.shape
    left = route.method == "gram" or (route.method == "svd" and rows <= columns)
    n = rows if left else columns
    matrix = 8.0 * n**2
    yield Stage("setup", setup_seconds(passes), 0.0)
    if route.method == "svd":
        yield Stage("singular values", *_by_svd(passes, root, passes.rows))
        # The length takes a factorisation of the matrix all the same.
    yield _matrix(passes, root, passes.rows, left=left, budget=budget)
    if route.method != "svd":
        yield Stage("eigenvalues", rates.eigenvalues(n), VALUES * matrix)
        if rows >= columns:
            yield Stage("refinement", *_refined(passes, root, passes.rows, n, budget))
    seconds = plain.forward + plain.backward
    seconds += rates.factorisation(n) + rates.fresh(matrix) + 2 * matrix / rates.memory
    # A times two vectors; on the other side twice, and Aᵀ times two vectors twice.
    seconds += passes.rows * (1 if left else 2)
    seconds += 0.0 if left else 4 * (plain.forward + plain.backward)
    yield Stage("length", seconds, 2 * matrix + passes.flight(root.units))
    if asked.projections:
        seconds = rates.eigenvectors(n) + (passes.rows if left else 0.0)
        yield Stage("projections", seconds, BOTH * matrix)
    parts = {name: root.of_layer(name) for name in root.problem.selection.layers()}
    if asked.layers:
        found = [_layer(passes, name, part, budget) for name, part in parts.items()]
        most = max(size for _, size in found)
        yield Stage("layers", sum(seconds for seconds, _ in found), matrix + most)
    if asked.explain:
        yield _explained(passes, len(parts), matrix)
    if asked.saturation:
        yield _saturated(passes, left=left, method=route.method)


def peak(root: Root, route: Route, stages: Sequence[Stage]) -> float:
    """Bytes of a measurement; what an estimate keeps is there in every stage."""
    largest = max(stage.bytes for stage in stages)
    return model_memory(root.sweep) + largest if route.exact else route.memory + largest


def settled(root: Root, route: Route, asked: Asked) -> Asked:
    """What an exact measurement takes in of what is only taken in if it is cheap."""
    layers, projections = asked.layers, asked.projections
    if layers is None:
        parts = [root.of_layer(name) for name in root.problem.selection.layers()]
        layers = worth_ranking(layer_operations(parts), route.operations)
    if root.problem.reference.survey.nll is None or root.precision > EPS:
        projections = False
    if projections is None:
        projections = cheap_projections(root, route)
    return replace(asked, layers=layers, projections=projections)


def cheap_projections(root: Root, route: Route) -> bool:
    """Whether eigenvectors are cheap beside the rest, as `Stages.projections` decides."""
    if route.method == "svd":
        return False
    size = float(root.shape[0] if route.method == "gram" else root.shape[1])
    needed = EIGENVALUE_WEIGHT * VECTORS * size**3 + 2 * root.cost().row_operations
    return needed <= max(SMALL, SHARE * route.operations)


def setup_seconds(passes: Passes) -> float:
    """What is looked at before anything is computed, and checked at the end.

    A survey of the data after the determinism probe (two passes of the first batch, three reads),
    where samples lie (one pass there and two back), whether they mix, and whether gradients are
    derivatives (four and one); SHA-256 of weights and data.
    """
    problem, plain = passes.root.problem, passes.plain
    batch = next(iter(problem.stream))
    data = sum(t.nbytes for t in batch.tensors()) * passes.batches
    weights = sum(v.nbytes for v in problem.evaluator.values.values())
    first = 8 * plain.forward + 3 * plain.backward
    return plain.forward + first / passes.batches + (4 * data + weights) / passes.rates.hashing


def _matrix(passes: Passes, root: Root, seconds: float, *, left: bool, budget: float) -> Stage:
    """A Aᵀ, or Aᵀ A from rows that are written out slab by slab."""
    rows, columns = root.shape
    cost, rates = root.cost(budget), passes.rates
    if left:
        groups = root.footprint(budget).passes
        seconds = seconds * len(groups) + passes.products(root.units, cost, rows)
        matrix = 8.0 * rows**2
        sizes = []
        for units in groups:
            # Rows gather while the last batch is in flight; then the matrix is made of them.
            kept, largest = passes.held(units, rows), max(passes.held([u], rows) for u in units)
            before = kept * (1 - 1 / max(1.0, passes.batches)) + passes.flight(units)
            sizes.append(max(before, kept + max(largest, matrix + strip_memory(units, rows))))
        # Later passes add to a matrix that is there.
        return Stage("Gram matrix", seconds, max(sizes) + (matrix if len(groups) > 1 else 0.0))
    entries = 8.0 * rows * columns
    # Zeros, the entries, and their turn into the order of rows; half of a product.
    seconds += rates.fresh(2 * entries) + rates.operations(float(rows) * columns**2)
    # A slab as it is put together, in order of rows, and weighted.
    slab = 2 * min(entries, float(SLAB))
    return Stage("Fisher matrix", seconds, 8.0 * columns**2 + slab + passes.flight(root.units))


def _by_svd(passes: Passes, root: Root, seconds: float) -> tuple[float, float]:
    """Seconds and bytes of the singular values of A itself."""
    rows, columns = root.shape
    entries, small = 8.0 * rows * columns, min(rows, columns)
    seconds += passes.rates.fresh(3 * entries)
    seconds += passes.rates.singular_values(max(rows, columns), small)
    return seconds, 3 * entries + 3 * 8.0 * small**2


def _refined(
    passes: Passes, root: Root, seconds: float, n: int, budget: float
) -> tuple[float, float]:
    """Seconds and bytes of deciding small eigenvalues, in the cheaper way.

    Parameters mostly outnumber the dimensions they span, so that Aᵀ A has null directions and what
    rounding makes of their eigenvalues must be looked at in A. Of A Aᵀ of fewer rows than that
    nothing is known beforehand, and nothing is planned.
    """
    rows, columns = root.shape
    small, large = min(rows, columns), max(rows, columns)
    matrix = 8.0 * n**2
    svd = 4.0 * large * small**2 + SVD_WEIGHT * 8 / 3 * small**3
    if svd <= EIGENVALUE_WEIGHT * 5.0 * n**3 and 24.0 * (rows * columns + small**2) <= budget:
        taken, size = _by_svd(passes, root, seconds)
        return taken, matrix + size
    if 3 * matrix > budget:
        # They are then left undecided.
        return 0.0, 0.0
    # A forwards and backwards on the vectors, and forwards again.
    return passes.rates.eigenvectors(n) + 3 * seconds, BOTH * matrix


def _layer(passes: Passes, name: str, part: Root, budget: float) -> tuple[float, float]:
    """Seconds and bytes of the rank of one layer's columns."""
    rates, rows = passes.rates, passes.layers[name]
    found = routes(*part.shape, part.cost(budget))
    route = next((r for r in found if r.fits(budget)), found[0])
    if route.method == "svd":
        return _by_svd(passes, part, rows)
    left = route.method == "gram"
    n = part.shape[0] if left else part.shape[1]
    made = _matrix(passes, part, rows, left=left, budget=budget)
    seconds, size = made.seconds + rates.eigenvalues(n), max(made.bytes, VALUES * 8.0 * n**2)
    if part.shape[0] >= part.shape[1]:
        more, needed = _refined(passes, part, rows, n, budget)
        seconds, size = seconds + more, max(size, needed)
    return seconds, size


def _explained(passes: Passes, layers: int, matrix: float) -> Stage:
    """Sources of null directions.

    One pass over the rows for norms of columns and spans of inputs, which reads what is held of
    them some times over; a recorded forward pass with slopes; and A times what is claimed, mostly
    once a layer.
    """
    root, rates = passes.root, passes.rates
    held = 8.0 * root.shape[0] * sum(unit.held for unit in root.units)
    seconds = (1 + layers) * passes.rows + 5 * held / rates.memory
    seconds += 10 * passes.plain.forward
    return Stage("explain", seconds, matrix + 2 * passes.flight(root.units))


def _saturated(passes: Passes, *, left: bool, method: str) -> Stage:
    """The dimension against observations: sizes in steps of √2, then bisection of the last step.

    Eigenvalues of leading blocks of one Gram matrix in order, or singular values of leading rows.
    """
    root, rates = passes.root, passes.rates
    rank, total = root.problem.survey.rank, root.problem.survey.observations
    rows, columns = root.shape
    sizes = [n * rank for n in steps(total)[:-1]]
    low = sizes[-1] / rank if sizes else 0.0
    gap = total - low
    while gap > 1:
        gap /= 2
        sizes.append(math.ceil(total - gap) * rank)
    matrix = 8.0 * rows**2
    if left and method == "gram":
        seconds = sum(rates.eigenvalues(k) + rates.fresh(8.0 * k**2) for k in sizes)
        return Stage("saturation", seconds + rates.fresh(2 * matrix), 5 * matrix)
    seconds, size = _by_svd(passes, root, passes.rows)
    for k in sizes:
        # Rows of a tall A as they are; those of a wide one after an orthogonal factorisation.
        wide = k if rows <= columns else columns
        seconds += rates.singular_values(max(k, wide), min(k, wide))
    return Stage("saturation", seconds, size)


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
