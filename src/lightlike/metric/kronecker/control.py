"""The approximation that takes noise off a stochastic quadrature."""

from __future__ import annotations

from lightlike.metric.kronecker.approximation import ApproximateFisher
from lightlike.metric.kronecker.cost import check_memory
from lightlike.metric.kronecker.options import Kronecker
from lightlike.metric.root import Root
from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.quadrature import Quadrature


def control_of(
    root: Root, options: Quadrature | None, memory: int | float | str | None
) -> ApproximateFisher | None:
    """What the options ask for as control of probes of AᵀA; None if they ask for none.

    Raises:
        CapacityError: if it does not fit in memory.
    """
    if options is None or options.control is None:
        return None
    form = Kronecker(options.control)
    budget = resolve_memory(memory)
    check_memory(root, form, budget)
    return form.of(root, lambda: decompose(root, "auto", memory), budget)
