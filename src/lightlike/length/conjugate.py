"""The displacement term from products with the Fisher matrix alone, to a certain error.

In prior units, z = Σ^{-½}(θ̂ − μ), b = Σ^½ ∇NLL and H = N Σ^½ Î Σ^½. Substituting x = z + e in

    ½ zᵀz − ½ (b + z)ᵀ(I + H)⁻¹(b + z) = ½ zᵀz + min_x [½ xᵀ(I + H)x − (b + z)ᵀx]

leaves ½ zᵀHz − bᵀz + min_e ψ(e), ψ(e) = ½ eᵀ(I + H)e − ρᵀe with ρ = b − Hz, in which parts of θ̂
in the radical do not occur. Conjugate gradients (Hestenes & Stiefel 1952, doi:10.6028/jres.049.044)
lower ψ; since I + H is at least I, what is left above the minimum is at most ½ |ρ − (I + H)e|².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.length.gaussian import Expansion, in_prior_units
from lightlike.length.priors import ResolvedPrior
from lightlike.metric.products.operator import Products
from lightlike.metric.root import Root
from lightlike.problem.problem import Problem

# Nats that may be left, and products after which the search ends whatever is left.
TOLERANCE = 1e-3
MOST = 1000


@dataclass(frozen=True)
class Displacement:
    """The displacement term.

    Attributes:
        value: A certain lower bound, in nats.
        error: What it lies below the exact one at most.
        products: Fisher products that were taken.
    """

    value: float
    error: float
    products: int


def displacement_by_products(
    problem: Problem,
    prior: ResolvedPrior,
    expansion: Expansion,
    product: Callable[[Tensor], Tensor] | None = None,
) -> Displacement | None:
    """The displacement of θ̂ from exact products; None without labels.

    Args:
        problem: Model, data and likelihood at θ̂.
        prior: Mean and variances.
        expansion: NLL_total and its gradient at θ̂.
        product: v ↦ Î v; `lightlike.Products` in float64 unless given.
    """
    if expansion.gradient is None:
        return None
    if product is None:
        with Products(Root(problem.reference)) as products:
            return displacement_by_products(problem, prior, expansion, products.__matmul__)
    sigma, n = prior.variance.sqrt(), problem.survey.observations
    times = product
    g, shift = expansion.gradient, 0.0
    # Parameters without variance sit at their mean: move them there, to second order.
    away = torch.where(prior.variance == 0, prior.mean - problem.theta, 0.0)
    if bool(away.any()):
        bent = n * times(away)
        shift = float(g @ away) + 0.5 * float(away @ bent)
        g = g + bent
    z, b = in_prior_units(problem, prior, g)
    found = minimum(lambda v: n * sigma * times(sigma * v), z, b)
    return Displacement(found.value + shift, found.error, found.products)


def minimum(product: Callable[[Tensor], Tensor], z: Tensor, b: Tensor) -> Displacement:
    """The term from H v, z and b."""
    hz = product(z) if bool(z.any()) else torch.zeros_like(z)
    start = 0.5 * float(z @ hz) - float(b @ z)
    residual = b - hz
    e, ae = torch.zeros_like(z), torch.zeros_like(z)
    direction, square = residual.clone(), float(residual @ residual)
    taken = 1
    while 0.5 * square > TOLERANCE and taken < MOST:
        image = direction + product(direction)
        taken += 1
        step = square / float(direction @ image)
        e += step * direction
        ae += step * image
        residual = residual - step * image
        before, square = square, float(residual @ residual)
        direction = residual + square / before * direction
    psi = 0.5 * float(e @ ae) - float((b - hz) @ e)
    error = 0.5 * float((b - hz - ae).square().sum())
    return Displacement(start + psi - error, error, taken)
