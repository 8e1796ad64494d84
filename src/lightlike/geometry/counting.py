"""Ranks of nested parts of one matrix, counted by one threshold, so that they can be compared.

A Aᵀ of some rows is a principal submatrix of A Aᵀ of more, and so is Aᵀ A of columns: by Cauchy's
interlacing theorem no singular value falls when rows or columns are added. Counted above one
absolute bound for all parts, the threshold of the whole matrix, neither does the rank. With a
threshold relative to each part it could.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lightlike.errors import ChoiceError, ConsistencyError
from lightlike.geometry.dimension import Dimension
from lightlike.metric.fisher import Fisher
from lightlike.problem.precision import name_of
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.spectrum import Spectrum


def cut_of(spectrum: Spectrum) -> float:
    """The threshold of a whole matrix as an absolute bound: max(K, D) · eps · s_1."""
    return spectrum.tolerance * math.sqrt(spectrum.largest)


def dimension_above(values: Eigenvalues, cut: float) -> Dimension:
    """The number of singular values above a bound that is at least the part's own threshold.

    Args:
        values: Eigenvalues of the part, as its route gave them, and the rank bounds they carry.
        cut: The bound, on singular values. One within a factor 1.5 above or 2 below it is close to
            call.
    """
    rows, columns = values.shape
    lower, upper = values.rank_bounds
    singular = values.eigenvalues.sqrt()
    lower = min(lower, int((singular > 1.5 * cut).sum()))
    if values.precision <= EPS and 0.5 * cut > math.sqrt(values.floor):
        upper = min(upper, int((singular > 0.5 * cut).sum()))
    value = min(max(int((singular > cut).sum()), lower), upper)
    smallest = float(singular[value - 1]) if 0 < value <= len(singular) else 0.0
    below = float(singular[value]) if value < len(singular) else math.sqrt(values.residue)
    return Dimension(
        value=value,
        lower=lower,
        upper=upper,
        kind="exact" if lower == upper else "certified",
        gap=math.log10(smallest / below) if smallest > 0.0 and below > 0.0 else math.inf,
        tolerance=cut / math.sqrt(values.largest) if values.largest else values.tolerance,
        data_limited=value == rows < columns,
        bound="data" if rows < columns else "parameters",
    )


def bounded(dimension: Dimension, lower: int, upper: int) -> Dimension:
    """The dimension with what else is known of its bounds.

    Raises:
        ConsistencyError: if the bounds exclude one another.
    """
    lower, upper = max(lower, dimension.lower), min(upper, dimension.upper)
    if lower > upper:
        raise ConsistencyError(
            f"A rank between {dimension.lower} and {dimension.upper} should lie between {lower} "
            f"and {upper} by what contains it and what it contains.",
            "Two of these numbers are wrong.",
            "Look for a model or data that change from one pass to the next.",
        )
    value = min(max(dimension.value, lower), upper)
    kind = "exact" if lower == upper else "certified"
    return replace(dimension, value=value, lower=lower, upper=upper, kind=kind)


def ascending(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Dimensions that never fall from one to the next by theory, their bounds tightened by that.

    Raises:
        ConsistencyError: if one must be less than one before it.
    """
    lowers, uppers = [d.lower for d in dimensions], [d.upper for d in dimensions]
    return tuple(
        bounded(d, max(lowers[: i + 1]), min(uppers[i:])) for i, d in enumerate(dimensions)
    )


def demand_float64(F: Fisher, question: str) -> None:
    """Refuse a model in float32.

    Raises:
        ChoiceError: if its dtype is not float64.
    """
    if F.problem.dtype.itemsize < 8:
        raise ChoiceError(
            f"{question} compares ranks, and the model is evaluated in {name_of(F.problem.dtype)}.",
            "Rounding to float32 hides small singular values, more in one rank than in another.",
            "Make the Fisher matrix with dtype='float64'.",
        )
