"""A code length that has a fit, a penalty and a range of validity, whatever it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

from lightlike.length.description import UNITS, DescriptionLength, check_units
from lightlike.results import Result, plain

KINDS = ("exact", "certified", "estimated")


@dataclass(frozen=True, kw_only=True)
class CodeLength(Result):
    """Code length of the labels, read like a `DescriptionLength`.

    Attributes:
        name: What it is called.
        total: The whole length.
        fit: NLL_total(θ̂), or None where no single point is fitted.
        stderr: Standard error of the total; 0 where nothing was sampled.
        kind: "exact", "certified" or "estimated".
        observations: N.
        note: Its range of validity.
        warnings: What is wrong with this very number, if anything.
        record: What it rests on, by name.
        units: "nats" or "bits".
        scale: 1, or 1/N for figures per observation.
    """

    name: str
    total: float
    fit: float | None
    stderr: float
    kind: str
    observations: int
    note: str = ""
    warnings: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    units: str = "nats"
    scale: float = 1.0

    @property
    def penalty(self) -> float | None:
        """What is paid beyond the fit; None without one."""
        return None if self.fit is None else self.total - self.fit

    def to(self, units: str) -> Self:
        """The same length in "nats" or "bits" (1 nat = 1/ln 2 bits).

        Raises:
            ChoiceError: for other units.
        """
        check_units(units)
        return self._times(UNITS[units] / UNITS[self.units], units=units)

    def per_observation(self) -> Self:
        """The same length divided by N."""
        if self.scale != 1.0:
            return self
        return self._times(1.0 / self.observations, scale=1.0 / self.observations)

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python types, fit for JSON (infinite: None); `record` in nats."""
        names = (
            "name", "total", "fit", "penalty", "stderr", "kind", "observations", "note", "units",
            "scale", "record",
        )  # fmt: skip
        found = {name: plain(getattr(self, name)) for name in names}
        return found | {"warnings": list(self.warnings)}

    def _times(self, factor: float, **changes: Any) -> Self:
        return replace(
            self,
            total=self.total * factor,
            fit=None if self.fit is None else self.fit * factor,
            stderr=self.stderr * factor,
            **changes,
        )


def finite(value: Any) -> Any:
    """The value itself, or None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_code_length(name: str, length: DescriptionLength, note: str = "") -> CodeLength | None:
    """A description length under a name; None without labels."""
    if length.total is None:
        return None
    return CodeLength(
        name=name,
        total=length.total,
        fit=length.fit,
        stderr=length.stderr,
        kind=length.kind,
        observations=length.observations,
        note=note,
        record={"prior": length.prior, "tuning_cost": length.tuning_cost},
        units=length.units,
        scale=length.scale,
    )
