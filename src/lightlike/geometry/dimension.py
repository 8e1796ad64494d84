"""The local dimension d̂(θ) = rank Î(θ) = rank A: how many directions change the predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightlike.spectrum.spectrum import EPS, Spectrum


@dataclass(frozen=True)
class Dimension:
    """Rank of the Fisher information matrix on the sample, with what it is worth.

    Attributes:
        value: d̂, the number of singular values s_k of A above tolerance · s_1; from a sketch, the
            rank of the sketch.
        lower: Certain lower bound.
        upper: Certain upper bound, never above min(D, K).
        kind: "exact" if the bounds meet in float64, else "certified".
        gap: log10(s_d / s_{d+1}) around the cut; infinite if nothing is below it.
        tolerance: Relative threshold on singular values, max(K, D) · precision (as `matrix_rank`),
            or √(floor / λ_1) of a spectrum in float32.
        data_limited: Whether d̂ = K < D: more observations would raise it.
        bound: What the upper bound min(D, K) comes from: "parameters" or "data".
    """

    value: int
    lower: int
    upper: int
    kind: str
    gap: float
    tolerance: float
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
        kind="exact" if lower == upper and spectrum.precision <= EPS else "certified",
        gap=gap,
        tolerance=spectrum.tolerance,
        data_limited=value == rows < columns,
        bound="data" if rows < columns else "parameters",
    )
