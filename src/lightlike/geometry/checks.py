"""Whether what is asked of a Fisher matrix, and of points around it, can be meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor, nn

from lightlike.errors import LightlikeError, choice_error
from lightlike.metric.fisher import Fisher
from lightlike.problem.parameters import Point


def check_fisher(F: object) -> None:
    """Raise a ChoiceError unless F is a Fisher matrix."""
    if not isinstance(F, Fisher):
        raise choice_error("F", F, ["a Fisher matrix from lightlike.fisher"])


def each(points: Iterable[Point]) -> Iterable[Point]:
    """Points of a path, read one at a time.

    Raises:
        ChoiceError: if it is one point, not several, or none at all.
    """
    one = isinstance(points, Mapping | nn.Module | str) or not isinstance(points, Iterable)
    if one or (isinstance(points, Tensor | np.ndarray) and points.ndim < 2):
        raise choice_error("points", type(points).__name__, ["a list of points of a path"])
    return points


def listed(points: Iterable[Point]) -> list[Point]:
    """The points of a path in a list, as `each` reads them."""
    return list(each(points))


def at_point(F: Fisher, point: Point, name: str) -> Fisher:
    """F at another point; an error says which point it was.

    Raises:
        ParameterError: if it does not fit the model or is not finite.
        ModelError: if outputs are not finite there.
    """
    try:
        return F.at(point)
    except LightlikeError as error:
        raise type(error)(f"{name}: {error.what}", error.why, error.remedy) from error
