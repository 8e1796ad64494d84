"""What a measurement takes from whichever route it is made by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightlike.assess.approximating import approximation_notes, measure_approximation
from lightlike.assess.iterations import Iterations
from lightlike.assess.layers import LayerSummary
from lightlike.assess.leading import leading_notes, leading_route, measure_leading
from lightlike.assess.probing import measure_probes, probe_notes, probing_route
from lightlike.assess.sketching import measure_sketches, notes
from lightlike.assess.stages import Stages, prior_tag
from lightlike.assess.thinning import measure_columns, thinning_notes
from lightlike.checkpoint import Checkpoint
from lightlike.errors import choice_error
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.description import DescriptionLength
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.length.projections import Projections
from lightlike.metric.fisher import Fisher
from lightlike.metric.kronecker.options import Kronecker, as_kronecker
from lightlike.spectrum.columns import Columns, as_columns
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.partial import Lanczos, as_lanczos
from lightlike.spectrum.quadrature import Quadrature, as_quadrature
from lightlike.spectrum.routes import EXACT, Route
from lightlike.spectrum.sketch import Sketch, as_sketch
from lightlike.spectrum.spectrum import Spectrum

METHODS = ("auto", *EXACT, "lanczos", "slq", "columns", "kronecker", "sketch")
Method = str | Sketch | Kronecker | Quadrature | Lanczos | Columns


@dataclass(frozen=True)
class Parts:
    """The numbers of one route.

    Attributes:
        spectrum: Of Î, or of what stands for it.
        dimension: Rank of Î, or bounds on it.
        length: Description length in nats.
        layers: One summary a layer.
        record: What goes into the record besides what all routes have.
        ways: How the batches were back-propagated.
        notes: What to keep in mind when reading the numbers.
        exact: Whether every row of A was taken whole.
        ranked: Whether the dimension is an estimate of the rank, and not bounds alone.
        projections: What re-analysis under other priors needs, if it was kept.
    """

    spectrum: Spectrum
    dimension: Dimension
    length: DescriptionLength
    layers: list[LayerSummary]
    ways: Sequence[str]
    record: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    exact: bool = False
    ranked: bool = True
    projections: Projections | None = None


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


def parts_by(method: Method, setting: Setting) -> Parts:
    """The numbers by the route that a method means.

    Raises:
        LightlikeError: as the route does; a ChoiceError for an unknown method.
    """
    check_method(method)
    for options_of, route in ROUTES:
        options = options_of(method)
        if options is not None:
            return route(options, setting)
    return _by_rows(str(method), setting)


def check_method(method: Method) -> None:
    """Raise a ChoiceError for what no measurement is made by; it lists all that one is made by."""
    if isinstance(method, Sketch | Kronecker | Quadrature | Lanczos | Columns):
        return
    if not isinstance(method, str) or method not in METHODS:
        options = "Sketch, Kronecker, Quadrature, Lanczos or Columns"
        raise choice_error("method", method, [*map(repr, METHODS), f"a lightlike.{options}"])


def is_resumed(method: Method) -> bool:
    """Whether a measurement by a method goes on from its states; others begin anew."""
    return is_exact(method) or is_iterative(method)


def is_iterative(method: Method) -> bool:
    """Whether a method means iterations from random vectors, which depend on the seed."""
    return as_quadrature(method) is not None or as_lanczos(method) is not None


def is_exact(method: Method) -> bool:
    """Whether a method means a route that decides the rank."""
    return all(options_of(method) is None for options_of, _ in ROUTES)


def _by_rows(method: str, setting: Setting) -> Parts:
    stages = Stages(setting.F, method, setting.memory, setting.checkpoint, setting.layers)
    spectrum = stages.spectrum()
    tag = prior_tag(setting.prior, setting.resolved)
    length = stages.length(setting.prior, tag)
    return Parts(
        spectrum=spectrum,
        dimension=dimension_of(spectrum),
        length=length,
        projections=stages.projections(setting.resolved, tag, length, setting.projections),
        layers=stages.layers(),
        ways=setting.F.root.sweep.ways,
        exact=True,
    )


def _by_sketches(options: Sketch, setting: Setting) -> Parts:
    found = measure_sketches(
        setting.F, setting.prior, options,
        seed=setting.seed, memory=setting.budget, layers=setting.layers,
    )  # fmt: skip
    return Parts(
        found.spectrum, found.dimension, found.length, found.layers, found.ways,
        {"sketch": found.record}, notes(found.record, found.dimension),
    )  # fmt: skip


def _by_approximation(options: Kronecker, setting: Setting) -> Parts:
    found = measure_approximation(
        setting.F, setting.prior, options,
        seed=setting.seed, memory=setting.budget, layers=setting.layers,
    )  # fmt: skip
    return Parts(
        found.spectrum, found.dimension, found.length, found.layers, found.ways,
        {"approximation": found.record}, approximation_notes(found.record, found.dimension),
        ranked=found.dimension.lower == found.dimension.upper,
    )  # fmt: skip


def _by_probes(options: Quadrature, setting: Setting) -> Parts:
    found = measure_probes(
        setting.F, setting.prior, options,
        seed=setting.seed, layers=setting.layers,
        iterations=setting.iterations(probing_route(setting.F.root, options)),
    )  # fmt: skip
    return Parts(
        found.spectrum, found.dimension, found.length, found.layers, (),
        {"quadrature": found.record}, probe_notes(found.record),
        ranked=found.dimension.lower == found.dimension.upper,
    )  # fmt: skip


def _by_leading(options: Lanczos, setting: Setting) -> Parts:
    found = measure_leading(
        setting.F, setting.prior, options,
        seed=setting.seed, layers=setting.layers,
        iterations=setting.iterations(leading_route(setting.F.root, options)),
    )  # fmt: skip
    return Parts(
        found.spectrum, found.dimension, found.length, found.layers, found.ways,
        {"lanczos": found.record}, leading_notes(found.record),
        ranked=found.dimension.lower == found.dimension.upper,
    )  # fmt: skip


def _by_columns(options: Columns, setting: Setting) -> Parts:
    found = measure_columns(
        setting.F, setting.prior, options,
        seed=setting.seed, memory=setting.budget, layers=setting.layers,
    )  # fmt: skip
    return Parts(
        found.spectrum, found.dimension, found.length, found.layers, found.ways,
        {"columns": found.record}, thinning_notes(found.record, found.dimension),
        ranked=found.dimension.lower == found.dimension.upper,
    )  # fmt: skip


# Whether a method means a route's options, and the route; exact ones take every other method.
ROUTES: tuple[tuple[Callable[[Any], Any], Callable[[Any, Setting], Parts]], ...] = (
    (as_sketch, _by_sketches),
    (as_kronecker, _by_approximation),
    (as_quadrature, _by_probes),
    (as_lanczos, _by_leading),
    (as_columns, _by_columns),
)
