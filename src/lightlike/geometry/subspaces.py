"""The radical and the screen of a Fisher matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.errors import (
    CapacityError,
    ChoiceError,
    ConsistencyError,
    ModelError,
    PriorError,
    choice_error,
)
from lightlike.geometry.checks import check_fisher
from lightlike.geometry.dimension import dimension_of
from lightlike.geometry.iterative import IterativeRowSpace
from lightlike.geometry.rowspace import ExplicitRowSpace, RowSpace
from lightlike.geometry.scaledspace import by_gram
from lightlike.geometry.tangent import Radical, Screen
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_whole, is_finite
from lightlike.spectrum.rounding import EPS
from lightlike.vectors import Vector, read_real

METHODS = ("auto", "gram", "metric", "svd", "iterative")


def subspaces(
    F: Fisher,
    method: str = "auto",
    *,
    precision: Vector | float | None = None,
    tolerance: float | None = None,
    steps: int = 1000,
    memory: int | float | str | None = None,
) -> tuple[Radical, Screen]:
    """The radical and the screen: T_θM = Rad(θ) ⊕ S(θ) (Sun & Nielsen, arXiv 1905.11027, §3).

    Rad = ker Î = {v : A v = 0}; S is its orthogonal complement, the row space of A. Nothing of size
    D × D is made: projections come from A Aᵀ and products with A, held against A each time.

    With a precision Σ⁻¹, orthogonal is meant in the inner product uᵀ Σ⁻¹ v: then S = Σ rowspace(A),
    and projections are oblique in the Euclidean sense. The radical is the same.

    Args:
        F: From `lightlike.fisher`, in float64.
        method: "gram" (A Aᵀ), "metric" (Aᵀ A), "svd", "iterative" (conjugate gradients, which give
            projections and `solve` but neither bases nor shares), or "auto": the cheapest exact one
            that fits, else "iterative". `radical.method` says which it was.
        precision: The diagonal of Σ⁻¹, (D,) or one number, such as 1/σ² of a prior; Euclidean
            unless given.
        tolerance: Of the iteration, on ‖A r‖ / (s_1 ‖v‖) for the part r in the radical; that of
            the exact methods, twice max(K, D) · 2.2e-16, unless given. A wider one is faster and
            may call directions null along which A changes less than that; "auto" takes none.
        steps: Of the iteration, at most.
        memory: Bytes or a text such as "8 GB" that may be used; nine tenths of what is available
            unless given.

    Raises:
        ChoiceError: for an unknown method, a Fisher matrix in lower precision, or a tolerance that
            is not between 0 and 1 or given to an exact method.
        ModelError: if the model casts to lower precision inside.
        PriorError: if the precision has another shape or is not positive and finite.
        CapacityError: if the exact route asked for does not fit in memory.
        ConsistencyError: if the numerical rank is another in the units of the precision.
    """
    check_fisher(F)
    check_whole("steps", steps, 1)
    if F.problem.dtype != torch.float64:
        raise choice_error("dtype", F.problem.dtype, ["'float64', which alone decides rank"])
    if F.root.precision > EPS:
        raise ModelError(
            f"The model rounds to {F.root.precision:.2g} inside, although it runs in float64.",
            "Which directions change nothing cannot be told from those that change little.",
            "Remove casts to lower precision from the model's code.",
        )
    weights = None if precision is None else resolve_precision(precision, F)
    weighted = F if weights is None else Fisher(F.root.scaled(weights))
    if method not in METHODS:
        raise choice_error("method", method, [repr(name) for name in METHODS])
    share = is_finite(tolerance) and 0.0 < tolerance < 1.0
    if tolerance is not None and not (share and method == "iterative"):
        raise choice_error(
            "tolerance", tolerance, ["a number between 0 and 1, for method='iterative'", "None"]
        )
    rows = None if method == "iterative" else exact_rows(weighted, method, memory)
    if rows is None:
        rows = IterativeRowSpace(weighted, tolerance, steps, memory)
        return Radical(rows, weights), Screen(rows, weights)
    if weights is None:
        return Radical(rows, None), Screen(rows, None)
    plain = int(dimension_of(F.decomposition(method, memory).spectrum))
    if rows.rank != plain:
        raise ConsistencyError(
            f"The numerical rank is {plain:,} in Euclidean units and {rows.rank:,} in those of the "
            "precision.",
            "It does not depend on units, so rounding must have decided one of them.",
            "Give a precision that varies less over the parameters.",
        )
    return Radical(rows, weights), Screen(rows, weights)


def exact_rows(F: Fisher, method: str, memory: int | float | str | None) -> RowSpace | None:
    """The row space of a root by an exact route; None if "auto" finds none that fits."""
    try:
        decomposition = F.decomposition(method, memory)
    except CapacityError:
        if method != "auto":
            raise
        return None
    if decomposition.method == "gram":
        return by_gram(F.root, decomposition)
    return ExplicitRowSpace(F.root, decomposition)


def resolve_precision(precision: Vector | float, F: Fisher) -> Tensor:
    """The diagonal of Σ^½, (D,), from that of Σ⁻¹.

    Raises:
        PriorError: if the shape is another, or an entry is not positive and finite.
    """
    size = F.shape[0]
    one = [precision] if is_finite(precision) else precision
    given = read_real(one, "The precision", ChoiceError).to(F.device, torch.float64)
    given = given[0] if one is not precision else given
    if given.shape not in ((), (size,)):
        raise PriorError(
            f"The precision has shape {tuple(given.shape)}, not ({size},).",
            "It weights every selected parameter.",
            "Give one number for each, in the order of the model's parameters, or one for all.",
        )
    if not bool((torch.isfinite(given) & (given > 0)).all()):
        raise PriorError(
            "The precision is not positive and finite everywhere.",
            "It would not be an inner product on the parameters.",
            "Give positive numbers; leave parameters that are held fixed out of parameters=....",
        )
    return given.expand(size).rsqrt()
