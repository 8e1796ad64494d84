"""The measurement of one network on one data set: all its numbers in one object, and on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from lightlike import store
from lightlike.assess.diagnosis import Check
from lightlike.assess.layers import LayerSummary
from lightlike.assess.summary import as_text
from lightlike.errors import StoreError
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.saturation import Saturation
from lightlike.geometry.symmetry.explanation import ExplanationSummary
from lightlike.length.criteria import Criteria
from lightlike.length.description import DescriptionLength
from lightlike.length.projections import Projections
from lightlike.results import Result, plain
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement(Result):
    """Dimension, spectrum and description length of a network, and what each is worth.

    Attributes:
        parameters: D, selected parameters.
        observations: N.
        rows: K = Σ rank Λ_i, rows of the root A.
        dimension: The local dimension d̂ = rank Î(θ).
        spectrum: Eigenvalues of Î(θ).
        length: Description length of the labels given the inputs, in the units asked for.
        layers: One summary a layer.
        criteria: AIC, BIC and baselines by name, in nats; None where undefined.
        likelihood: Name and settings.
        excluded: Parameters that were left out, frozen or not selected.
        nll: −log p of each observation in nats, (N,), or None without labels.
        record: Route, dtype, versions, fingerprints, seed, seconds, peak memory.
        checks: What was looked at, and what was found: see `lightlike.diagnose`.
        warnings: What to keep in mind when reading the numbers.
        explanation: Null directions by their sources, or None if they were not asked for.
        saturation: The dimension against observations, or None if it was not asked for.
        projections: What `lightlike.reanalyse` needs for other prior variances, if it was kept.
    """

    parameters: int
    observations: int
    rows: int
    dimension: Dimension
    spectrum: Spectrum
    length: DescriptionLength
    layers: list[LayerSummary]
    criteria: Criteria
    likelihood: dict[str, object]
    excluded: tuple[str, ...]
    nll: Tensor | None
    record: dict[str, Any]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    explanation: ExplanationSummary | None = None
    saturation: Saturation | None = None
    projections: Projections | None = None

    def to_dict(self) -> dict[str, Any]:
        """All numbers in plain Python types, fit for JSON; infinite ones become None."""
        return {**self._header(), "eigenvalues": self.spectrum.eigenvalues.tolist()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a result file (safetensors with a JSON header), whole or not at all.

        Raises:
            StoreError: if it cannot be written.
        """
        tensors = {"eigenvalues": self.spectrum.eigenvalues}
        if self.nll is not None:
            tensors["nll"] = self.nll
        if self.projections is not None:
            tensors |= self.projections.tensors()
        store.write(path, tensors, {"kind": "measurement", **self._header()})

    def plot(self, ax: Any = None) -> Figure:
        """The spectrum with the cut that decides the dimension, as a matplotlib figure.

        Each of its parts has a figure of its own: `length.plot()`, `explanation.plot()`, …; see
        `lightlike.present.plots` for others, and for the numbers in it.

        Args:
            ax: Axes to draw in; a figure of its own unless given.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.spectrum import plot_spectrum

        return plot_spectrum(self.spectrum, self.dimension, ax=ax)

    def _header(self) -> dict[str, Any]:
        header = {
            "parameters": self.parameters,
            "observations": self.observations,
            "rows": self.rows,
            "dimension": self.dimension,
            "spectrum": self.spectrum.values.facts(),
            "length": self.length,
            "layers": self.layers,
            "criteria": self.criteria,
            "likelihood": self.likelihood,
            "excluded": self.excluded,
            "record": self.record,
            "checks": self.checks,
            "warnings": self.warnings,
            "explanation": self.explanation,
            "saturation": self.saturation,
            "projections": None if self.projections is None else self.projections.facts(),
        }
        return dict(plain(header))

    def __str__(self) -> str:
        return as_text(self)

    def _records(self) -> list[dict[str, Any]]:
        d, length = self.dimension, self.length
        return [
            {
                "parameters": self.parameters, "observations": self.observations,
                "rows": self.rows, "dimension": d.value, "lower": d.lower, "upper": d.upper,
                "kind": d.kind, "trace": self.spectrum.trace, "total": length.total,
                "fit": length.fit, "displacement": length.displacement,
                "dimension_term": length.dimension_term, "spectrum_term": length.spectrum_term,
                "complexity": length.complexity, "stderr": length.stderr, "units": length.units,
                **self.criteria,
            }
        ]  # fmt: skip


def load(path: str | os.PathLike[str]) -> Measurement:
    """Read a measurement that `save` wrote; needs neither model nor data.

    Raises:
        StoreError: if the file is missing, truncated, damaged or not a measurement.
    """
    tensors, header = store.read(path)
    if header.get("kind") != "measurement":
        raise StoreError(
            f"{str(path)!r} holds a {header.get('kind')!r}, not a measurement.",
            "Its numbers mean something else.",
            "Name a file that Measurement.save wrote.",
        )
    try:
        return _from_header(header, tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"The header of {str(path)!r} is damaged ({type(error).__name__}: {error}).",
            "Some of its numbers are missing.",
            "Measure again.",
        ) from error


def _from_header(header: dict[str, Any], tensors: dict[str, Tensor]) -> Measurement:
    return Measurement(
        parameters=header["parameters"],
        observations=header["observations"],
        rows=header["rows"],
        dimension=Dimension.from_dict(header["dimension"]),
        spectrum=Spectrum(Eigenvalues.of(tensors["eigenvalues"], header["spectrum"])),
        length=DescriptionLength.from_dict(header["length"]),
        layers=[
            LayerSummary(
                name=layer["name"],
                parameters=layer["parameters"],
                trace=layer["trace"],
                dimension=_optional(layer["dimension"], Dimension.from_dict),
            )
            for layer in header["layers"]
        ],
        criteria=Criteria(header["criteria"]),
        likelihood=header["likelihood"],
        excluded=tuple(header["excluded"]),
        nll=tensors.get("nll"),
        record=header["record"],
        checks=tuple(Check(**check) for check in header["checks"]),
        warnings=tuple(header["warnings"]),
        explanation=_optional(header.get("explanation"), ExplanationSummary.from_dict),
        saturation=_optional(header.get("saturation"), Saturation.from_dict),
        projections=_optional(
            header.get("projections"), lambda kept: Projections.of(tensors, kept)
        ),
    )


def _optional(given: Any, read: Callable[[dict[str, Any]], T]) -> T | None:
    """A part that may not have been measured."""
    return None if given is None else read(given)
