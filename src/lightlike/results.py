"""What all answers have in common: plain values, a table, a figure, a piece of a page."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightlike.errors import DependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Result:
    """An answer: `to_dict`, `to_frame`, `plot`, and what a notebook shows of it.

    How answers look is decided above them, in `lightlike.figures` and `lightlike.present`. These
    are loaded by name when something is drawn: matplotlib takes longer to load than all the rest of
    this package, and nothing down here depends on what they do.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python types, fit for JSON; infinite numbers become None."""
        return fields_of(self)

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame: a row for each entry of what has several, else one row of numbers.

        Raises:
            DependencyError: if pandas is not installed.
        """
        return frame_of(self._records())

    def plot(self, ax: Any = None) -> Figure:
        """A figure of it, made with matplotlib.

        Args:
            ax: Axes to draw in, a sequence of them where the figure has several panels; a figure of
                its own unless given. That one also holds its numbers:
                `lightlike.present.plots.data_of`.

        Raises:
            ChoiceError: if there is nothing to draw, or the number of axes is another.
        """
        figure: Figure = importlib.import_module("lightlike.figures.gallery").draw(self, ax)
        return figure

    def _records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of `to_frame`; single numbers and texts unless a class has more to tell."""
        return [{k: v for k, v in self.to_dict().items() if not isinstance(v, dict | list)}]

    def _repr_html_(self) -> str:
        """For notebooks: a piece of a page, without scripts or outside references."""
        text: str = importlib.import_module("lightlike.present.pieces").fragment(self)
        return text


def fields_of(result: Any, *leave_out: str) -> dict[str, Any]:
    """The public fields of a dataclass in plain Python types."""
    names = [field.name for field in fields(result) if not field.name.startswith("_")]
    names = [name for name in names if name not in leave_out]
    return {name: plain(getattr(result, name)) for name in names}


def plain(value: Any) -> Any:
    """A value in types that JSON has; a number that it lacks becomes None."""
    if isinstance(value, Result):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return fields_of(value)
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | Set):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    return value


def frame_of(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, index: str = ""
) -> DataFrame:
    """A pandas DataFrame.

    Args:
        rows: One mapping a row.
        columns: Their names, for a frame that may have no row.
        index: The column that names the rows; they are numbered unless given.

    Raises:
        DependencyError: if pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise DependencyError(
            "A data frame needs pandas, which is not installed.",
            "It is not among what lightlike itself requires.",
            "Run: pip install pandas; or use to_dict(), which has the same numbers.",
        ) from error
    names = None if columns is None else list(columns)
    found: DataFrame = pandas.DataFrame([dict(row) for row in rows], columns=names)
    return found.set_index(index) if index else found
