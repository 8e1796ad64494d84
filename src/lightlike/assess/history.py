"""What was measured along a training run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlike.errors import StoreError
from lightlike.numbers import is_finite, is_whole
from lightlike.results import Result, frame_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How each line of a history begins.
START = b'{"step": '


@dataclass(frozen=True)
class Snapshot(Result):
    """A network at one step of its training; lengths in nats.

    Attributes:
        step: Of training.
        loss: As the caller gave it; None if it was not given, or not finite.
        observations: N.
        parameters: D.
        dimension: d̂.
        lower: Certain lower bound of it.
        upper: Certain upper bound of it.
        kind: What it is worth.
        trace: tr Î.
        largest: λ_1.
        effective_dimension: MacKay's γ under the prior.
        length: Description length of the labels, or None without labels.
        fit: Its first term, NLL_total, or None.
        displacement: Its second term, or None.
        complexity: Its third term.
        rotation: Largest principal angle between the leading directions of this snapshot's screen
            and the one before, in radians; None if not followed, and for the first.
        seconds: That the measurement took.
    """

    step: int
    loss: float | None
    observations: int
    parameters: int
    dimension: int
    lower: int
    upper: int
    kind: str
    trace: float
    largest: float
    effective_dimension: float
    length: float | None
    fit: float | None
    displacement: float | None
    complexity: float
    rotation: float | None
    seconds: float

    def plot(self, ax: Any = None) -> Figure:
        """Fit, displacement and complexity, as a figure.

        Args:
            ax: Axes to draw in; a figure of its own unless given.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.values import plot_amounts

        terms = {"fit": self.fit, "displacement": self.displacement, "complexity": self.complexity}
        return plot_amounts(
            [(name, value) for name, value in terms.items() if value is not None],
            f"Step {self.step:,}: dimension {self.dimension:,} of {self.parameters:,}",
            f"nats of {self.observations:,} labels",
            ax=ax,
        )

    def numbers(self) -> dict[str, float]:
        """What can be drawn as a curve, by name; without what is absent."""
        given = asdict(self)
        names = ("loss", "dimension", "trace", "largest", "effective_dimension", "length", "fit",
                 "displacement", "complexity", "rotation")  # fmt: skip
        return {name: float(given[name]) for name in names if given[name] is not None}


@dataclass(frozen=True)
class History(Result):
    """Snapshots in the order of their steps.

    Attributes:
        snapshots: The snapshots.
    """

    snapshots: tuple[Snapshot, ...]

    def __len__(self) -> int:
        return len(self.snapshots)

    def column(self, name: str) -> list[Any]:
        """One attribute of all snapshots."""
        return [getattr(snapshot, name) for snapshot in self.snapshots]

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row a snapshot, by step.

        Raises:
            DependencyError: if pandas is not installed.
        """
        columns = list(Snapshot.__dataclass_fields__)
        return frame_of([s.to_dict() for s in self.snapshots], columns, "step")

    def plot(self, ax: Any = None) -> Figure:
        """Dimension, length and its terms, loss and rotation against the step, as a figure.

        Args:
            ax: Axes to draw in, one for each of these that there is; a figure of its own unless
                given.

        Raises:
            ChoiceError: if nothing was measured.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.history import plot_history

        columns = {name: self.column(name) for name in Snapshot.__dataclass_fields__}
        return plot_history(columns, ax=ax)

    def __str__(self) -> str:
        heads = ("step", "dimension", "length", "fit", "complexity", "loss")
        rows = [
            (
                f"{s.step:,}",
                f"{s.dimension:,}" if s.lower == s.upper else f"{s.lower:,}–{s.upper:,}",
                *("—" if v is None else f"{v:,.1f}" for v in (s.length, s.fit, s.complexity)),
                "—" if s.loss is None else f"{s.loss:.4g}",
            )
            for s in self.snapshots
        ]
        widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (heads, *rows)
        ]
        return "\n".join(lines)


def read_history(path: str | os.PathLike[str]) -> History:
    """Read the lines of JSON that a tracker wrote; a last line cut off by a crash is left out.

    Raises:
        StoreError: if the file cannot be read, a line is not a snapshot, or steps run backwards.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{str(path)!r} cannot be read: {error}.",
            "There is no history without it.",
            "Name a file that a Tracker with out=... wrote.",
        ) from error
    found: list[Snapshot] = []
    # What follows the last line feed is an unfinished line.
    for number, line in enumerate(lines[:-1], 1):
        snapshot, fault = _parsed(line)
        if snapshot is not None and found and snapshot.step <= found[-1].step:
            fault = f"step {snapshot.step} follows step {found[-1].step}"
        if snapshot is None or fault:
            raise StoreError(
                f"Line {number} of {str(path)!r} is no next snapshot ({fault}).",
                "A history with a gap would be taken for a whole one.",
                "Name a file that a Tracker with out=... wrote, or remove the damaged line.",
            )
        found.append(snapshot)
    return History(tuple(found))


def is_history(path: Path) -> bool:
    """Whether a file begins as a history does, or is empty; of a whole one tells `read_history`."""
    with path.open("rb") as file:
        start = file.read(len(START))
    return START.startswith(start) if len(start) < len(START) else start == START


def _parsed(line: str) -> tuple[Snapshot | None, str]:
    """The snapshot on a line, or what is wrong with it."""
    try:
        given = json.loads(line)
    except ValueError as error:
        return None, str(error)
    if not isinstance(given, Mapping):
        return None, "not an object"
    try:
        snapshot = Snapshot(**given)
    except TypeError as error:
        return None, str(error)
    for entry in fields(Snapshot):
        value = getattr(snapshot, entry.name)
        if not _is(value, str(entry.type)):
            return None, f"{entry.name} is {value!r}"
    return snapshot, ""


def _is(value: Any, kind: str) -> bool:
    """Whether a value from JSON is of the type that an attribute is declared to have."""
    if kind == "str":
        return isinstance(value, str)
    if kind == "int":
        return is_whole(value)
    return is_finite(value) or (value is None and kind == "float | None")
