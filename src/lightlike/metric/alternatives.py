"""What the routes that do not take every row of A cost, told before anything is computed."""

from __future__ import annotations

from contextlib import suppress

import torch

from lightlike.errors import CapacityError
from lightlike.metric.drawing import sketch_that_fits
from lightlike.metric.kronecker.cost import approximation_route
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.root import Root
from lightlike.metric.thinned import ThinnedFisher
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.lanczos import LEAST_ROOM, ROOM
from lightlike.spectrum.partial import Lanczos
from lightlike.spectrum.quadrature import BLOCK, Quadrature
from lightlike.spectrum.routes import Route

# Steps of a probe, and products of a displacement, that suffice more often than not.
STEPS = 20
# Steps for each of the distinct eigenvalues that suffice more often than not; vectors that steps
# without a basis keep, with one that is made and one that is multiplied.
SOUGHT, VECTORS = 8, 5
# Products an eigenvalue, and besides, that suffice more often than not.
EACH, CHECK = 6, 60


def estimates(root: Root, budget: float) -> list[Route]:
    """Everything that a measurement can be estimated by, with its defaults, cheapest first.

    The sketch and the sample of columns are among them if they fit; in lower precision there are
    no products, and no samples.
    """
    found = [approximation_route(root, Kronecker())]
    if (sketch := sketch_that_fits(root, budget)) is not None:
        found.append(sketch)
    if root.problem.dtype == torch.float64:
        found += [probing_route(root, Quadrature()), leading_route(root, Lanczos())]
        with suppress(CapacityError):
            found.append(thinning_route(root, Columns(), budget))
    return sorted(found, key=lambda route: (not route.fits(budget), route.operations))


def probing_products(root: Root, options: Quadrature) -> int:
    """Products with Î of a quadrature, if the steps are as many as they often are.

    Those of each probe and one for the traces of layers, those of the vectors that are taken out or
    of a search without a basis, and those of the displacement.
    """
    steps = min(STEPS, options.steps, root.shape[1])
    searched = min(SOUGHT * options.distinct, options.longest, root.shape[1])
    return options.probes * (steps + 1) + 5 * options.deflated + searched + STEPS


def probing_route(root: Root, options: Quadrature) -> Route:
    """Stochastic quadrature, if the steps are as many as they often are."""
    steps = min(STEPS, options.steps, root.shape[1])
    products = probing_products(root, options)
    vectors = options.deflated + min(BLOCK, options.probes) * steps
    if options.distinct:
        vectors = VECTORS + options.deflated
    operations, fixed, told = products * _product(root), root.cost().fixed_memory, ""
    if options.control is not None:
        control = approximation_route(root, Kronecker(options.control))
        operations += control.operations
        fixed = control.memory
        vectors += options.probes
        told = f", {options.control} as control"
    return Route(
        "slq",
        operations,
        fixed + 8.0 * root.shape[1] * vectors,
        f"{options.probes:,} random probes{told}, some {products:,} products with the Fisher "
        "matrix",
        exact=False,
    )


def leading_products(root: Root, options: Lanczos) -> int:
    """Products with Î of a search for leading eigenvalues, if it takes as many as it often does."""
    count = min(options.count, root.shape[1])
    return min(EACH * count + CHECK, 2 * root.shape[1]) + count + STEPS


def leading_route(root: Root, options: Lanczos) -> Route:
    """The search for leading eigenvalues, if it takes as many products as it often does."""
    cost = root.cost()
    count = min(options.count, root.shape[1])
    products = leading_products(root, options)
    vectors = min(root.shape[1], max(ROOM * count, LEAST_ROOM)) + 2 * count
    return Route(
        "lanczos",
        cost.row_operations + products * _product(root),
        cost.fixed_memory + 8.0 * root.shape[1] * vectors,
        f"the {count:,} largest eigenvalues and the diagonal, some {products:,} products with the "
        "Fisher matrix",
        exact=False,
    )


def thinning_route(root: Root, options: Columns, memory: int | float | str | None) -> Route:
    """The sample of columns.

    Raises:
        ChoiceError, CapacityError: as `ThinnedFisher`.
    """
    return ThinnedFisher(root, options, memory=memory).thinning.route


def _product(root: Root) -> float:
    """Operations: of an observation's rows one takes a backward pass; a product about four."""
    return 4.0 * root.cost().row_operations / max(1, root.problem.survey.rank)
