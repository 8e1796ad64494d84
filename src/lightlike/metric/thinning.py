"""What a sample of columns takes: memory, passes over the data, operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightlike.errors import CapacityError
from lightlike.metric.footprint import WORKING, fixed_memory, passes
from lightlike.metric.root import Root
from lightlike.metric.strata import Stratum
from lightlike.metric.triangle import Triangle
from lightlike.metric.units import Unit
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT, Route

# Bytes of the factors of one pass over the data, as for the exact Gram matrix.
PASS = 3 << 30


@dataclass(frozen=True, eq=False)
class Thinning:
    """Sizes of a sample of the columns of A.

    Attributes:
        root: A.
        options: Share and replicates.
        strata: What is kept of every unit.
        budget: Bytes that may be used.
    """

    root: Root
    options: Columns
    strata: tuple[Stratum, ...]
    budget: float

    @property
    def exact(self) -> bool:
        """Whether all columns are kept."""
        return all(stratum.whole for stratum in self.strata)

    @property
    def kept(self) -> int:
        """Number of columns that are kept."""
        return sum(stratum.width for stratum in self.strata)

    @property
    def matrices(self) -> int:
        """Matrices that are summed: one a replicate, and one of what is kept whole."""
        return 1 if self.exact else self.options.replicates + 1

    @property
    def fixed(self) -> float:
        """Bytes of the model, the matrices and buffers."""
        rows = self.root.shape[0]
        square = 8.0 * rows**2 + self.matrices * Triangle.nbytes(rows)
        return fixed_memory(self.root.sweep, self.root.units, rows) + square

    @property
    def memory(self) -> float:
        """Peak bytes."""
        return self.fixed + max(self.size(units) for units in self.passes())

    @property
    def reason(self) -> str:
        """What is taken, in words."""
        rows, columns = self.root.shape
        if self.exact:
            return f"all {columns:,} columns, by the {rows:,} × {rows:,} Gram matrix"
        return (
            f"{self.kept:,} of {columns:,} columns, by {self.matrices:,} Gram matrices of "
            f"{rows:,} × {rows:,}"
        )

    @property
    def route(self) -> Route:
        """What it costs, eigenvalues and all."""
        rows = float(self.root.shape[0])
        pairs = sum(stratum.unit.pair_operations * stratum.share for stratum in self.strata)
        # A factorisation and an inverse of each, and eigenvalues of one.
        dense = (self.matrices + EIGENVALUE_WEIGHT * 4 / 3) * rows**3
        memory = self.memory + 8.0 * rows**2
        return Route("columns", pairs * rows**2 + dense, memory, self.reason, exact=False)

    def size(self, units: Sequence[Unit]) -> float:
        """Bytes of the factors of some units: all that is kept, and a batch of what is not."""
        survey, rows = self.root.problem.survey, self.root.shape[0]
        shares = {stratum.unit: stratum.share for stratum in self.strata}
        samples = sum(survey.samples)
        batch = rows * max(survey.samples) / max(1, samples)
        kept = sum(rows * shares[unit] * unit.held + samples * unit.shared for unit in units)
        return 8.0 * WORKING * (kept + batch * sum(unit.held for unit in units))

    def passes(self) -> list[list[Unit]]:
        """The units of each pass over the data.

        Raises:
            CapacityError: if the matrices, or the gradients of one unit, do not fit in memory.
        """
        room = self.budget - self.fixed
        largest = max(self.size([unit]) for unit in self.root.units)
        if largest > room:
            raise CapacityError(
                f"A sample of columns takes {format_bytes(self.fixed + largest)} for "
                f"{self.root.shape[0]:,} rows; {format_bytes(self.budget)} may be used.",
                "Its matrices and the rows of one layer are needed together.",
                "Use fewer replicates or a smaller share, Columns(share=..., replicates=...), or "
                "fewer observations.",
            )
        return passes(self.root.units, lambda unit: self.size([unit]), min(room, WORKING * PASS))
