"""How much memory a Gram matrix takes while it is made, and how that is kept within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightlike.errors import CapacityError
from lightlike.metric.contractions.pairs import HELD
from lightlike.metric.gram import STRIP
from lightlike.metric.sweep import IN_FLIGHT, Sweep
from lightlike.metric.units import Unit
from lightlike.problem.problem import Problem
from lightlike.spectrum.memory import format_bytes

# Bytes of the factors of one pass over the data. More passes cost a back-propagation each, which is
# little beside the products; more memory at a time costs its first touch.
PASS = 3 << 30
# What a factor takes while it is put together, trimmed and joined, in units of what it is then.
WORKING = 1.5
# Buffers of a back-propagation in flight, and of columns written out, in units of one.
BUFFERS = 4


@dataclass(frozen=True)
class Footprint:
    """Peak memory of `Root.gram`, in bytes.

    Attributes:
        fixed: The model in float64, a pass forwards and backwards, working buffers.
        factors: Back-propagated gradients of the largest pass over the data.
        result: The K × K matrix.
        passes: The units of each pass.
    """

    fixed: float
    factors: float
    result: float
    passes: tuple[tuple[Unit, ...], ...]

    @property
    def total(self) -> float:
        """The sum."""
        return self.fixed + self.factors + self.result


def footprint(problem: Problem, sweep: Sweep, units: Sequence[Unit], budget: float) -> Footprint:
    """Passes that keep `Root.gram` within a budget of bytes, and what they take.

    Raises:
        CapacityError: if the gradients of one unit do not fit.
    """
    rows = problem.survey.rows
    result, fixed = 8.0 * rows**2, fixed_memory(problem, sweep, units)
    room = (budget - fixed - result) / WORKING
    for unit in units:
        size = 8.0 * rows * unit.held
        if size > room:
            raise CapacityError(
                f"The rows of {unit.names[0]!r} alone take {format_bytes(size)} for {rows:,} rows; "
                f"{format_bytes(max(room, 0.0))} may be used.",
                "Its inner products between all rows need them together.",
                "Use fewer observations, exclude that parameter, or method='metric'.",
            )
    groups = passes(units, rows, min(room, PASS))
    largest = max(8.0 * rows * sum(unit.held for unit in group) for group in groups)
    return Footprint(fixed, WORKING * largest, result, tuple(tuple(group) for group in groups))


def fixed_memory(problem: Problem, sweep: Sweep, units: Sequence[Unit]) -> float:
    """Bytes that do not grow with the number of rows."""
    values = problem.evaluator.values.values()
    # The copy of the model, θ, a gradient and two sums of gradients.
    model = sum(v.nbytes for v in values) + 4 * 8.0 * problem.parameters
    share = max(problem.survey.samples) / problem.survey.samples[0]
    graph = share * sweep.graph_bytes
    rows = 8.0 * problem.survey.rows
    flight = min(IN_FLIGHT, rows * sum(unit.held for unit in units))
    strip = min(STRIP, rows * max(unit.width for unit in units))
    pairs = [rows * unit.held for unit in units if "pairs" in unit.order]
    return model + graph + BUFFERS * (flight + strip) + min(8.0 * HELD, max(pairs, default=0.0))


def passes(units: Sequence[Unit], rows: int, budget: float) -> list[list[Unit]]:
    """Split units into passes over the data whose factors for all rows fit in a budget of bytes.

    Units that all samples of a batch can share come first, apart from the others, so that the quick
    way of back-propagating them is not held up.
    """
    groups: list[list[Unit]] = []
    for aligned in (True, False):
        used = budget + 1
        for unit in units:
            if unit.aligned != aligned:
                continue
            size = 8.0 * rows * unit.held
            if used + size > budget:
                groups.append([])
                used = 0
            groups[-1].append(unit)
            used += size
    return groups
