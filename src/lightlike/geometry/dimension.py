"""How many directions change the predictions: the rank d̂ = rank Î(θ), and those beyond some ε."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lightlike.errors import ConsistencyError
from lightlike.results import Result
from lightlike.spectrum.spectrum import Spectrum


@dataclass(frozen=True)
class Dimension(Result):
    """Rank of the Fisher information matrix on the sample, with what it is worth.

    Attributes:
        value: d̂, the number of singular values s_k of A above tolerance · s_1; from a sketch, the
            rank of the sketch.
        lower: Certain lower bound.
        upper: Certain upper bound, never above min(D, K).
        kind: "exact" if the bounds meet, never in float32; else "certified".
        gap: log10(s_d / s_{d+1}) around the cut; infinite if nothing is below it.
        tolerance: Relative threshold on singular values, max(K, D) · precision (as `matrix_rank`),
            or √(floor / λ_1) of a spectrum in float32.
        data_limited: Whether d̂ = K < D: more observations would raise it.
        bound: What the upper bound comes from: "parameters" (D), "data" (K), or "symmetries" (D
            less the independent null directions that have a name).
        proven_twice: Whether the bounds meet and the upper one is a count that does not rest on
            the spectrum.
    """

    value: int
    lower: int
    upper: int
    kind: str
    gap: float
    tolerance: float
    data_limited: bool
    bound: str
    proven_twice: bool = False

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    @staticmethod
    def from_dict(given: dict[str, Any]) -> Dimension:
        """The dimension that `to_dict` took apart."""
        gap = math.inf if given["gap"] is None else given["gap"]
        return Dimension(**{**given, "gap": gap})


@dataclass(frozen=True)
class SignificantDimension(Result):
    """Number of directions along which the predictions change by more than a bound.

    Attributes:
        value: d_ε, the number of eigenvalues of Î above ε.
        lower: Certain lower bound.
        upper: Certain upper bound, never above min(D, K).
        kind: "exact" if the bounds meet, never in float32; "estimated" from a sketch and
            "approximate" of another matrix, which bound nothing; else "certified": then ε lies
            within rounding of an eigenvalue.
        above: ε, an absolute bound on eigenvalues of Î.
        error: What rounding may move an eigenvalue near ε by.
        data_limited: Whether d_ε = K < D: more observations would raise it.
        bound: What the upper bound min(D, K) comes from: "parameters" or "data".
    """

    value: int
    lower: int
    upper: int
    kind: str
    above: float
    error: float
    data_limited: bool
    bound: str

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


def dimension_of(spectrum: Spectrum) -> Dimension:
    """Decide the rank from a spectrum and the bounds that it carries."""
    rows, columns = spectrum.shape
    lower, upper = spectrum.rank_bounds
    value = min(max(len(spectrum), lower), upper)
    smallest = float(spectrum.eigenvalues[value - 1]) if 0 < value <= len(spectrum) else 0.0
    gap = math.inf
    if spectrum.residue > 0.0 and smallest > 0.0:
        gap = 0.5 * math.log10(smallest / spectrum.residue)
    return Dimension(
        value=value,
        lower=lower,
        upper=upper,
        kind="exact" if lower == upper and spectrum.rounding is None else "certified",
        gap=gap,
        tolerance=spectrum.tolerance,
        data_limited=value == rows < columns,
        bound="data" if rows < columns else "parameters",
    )


def certify(dimension: Dimension, shape: tuple[int, int], null: int) -> Dimension:
    """Bound a rank from above by min(K, D − k), for k independent directions known to be null.

    Args:
        dimension: The rank, whose lower bound is that of the singular values found.
        shape: (K, D).
        null: k.

    Returns:
        The rank with the lower of both upper bounds; where this one meets the lower bound, it is
        exact and proven twice.

    Raises:
        ConsistencyError: if the bounds contradict each other.
    """
    rows, parameters = shape
    upper = min(rows, parameters - null)
    if upper < dimension.lower:
        raise ConsistencyError(
            f"{null:,} independent null directions leave at most {upper:,} dimensions, but "
            f"{dimension.lower:,} singular values of A exceed {dimension.tolerance:.1e} of the "
            "largest.",
            "One of the two is wrong, so neither can be trusted.",
            "Look for data or a model that change from one pass to the next; else report the "
            "model's layers as a fault of lightlike.",
        )
    if upper > dimension.upper:
        return dimension
    proven = upper == dimension.lower
    return replace(
        dimension,
        value=min(dimension.value, upper),
        upper=upper,
        kind="exact" if proven else dimension.kind,
        bound="symmetries" if null and parameters - null <= rows else dimension.bound,
        proven_twice=proven,
    )


def significant_dimension_of(spectrum: Spectrum, above: float) -> SignificantDimension:
    """Count the eigenvalues above a bound, by inertia where the eigenvalues are not known."""
    rows, columns = spectrum.shape
    count = spectrum.count(above)
    open_kind = spectrum.kind if spectrum.kind in ("estimated", "approximate") else "certified"
    return SignificantDimension(
        value=count.value,
        lower=count.lower,
        upper=count.upper,
        kind="exact" if count.lower == count.upper and spectrum.rounding is None else open_kind,
        above=above,
        error=count.error,
        data_limited=count.value == rows < columns,
        bound="data" if rows < columns else "parameters",
    )
