"""Solutions of S x = b from products with S alone, with what is known of their errors.

Preconditioned conjugate gradients (Hestenes & Stiefel 1952, doi:10.6028/jres.049.044). The residual
r = b − S x that is reported is recomputed from a product with x, not taken from the recurrence,
which drifts. For S ⪰ σ I with σ > 0 it bounds all that matters:

    ‖x − S⁻¹b‖ ≤ ‖r‖/σ,      bᵀx + rᵀx ≤ bᵀS⁻¹b ≤ bᵀx + rᵀx + ‖r‖²/σ,

the latter as bᵀS⁻¹b = 2bᵀx − xᵀS x + rᵀS⁻¹r.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightlike.errors import ConsistencyError, EstimateError

# Relative residual that is asked for, and products at most, unless told.
TOLERANCE, STEPS = 1e-10, 1000


class Operator(Protocol):
    """A symmetric matrix of which products can be had."""

    def __matmul__(self, v: Tensor) -> Tensor:
        """S v for a block (n, c)."""


@dataclass(frozen=True, eq=False)
class Solution:
    """An approximate solution of S x = b, for one b (n,) or a block (n, c).

    Attributes:
        x: The solution, shaped as b.
        residual: ‖b − S x‖ of each column, from a product with x.
        form: bᵀx + rᵀx of each column, a lower bound of bᵀS⁻¹b for positive definite S.
        products: Products with S that were taken, of a block each.
        converged: Whether every residual is as small as was asked for.
    """

    x: Tensor
    residual: Tensor
    form: Tensor
    products: int
    converged: bool

    def error(self, least: float) -> Tensor:
        """A bound on ‖x − S⁻¹b‖ for S ⪰ least · I: the residual over `least`."""
        return self.residual / least

    def form_error(self, least: float) -> Tensor:
        """What bᵀS⁻¹b lies above `form` at most, for S ⪰ least · I."""
        return self.residual.square() / least


def conjugate_gradients(
    op: Operator,
    b: Tensor,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    *,
    tolerance: float = TOLERANCE,
    absolute: float = 0.0,
    steps: int = STEPS,
    partial: bool = False,
) -> Solution:
    """Solve S x = b for symmetric positive definite S; semi-definite S if b lies in its range.

    Args:
        op: S, anything with `@` on blocks (n, c).
        b: (n,) or (n, c).
        preconditioner: v ↦ P⁻¹v for a positive definite P near S, on blocks (n, c).
        tolerance: ‖b − S x‖ / ‖b‖ at which a column is solved.
        absolute: ‖b − S x‖ at which it is solved whatever ‖b‖ is; the larger of both counts.
        steps: Products with S at most.
        partial: Whether to return what was reached after `steps` products, with its residual, in
            place of an error.

    Returns:
        The solution with its residual, as a product with x has it.

    Raises:
        ConsistencyError: if S or the preconditioner turns out not to be positive definite.
        EstimateError: if the tolerance is not reached.
    """
    columns = b.reshape(len(b), -1)
    target = (tolerance * columns.norm(dim=0)).clamp_min(absolute)
    x, r = torch.zeros_like(columns), columns.clone()
    products, fresh = 0, True
    direction, before = torch.zeros_like(columns), target.new_ones(target.shape)
    while products < steps:
        left = r.norm(dim=0) > target
        if not bool(left.any()):
            if fresh:
                break
            # The recurrence says so; a product with x must say so too, or the search goes on.
            r, fresh = columns - op @ x, True
            products += 1
            continue
        steered = r if preconditioner is None else preconditioner(r)
        now = (r * steered).sum(0)
        _check_definite(now[left], "The preconditioner")
        direction = steered if fresh else steered + (now / before) * direction
        image = op @ direction
        products += 1
        bend = (direction * image).sum(0)
        _check_definite(bend[left], "The matrix")
        length = torch.where(left, now / bend, 0.0)
        x, r = x + length * direction, r - length * image
        # A solved column stands still; its direction is of no use any more.
        before, fresh = torch.where(left, now, 1.0), False
        direction = torch.where(left, direction, 0.0)
    if not fresh:
        r = columns - op @ x
        products += 1
    residual = r.norm(dim=0)
    # The last product may differ from the one that ended the search by rounding.
    converged = bool((residual <= target * (1 + 1e-6)).all())
    if not converged and not partial:
        worst = float((residual / columns.norm(dim=0).clamp_min(1e-300)).max())
        raise EstimateError(
            f"Conjugate gradients left a residual of {worst:.2g} of b after {products:,} products; "
            f"{tolerance:.2g} was asked for.",
            "The solution is not known as well as it should be.",
            "Allow more steps=..., a larger tolerance=..., or give a better preconditioner.",
        )
    form = (columns * x).sum(0) + (r * x).sum(0)
    one = b.ndim == 1
    return Solution(
        x[:, 0] if one else x,
        residual[0] if one else residual,
        form[0] if one else form,
        products,
        converged,
    )


def _check_definite(forms: Tensor, what: str) -> None:
    if not bool((forms > 0).all()):
        raise ConsistencyError(
            f"{what} is not positive definite: a form xᵀS x is {float(forms.min()):.3g}.",
            "Conjugate gradients would not converge to a solution.",
            "Add a multiple of the identity, or look for a product that is not symmetric.",
        )
