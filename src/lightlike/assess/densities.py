"""The density of a matrix's eigenvalues, from products with it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lightlike.metric.fisher import Fisher
from lightlike.metric.kronecker.control import control_of
from lightlike.metric.operator import FisherOperator
from lightlike.spectrum.beginning import State
from lightlike.spectrum.density import Density
from lightlike.spectrum.quadrature import Quadrature, check_targets, quadrature


def density(
    F: Any,
    options: Quadrature | None = None,
    *,
    scale: float | None = None,
    above: float | None = None,
    seed: int = 0,
    memory: int | float | str | None = None,
    state: Mapping[str, Tensor] | None = None,
    keep: Callable[[State], None] | None = None,
) -> Density:
    """Stochastic Lanczos quadrature of a Fisher matrix, or of any symmetric operator.

    Args:
        F: A Fisher matrix, or anything positive semi-definite with `shape` and `@`.
        options: Probes, steps, leading eigenvectors to take out.
        scale: c of a log det(I + c F) that steps suffice for; N of a Fisher matrix unless given.
        above: ε of a count of eigenvalues beyond it that steps suffice for.
        seed: Of the probes.
        memory: For vectors side by side, and what products share.
        state: What `keep` was last given by an interrupted call with the same arguments.
        keep: Called with all that is known so far, tensors by name, after every block of probes.

    Returns:
        A `Density`: `.logdet(c)`, `.effective_dimension(tau)`, `.above(eps)`, `.cumulative(t)`,
        `.trace`, `.squared_norm` and `.sum(f)`, each with bounds by quadrature, a standard error by
        chance and an `interval(level)` of both.

    Raises:
        DataError: if F is no square matrix of real numbers.
        EstimateError: if F is not symmetric or positive semi-definite, or a product not finite.
        ChoiceError: if the state is of another call, or an option out of range.
    """
    matrix, approximation = F, None
    if isinstance(F, Fisher):
        check_targets(options, scale, above)
        given = options or Quadrature()
        approximation = control_of(F.root, given, memory)
        matrix = FisherOperator(F, given.most)
        if scale is None and above is None:
            scale = float(F.problem.survey.observations)
    found = quadrature(
        matrix, options, scale=scale, above=above, seed=seed, memory=memory, state=state, keep=keep,
        approximation=approximation,
    )  # fmt: skip
    if isinstance(matrix, FisherOperator):
        matrix.close()
    return found
