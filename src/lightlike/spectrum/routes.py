"""The exact routes to a spectrum, what each costs, and which fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightlike.errors import CapacityError, choice_error
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.operator import Cost

EXACT = ("gram", "metric", "svd")

# Operations of a dense decomposition are slower than those of a matrix product: reductions to
# tridiagonal or bidiagonal form move as much data as they multiply.
EIGENVALUE_WEIGHT = 4.0
SVD_WEIGHT = 8.0


@dataclass(frozen=True)
class Route:
    """One way to all non-zero eigenvalues of Aᵀ A in float64.

    Attributes:
        method: "gram" (eigenvalues of A Aᵀ), "metric" (of Aᵀ A), "svd" (singular values of A), or
            an estimate: "sketch", "kronecker", "slq" or "lanczos".
        operations: Floating-point operations, decompositions weighted by their lower speed.
        memory: Peak bytes.
        reason: What it does, with the sizes.
        exact: Whether it gives them exactly.
    """

    method: str
    operations: float
    memory: float
    reason: str
    exact: bool = True

    def fits(self, budget: float) -> bool:
        """Whether its memory is within a budget in bytes."""
        return self.memory <= budget


def routes(rows: int, columns: int, cost: Cost) -> list[Route]:
    """The exact routes for A of shape (rows, columns), cheapest first.

    Args:
        rows: K.
        columns: D.
        cost: What A Aᵀ and A itself take.
    """
    small, large = min(rows, columns), max(rows, columns)
    matrix, gram, fixed = 8.0 * rows * columns, 8.0 * rows**2, cost.fixed_memory
    found = [
        Route(
            "gram",
            cost.gram_operations + EIGENVALUE_WEIGHT * 4 / 3 * float(rows) ** 3,
            fixed + max(cost.gram_memory + gram, 3 * gram),
            f"eigenvalues of the {rows:,} × {rows:,} Gram matrix",
        ),
        Route(
            "metric",
            cost.row_operations
            + 2.0 * rows * columns**2
            + EIGENVALUE_WEIGHT * 4 / 3 * float(columns) ** 3,
            fixed + 3 * 8.0 * columns**2 + min(matrix, float(1 << 28)),
            f"eigenvalues of the {columns:,} × {columns:,} Fisher matrix",
        ),
        Route(
            "svd",
            cost.row_operations
            + 2 * 2.0 * large * small**2
            + SVD_WEIGHT * 8 / 3 * float(small) ** 3,
            fixed + 3 * matrix + 3 * 8.0 * small**2,
            f"singular values of the {rows:,} × {columns:,} root itself",
        ),
    ]
    return sorted(found, key=lambda route: route.operations)


def choose(
    candidates: list[Route],
    method: str,
    budget: int,
    estimates: Callable[[], Sequence[Route]] = tuple,
    most: int | None = None,
) -> Route:
    """The cheapest exact route that fits, or the one asked for.

    Args:
        candidates: The exact routes, cheapest first.
        method: "auto", or one of them.
        budget: Bytes.
        estimates: Gives what is never chosen; if nothing exact fits, the error names them.
        most: Observations that some exact route would fit, for the error.

    Raises:
        ChoiceError: for an unknown method.
        CapacityError: if nothing that is allowed fits; it names the sizes and the ways out.
    """
    if method not in ("auto", *EXACT):
        raise choice_error("method", method, ["'auto'", *map(repr, EXACT)])
    allowed = [r for r in candidates if method in ("auto", r.method)]
    fitting = [r for r in allowed if r.fits(budget)]
    if fitting:
        return fitting[0]
    needs = "; ".join(f"{r.method} ({r.reason}) needs {format_bytes(r.memory)}" for r in allowed)
    fewer = f"at most {most:,} observations" if most else "fewer observations"
    raise CapacityError(
        f"No exact route fits in {format_bytes(budget)}: {needs}.",
        "Going on would swap or be killed half-way.",
        f"Measure {fewer} (K falls in proportion), select fewer parameters with "
        f"parameters=..., or raise memory=... if more is there.{told(estimates(), budget)}",
    )


def told(estimates: Sequence[Route], budget: float) -> str:
    """What can be estimated where nothing exact fits, and what each of the ways takes."""
    named = [
        f"method={route.method!r} ({route.reason}) takes {route.operations:.1e} operations and "
        f"{format_bytes(route.memory)}" + ("" if route.fits(budget) else ", too much here")
        for route in estimates
    ]
    if not named:
        return ""
    return f" Or estimate with lightlike.measure, the cheapest first: {'; '.join(named)}."
