"""The eigenvalues that a route has computed, and what that route can and cannot tell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightlike.spectrum.inertia import Count
from lightlike.spectrum.rounding import (
    EPS,
    SMALL,
    Rounding,
    eigenvalue_error,
    eigenvalue_floor,
    logdet_error,
    rank_tolerance,
)


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """Non-zero eigenvalues λ_1 ≥ λ_2 ≥ … of a positive semi-definite matrix Aᵀ A.

    Attributes:
        eigenvalues: Descending, float64, 1-D: those that are distinguishable from zero.
        trace: Σ λ of the whole matrix, None if it is not known.
        shape: (K, D), the shape of A; (D, D) if only the matrix itself is known.
        kind: "exact" when every eigenvalue was computed in float64, "certified" when A's entries
            are of lower precision, or the largest were approached step by step: then each
            eigenvalue is known to `errors`; "estimated" when they are means over independent
            sketches, those of a sample of columns, or the largest that random probes were freed of;
            "approximate" when they are
            those of another matrix that stands for this one.
        method: The route that gave it: "gram", "metric", "svd", "sketch", "lanczos", "slq",
            "columns" or "dense".
        floor: Absolute size of eigenvalues below which rounding hides them in this route; where
            only the largest are held, no other one exceeds it.
        residue: Largest computed eigenvalue below the cut, 0 if there is none.
        rank_bounds: Certain bounds on the number of singular values of A above the default
            tolerance of `Spectrum.rank`.
        reason: Why this route was taken.
        precision: Rounding unit of A's entries.
        rounding: How far A in lower precision was found from A in float64; None where it was not
            held against it.
        whole: Whether these are all; else only the largest are held.
        deviations: A bound on the error of each eigenvalue where they are known one by one; None
            where the route has one rule for all.
    """

    eigenvalues: Tensor
    trace: float | None
    shape: tuple[int, int]
    kind: str
    method: str
    floor: float
    residue: float
    rank_bounds: tuple[int, int]
    reason: str = ""
    precision: float = EPS
    rounding: Rounding | None = None
    whole: bool = True
    deviations: tuple[float, ...] | None = None

    @property
    def resolved(self) -> bool:
        """Whether the rank is decided: no eigenvalue is hidden by rounding or close to call."""
        return self.rank_bounds[0] == self.rank_bounds[1]

    @cached_property
    def largest(self) -> float:
        """λ_1, or 0 for a zero matrix."""
        return float(self.eigenvalues[0]) if len(self.eigenvalues) else 0.0

    @cached_property
    def errors(self) -> tuple[float, ...]:
        """A bound on the error of each eigenvalue."""
        if self.deviations is not None:
            return self.deviations
        return tuple(self.error(v) for v in self.eigenvalues.tolist())

    def error(self, size: float) -> float:
        """Absolute error of an eigenvalue of about this size.

        Large ones have that of a symmetric eigenvalue problem. Where singular values of A are
        known to √floor, small ones have 2 √(size · floor) at most, which is less.
        """
        if self.deviations is not None:
            return max(self.deviations, default=0.0)
        plain = self.base
        if self.rounding is not None:
            return eigenvalue_error(size, self.rounding, plain)
        if size > SMALL * self.largest or self.floor >= plain:
            return max(plain, self.floor)
        return math.sqrt(size * self.floor) + self.floor

    @property
    def base(self) -> float:
        """Error of an eigenvalue that the decomposition, or a cast inside the model, makes."""
        unit = self.precision if self.rounding is None else self.rounding.reference
        return eigenvalue_floor(min(self.shape), self.largest, unit)

    @property
    def tolerance(self) -> float:
        """Singular values below this share of the largest count as zero, or are hidden."""
        if self.rounding is None or not self.largest:
            return rank_tolerance(self.shape, self.precision)
        return min(1.0, math.sqrt(self.floor / self.largest))

    def logdet_error(self, scale: float) -> float:
        """A bound on the error of Σ log(1 + scale λ_k) by lower precision; 0 in float64."""
        if self.precision <= EPS:
            return 0.0
        missing = min(self.shape) - len(self)
        rounding = self.rounding or Rounding(0.0, 0.0, 0.0, 0.0, missing * self.residue)
        return logdet_error(self.eigenvalues, missing, scale, rounding, self.base, self.floor)

    def count(self, above: float) -> Count:
        """How many exceed a bound, and between what their errors let that number lie.

        Of estimated and approximate ones no error is certain: the bounds are 0 and min(K, D). Where
        only the largest are held, the upper bound of a number below their floor is min(K, D).
        """
        if self.deviations is not None and self.kind not in ("estimated", "approximate"):
            return self._count_each(above)
        error = self.error(max(above, 0.0))
        value, lower, upper = (
            int((self.eigenvalues > t).sum()) for t in (above, above + error, above - error)
        )
        if self.kind in ("estimated", "approximate"):
            return Count(value, 0, min(self.shape), error)
        hidden = above <= self.floor + error and self.trace != 0.0
        if hidden and len(self.eigenvalues) < min(self.shape):
            upper = min(self.shape)
        return Count(value, lower, upper, error)

    def _count_each(self, above: float) -> Count:
        """`count` from a bound on each one's error."""
        values, reach = self.eigenvalues, self.eigenvalues.new_tensor(self.errors)
        value, lower, upper = (
            int((moved > above).sum()) for moved in (values, values - reach, values + reach)
        )
        if above < self.floor and len(values) < min(self.shape):
            upper = min(self.shape)
        return Count(value, lower, upper, self.error(above))

    def facts(self) -> dict[str, Any]:
        """All but the eigenvalues themselves, in types that JSON has."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "eigenvalues"}
        kept["shape"], kept["rank_bounds"] = list(self.shape), list(self.rank_bounds)
        kept["deviations"] = None if self.deviations is None else list(self.deviations)
        kept["rounding"] = None if self.rounding is None else asdict(self.rounding)
        return kept

    @staticmethod
    def of(eigenvalues: Tensor, facts: dict[str, Any]) -> Eigenvalues:
        """The eigenvalues with what `facts` took apart."""
        given = dict(facts)
        for name in ("shape", "rank_bounds", "deviations"):
            if given.get(name) is not None:
                given[name] = tuple(given[name])
        if (rounding := given.get("rounding")) is not None:
            given["rounding"] = Rounding(**rounding)
        return Eigenvalues(eigenvalues=eigenvalues, **given)

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __eq__(self, other: object) -> bool:
        """Equality of every field, of eigenvalues to the bit."""
        if not isinstance(other, Eigenvalues):
            return NotImplemented
        mine, theirs = (
            {f.name: getattr(side, f.name) for f in fields(side)} for side in (self, other)
        )
        same = torch.equal(mine.pop("eigenvalues"), theirs.pop("eigenvalues"))
        return same and mine == theirs

    def __hash__(self) -> int:
        return hash((self.shape, self.method, self.trace))
