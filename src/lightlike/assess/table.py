"""All lengths of one network side by side, each with its worth, its price and its range."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid

from lightlike.assess.entries import ENTRIES, Entry, Question
from lightlike.errors import LightlikeError, UndefinedError, choice_error
from lightlike.length.arguments import check_fisher
from lightlike.length.codelength import CodeLength
from lightlike.length.coefficient import LearningCoefficient
from lightlike.length.description import check_units
from lightlike.length.prequential import PrequentialLength
from lightlike.length.priors import Prior
from lightlike.length.regular import Bounds
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_seed, check_whole
from lightlike.results import Result, plain
from lightlike.terminal import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 140


@dataclass(frozen=True)
class Row(Result):
    """One length, or why there is none.

    Attributes:
        name: What it was chosen by.
        title: What it is printed as.
        length: The length, or None.
        needs: What it takes.
        seconds: What it took; what several rows share counts where it was first needed.
        reason: Why it is not defined here; empty if it is.
    """

    name: str
    title: str
    length: CodeLength | None
    needs: str
    seconds: float
    reason: str

    def plot(self, ax: Any = None) -> Figure:
        """Its length, as a figure.

        Args:
            ax: Axes to draw in; a figure of its own unless given.

        Raises:
            UndefinedError: if it has none; the message says why.
        """
        if self.length is None:
            raise UndefinedError(
                f"{self.title} is not defined here.", self.reason, "Plot another row."
            )
        return self.length.plot(ax)

    @property
    def total(self) -> float | None:
        """The whole length; None where it is not defined."""
        return None if self.length is None else self.length.total

    @property
    def per_observation(self) -> float | None:
        """The length divided by N."""
        return None if self.length is None else self.length.per_observation().total

    @property
    def stderr(self) -> float | None:
        """Standard error of the total."""
        return None if self.length is None else self.length.stderr

    @property
    def kind(self) -> str:
        """One of "exact", "certified", "estimated" and "undefined"."""
        return "undefined" if self.length is None else self.length.kind

    @property
    def note(self) -> str:
        """Warnings and range of validity, or the reason why it is not defined."""
        if self.length is None:
            return self.reason
        return " ".join([*self.length.warnings, self.length.note])

    def to_dict(self) -> dict[str, Any]:
        """Plain Python types, fit for JSON."""
        names = (
            "name", "title", "total", "per_observation", "stderr", "kind", "needs", "seconds",
            "note", "reason",
        )  # fmt: skip
        return {name: plain(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class LengthTable(Result):
    """Lengths of one network on one data set.

    Attributes:
        rows: One an entry, in the order asked for.
        observations: N.
        units: "nats" or "bits".
    """

    rows: tuple[Row, ...]
    observations: int
    units: str

    def to(self, units: str) -> LengthTable:
        """The same table in "nats" or "bits".

        Raises:
            ChoiceError: for other units.
        """
        check_units(units)
        rows = [
            replace(row, length=None if row.length is None else row.length.to(units))
            for row in self.rows
        ]
        return LengthTable(tuple(rows), self.observations, units)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python types, fit for JSON."""
        return {
            "observations": self.observations,
            "units": self.units,
            "rows": [row.to_dict() for row in self.rows],
        }

    def plot(self, ax: Any = None) -> Figure:
        """All totals with two standard errors, as a figure; what is not defined is left out.

        Args:
            ax: Axes to draw in; a figure of its own unless given.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.values import Value, plot_values

        values = [
            Value(r.title, x.total, x.total - 2 * x.stderr, x.total + 2 * x.stderr)
            for r in self.rows
            if (x := r.length) is not None
        ]
        title = f"Lengths of {self.observations:,} labels"
        return plot_values(values, title, "bars: two standard errors", self.units, ax=ax)

    def _records(self) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self.rows]

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise choice_error("row", name, [repr(row.name) for row in self.rows])

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __rich__(self) -> Grid:
        grid = Grid(title=f"Lengths of N = {self.observations:,} observations in {self.units}")
        for column in ("", "total", "± s.e.", "per obs.", "kind", "took", "needs", "note"):
            right = column in ("total", "± s.e.", "per obs.", "took")
            grid.add_column(
                column,
                justify="right" if right else "left",
                no_wrap=column not in ("needs", "note"),
            )
        for row in self.rows:
            grid.add_row(
                row.title, *_figures(row), row.kind, f"{row.seconds:.2g} s", row.needs, row.note
            )
        return grid

    def __str__(self) -> str:
        return plain_text(self.__rich__(), width=WIDTH)


def table(
    F: Fisher,
    *,
    prior: Prior | None = None,
    bounds: Bounds | None = None,
    include: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int = 0,
    epsilon: float | None = None,
    coefficient: LearningCoefficient | None = None,
    prequential: PrequentialLength | None = None,
    units: str = "nats",
) -> LengthTable:
    """All lengths and criteria of a network on its data, side by side.

    A length that is not defined here keeps its row, with the reason.

    Args:
        F: From `lightlike.fisher`.
        prior: Of razor and posterior draws; N(0, I) unless given.
        bounds: Of the region of Rissanen's razor.
        include: Names of entries, in the order wanted; all unless given.
        draws: Of everything that samples; where each takes a pass over the data, 100 at most.
        seed: Of everything that samples.
        epsilon: Of the interpolating razor.
        coefficient: From `lightlike.learning_coefficient`, for the singular free energy.
        prequential: From `lightlike.lengths.prequential`, on the same data.
        units: "nats" or "bits".

    Raises:
        ChoiceError: if an entry or unit is unknown, or draws or seed are no whole numbers.
    """
    check_fisher(F)
    check_units(units)
    check_whole("draws", draws, 1)
    check_seed(seed)
    if not (include is None or isinstance(include, Sequence)):
        raise choice_error("include", include, ["None", "a list of names of entries"])
    known = {entry.name: entry for entry in ENTRIES}
    for name in include or ():
        if name not in known:
            raise choice_error("include", name, [*map(repr, known)])
    chosen = ENTRIES if include is None else [known[name] for name in include]
    question = Question(F, prior, bounds, draws, seed, epsilon, coefficient, prequential)
    rows = tuple(_ask(entry, question) for entry in chosen)
    return LengthTable(rows, F.problem.survey.observations, "nats").to(units)


def _ask(entry: Entry, question: Question) -> Row:
    start = time.perf_counter()
    length, reason = None, ""
    try:
        length = entry.compute(question)
    except LightlikeError as error:
        reason = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Row(entry.name, entry.title, length, entry.needs, seconds, reason)


def _figures(row: Row) -> tuple[str, str, str]:
    """Total, standard error and share of one observation, rounded as the error allows."""
    if row.length is None or row.per_observation is None:
        return "–", "–", "–"
    stderr = row.length.stderr
    digits = 3
    if 0 < stderr < math.inf:
        digits = min(6, max(0, 1 - math.floor(math.log10(stderr))))
    error = f"{stderr:,.{digits}f}" if stderr else "0"
    return f"{row.length.total:,.{digits}f}", error, f"{row.per_observation:.4g}"
