"""What a measurement takes from whichever route it is made by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightlike.assess.approximating import measure_approximation
from lightlike.assess.leading import measure_leading
from lightlike.assess.probing import measure_probes
from lightlike.assess.setting import Parts, Setting
from lightlike.assess.sketching import measure_sketches
from lightlike.assess.stages import Stages, prior_tag
from lightlike.assess.thinning import measure_columns
from lightlike.errors import choice_error
from lightlike.geometry.dimension import dimension_of
from lightlike.metric.kronecker.options import Kronecker, as_kronecker
from lightlike.spectrum.columns import Columns, as_columns
from lightlike.spectrum.partial import Lanczos, as_lanczos
from lightlike.spectrum.quadrature import Quadrature, as_quadrature
from lightlike.spectrum.routes import EXACT
from lightlike.spectrum.sketch import Sketch, as_sketch

METHODS = ("auto", *EXACT, "lanczos", "slq", "columns", "kronecker", "sketch")
Method = str | Sketch | Kronecker | Quadrature | Lanczos | Columns


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
        memory=stages.memory,
    )


# Whether a method means a route's options, and the route; exact ones take every other method.
ROUTES: tuple[tuple[Callable[[Any], Any], Callable[[Any, Setting], Parts]], ...] = (
    (as_sketch, measure_sketches),
    (as_kronecker, measure_approximation),
    (as_quadrature, measure_probes),
    (as_lanczos, measure_leading),
    (as_columns, measure_columns),
)
