"""What every route to a measurement is given, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lightlike.assess.iterations import Iterations
from lightlike.assess.layers import LayerSummary
from lightlike.assess.stages import prior_tag
from lightlike.checkpoint import Checkpoint
from lightlike.errors import ChoiceError
from lightlike.geometry.dimension import Dimension
from lightlike.length.description import DescriptionLength
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.length.projections import Projections
from lightlike.metric.fisher import Fisher
from lightlike.problem.precision import name_of
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.routes import Route
from lightlike.spectrum.spectrum import Spectrum


@dataclass(frozen=True)
class Parts:
    """The numbers of one route.

    Attributes:
        spectrum: Of Î, or of what stands for it.
        dimension: Rank of Î, or bounds on it.
        length: Description length in nats.
        layers: One summary a layer.
        ways: How the batches were back-propagated.
        record: What goes into the record besides what all routes have.
        notes: What to keep in mind when reading the numbers.
        exact: Whether every row of A was taken whole.
        ranked: Whether the dimension is an estimate of the rank, and not bounds alone.
        projections: What re-analysis under other priors needs, if it was kept.
        memory: Bytes that the route was chosen for, where later ones must go by the same.
    """

    spectrum: Spectrum
    dimension: Dimension
    length: DescriptionLength
    layers: list[LayerSummary]
    ways: Sequence[str] = ()
    record: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    exact: bool = False
    ranked: bool = True
    projections: Projections | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Setting:
    """What all routes are given besides their own options."""

    F: Fisher
    prior: Prior
    resolved: ResolvedPrior
    seed: int
    memory: int | float | str | None
    layers: bool | None
    projections: bool | None = None
    checkpoint: Checkpoint | None = None

    @property
    def budget(self) -> int:
        """Bytes that may be used."""
        return resolve_memory(self.memory)

    def iterations(self, route: Route) -> Iterations:
        """Where the iterations of a route keep their states."""
        tag = prior_tag(self.prior, self.resolved)
        return Iterations(self.F, self.memory, tag, route.memory, self.checkpoint)

    def check_float64(self, method: str) -> None:
        """Raise a ChoiceError if a method that computes in float64 alone is asked for less."""
        if self.F.problem.dtype != torch.float64:
            raise ChoiceError(
                f"method={method!r} computes in float64, not {name_of(self.F.problem.dtype)}.",
                "The record would name a precision that no number has.",
                "Leave dtype='float64'.",
            )
