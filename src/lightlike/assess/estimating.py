"""What the routes that do not take every row take, stage by stage, told before they are made."""

from __future__ import annotations

from collections.abc import Iterator

from lightlike.assess.approximating import affordable
from lightlike.assess.exacting import VALUES, Stage, setup_seconds
from lightlike.assess.passes import Passes, Product
from lightlike.metric.alternatives import STEPS, leading_products, probing_products
from lightlike.metric.drawing import fit_draws, inner_route
from lightlike.metric.kronecker.cost import sides_of
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.thinned import ThinnedFisher
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.partial import Lanczos
from lightlike.spectrum.quadrature import Quadrature
from lightlike.spectrum.routes import Route
from lightlike.spectrum.sketch import Sketch

Options = Sketch | Kronecker | Quadrature | Lanczos | Columns
# Seconds of a random number, and of a generator for an observation, as NumPy takes them.
NUMBER, GENERATOR = 1e-8, 2e-5
# Products of a displacement that a sample of columns preconditions.
HELPED = 8


def estimate_stages(
    passes: Passes,
    options: Options,
    product: Product,
    budget: float,
) -> Iterator[Stage]:
    """The stages of a measurement by a route that estimates.

    Args:
        passes: Of A.
        options: Of the route.
        product: With Î, timed or foreseen.
        budget: Bytes.
    """
    plain, problem = passes.plain, passes.root.problem
    yield Stage("setup", setup_seconds(passes), 0.0)
    yield Stage("gradient", plain.forward + plain.backward, 0.0)
    labelled = problem.reference.survey.nll is not None
    if isinstance(options, Quadrature):
        count = probing_products(passes.root, options)
        yield Stage("products", product.setup + count * product.seconds, float(product.kept))
        return
    if isinstance(options, Lanczos):
        yield Stage("diagonal", passes.rows, 0.0)
        count = leading_products(passes.root, options)
        yield Stage("products", product.setup + count * product.seconds, float(product.kept))
        return
    if isinstance(options, Columns):
        yield _sample(passes, options, budget)
        if labelled:
            yield Stage("products", HELPED * product.seconds, 0.0)
        return
    if isinstance(options, Sketch):
        yield from _sketches(passes, options, budget)
    else:
        yield from _approximation(passes, options, budget)
    if labelled:
        # The displacement, by conjugate gradients.
        yield Stage("products", product.setup + STEPS * product.seconds, float(product.kept))


def _sample(passes: Passes, options: Columns, budget: float) -> Stage:
    """A share of the inner products, factorisations and inverses, eigenvalues of the sum."""
    root, rates = passes.root, passes.rates
    sampled = ThinnedFisher(root, options, memory=budget).thinning
    rows = root.shape[0]
    operations = {s.unit: s.unit.pair_operations for s in sampled.strata}
    kept = sum(operations[s.unit] * s.share for s in sampled.strata)
    share = kept / max(1.0, sum(operations.values()))
    seconds = len(sampled.passes()) * passes.rows
    seconds += share * passes.products(root.units, root.cost(budget), rows)
    seconds += 3 * sampled.matrices * rates.factorisation(rows) + rates.eigenvalues(rows)
    return Stage("sample of columns", seconds, 0.0)


def _sketches(passes: Passes, options: Sketch, budget: float) -> Iterator[Stage]:
    """Every sketch, and those of half the draws: random numbers, rows, products, eigenvalues."""
    survey = passes.root.problem.survey
    draws, route = fit_draws(passes.root, options, budget)
    seconds = size = 0.0
    for count, inner in ((draws, route), (draws // 2, None)):
        if count:
            inner = inner or inner_route(passes.root, count, budget) or route
            taken = _sketch(passes, count, inner, budget)
            drawn = survey.observations * (GENERATOR + NUMBER * count * survey.width)
            seconds += options.repetitions * (taken + drawn)
            size = max(size, inner.memory)
    # The route's memory is that of the larger one.
    yield Stage("sketches", seconds, max(0.0, size - route.memory))


def _sketch(passes: Passes, draws: int, route: Route, budget: float) -> float:
    root, rates = passes.root, passes.rates
    rows, columns = draws * root.problem.survey.observations, root.shape[1]
    taken = passes.fewer(rows)
    if route.method == "gram":
        cost = root.cost(budget, rows)
        return taken + passes.products(root.units, cost, rows) + rates.eigenvalues(rows)
    if route.method == "metric":
        taken += rates.fresh(16.0 * rows * columns)
        return taken + rates.operations(rows * columns**2.0) + rates.eigenvalues(columns)
    return taken + rates.singular_values(max(rows, columns), min(rows, columns))


def _approximation(passes: Passes, options: Kronecker, budget: float) -> Iterator[Stage]:
    """Moments of every block, their eigenvectors, and the exact matrix where it is held against."""
    root, rates = passes.root, passes.rates
    rows, columns = root.shape
    sizes = sides_of(root, options)
    seconds = sum(rates.eigenvectors(size) for size in sizes)
    seconds += rates.operations(2.0 * rows * sum(float(size) ** 2 for size in sizes))
    seconds += passes.rows * (2 if options.form == "ekfac" else 1)
    yield Stage("blocks", seconds, passes.flight(root.units))
    if not (affordable(root, options, budget) if options.check is None else options.check):
        return
    left = rows <= columns
    n, matrix = min(rows, columns), 8.0 * min(rows, columns) ** 2
    seconds = 2 * passes.rows + 2 * rates.factorisation(n) + rates.fresh(8.0 * rows * columns)
    if left:
        seconds += passes.products(root.units, root.cost(budget), rows)
    else:
        seconds += rates.operations(float(rows) * columns**2)
    yield Stage("error", seconds, VALUES * matrix)
