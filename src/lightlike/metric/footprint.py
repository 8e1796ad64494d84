"""How much memory a Gram matrix takes while it is made, and how that is kept within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightlike.errors import CapacityError
from lightlike.metric.contractions.pairs import HELD
from lightlike.metric.gram import STRIP
from lightlike.metric.sweep import IN_FLIGHT, Sweep
from lightlike.metric.units import Unit
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
        fixed: The model, a pass forwards and backwards, working buffers.
        result: The K × K matrix.
        factors: Back-propagated gradients of the largest pass over the data.
        room: What they may take in the budget.
        widest: The unit whose gradients take most.
        largest: What those take.
        passes: The units of each pass.
    """

    fixed: float
    result: float
    factors: float
    room: float
    widest: Unit
    largest: float
    passes: tuple[tuple[Unit, ...], ...]

    @property
    def total(self) -> float:
        """The sum of what is there at the peak."""
        return self.fixed + self.factors + self.result

    def error(self) -> CapacityError:
        """That the gradients of one unit do not fit."""
        rows = round((self.result / 8) ** 0.5)
        return CapacityError(
            f"The rows of {self.widest.names[0]!r} alone take {format_bytes(self.largest)} for "
            f"{rows:,} rows; {format_bytes(max(self.room, 0.0))} may be used.",
            "Its inner products between all rows need them together.",
            "Use fewer observations, exclude that parameter, or method='metric'.",
        )


def footprint(sweep: Sweep, units: Sequence[Unit], rows: int, budget: float) -> Footprint:
    """Passes that keep `Root.gram` within a budget of bytes, if any do, and what they take."""
    result, fixed = 8.0 * rows**2, fixed_memory(sweep, units, rows)
    room = budget - fixed - result
    widest = max(units, key=lambda unit: unit.held)
    size = sweep.problem.dtype.itemsize * rows
    largest = WORKING * size * widest.held
    most = min(max(room, largest) / WORKING, PASS)
    groups = passes(units, lambda unit: size * unit.held, most)
    factors = max(WORKING * size * sum(unit.held for unit in group) for group in groups)
    return Footprint(
        fixed, result, factors, room, widest, largest, tuple(tuple(group) for group in groups)
    )


def fixed_memory(sweep: Sweep, units: Sequence[Unit], rows: int) -> float:
    """Bytes of the model, of a pass over it and of buffers, which many rows do not raise."""
    pairs = [8.0 * rows * unit.held for unit in units if "pairs" in unit.order]
    buffers = flight_memory(units, rows) + strip_memory(units, rows)
    return model_memory(sweep) + buffers + min(8.0 * HELD, max(pairs, default=0.0))


def model_memory(sweep: Sweep) -> float:
    """Bytes of the model and of a pass forwards over it.

    Its copy, θ, a gradient and two sums of gradients; what the pass keeps for the one backwards.
    """
    problem = sweep.problem
    values = problem.evaluator.values.values()
    model = sum(v.nbytes for v in values) + 4 * 8.0 * problem.parameters
    share = max(problem.survey.samples) / problem.survey.samples[0]
    return model + share * sweep.graph_bytes


def flight_memory(units: Sequence[Unit], rows: int) -> float:
    """Bytes of the buffers of back-propagations in flight."""
    return BUFFERS * min(IN_FLIGHT, 8.0 * rows * sum(unit.held for unit in units))


def strip_memory(units: Sequence[Unit], rows: int) -> float:
    """Bytes of the buffers of columns that are written out."""
    written = [8.0 * rows * unit.width for unit in units if "entries" in unit.order]
    return BUFFERS * min(STRIP, max(written, default=0.0))


def passes(
    units: Sequence[Unit], size_of: Callable[[Unit], float], budget: float
) -> list[list[Unit]]:
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
            size = size_of(unit)
            if used + size > budget:
                groups.append([])
                used = 0
            groups[-1].append(unit)
            used += size
    return groups
