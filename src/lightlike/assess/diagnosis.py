"""Checks of a measurement: what was looked at, what was found, what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from lightlike.errors import ChoiceError
from lightlike.results import Result, plain
from lightlike.terminal import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightlike.assess.measurement import Measurement

Status = Literal["failed", "warning", "passed"]
ORDER: tuple[Status, ...] = ("failed", "warning", "passed")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: A few words, always the same.
        status: "failed" if numbers mean something else than they say, "warning" if they need care
            in reading, "passed".
        evidence: What was found, with its numbers.
        remedy: What to do; empty if nothing.
    """

    name: str
    status: Status
    evidence: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """Evidence and remedy in one paragraph."""
        return f"{self.evidence} {self.remedy}".strip()


@dataclass(frozen=True)
class Diagnosis(Result):
    """All checks of a measurement, failures first.

    Attributes:
        checks: The checks.
    """

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those that failed."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def healthy(self) -> bool:
        """Whether none failed."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python types."""
        return {"healthy": self.healthy, "checks": plain(self.checks)}

    def plot(self, ax: Any = None) -> Figure:
        """How many checks failed, warn and passed, as a figure.

        Args:
            ax: Axes to draw in; a figure of its own unless given.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.chart import BLUE, INK, ORANGE
        from lightlike.figures.values import plot_amounts

        counts = [(s, float(sum(c.status == s for c in self.checks))) for s in ORDER]
        bad = ", ".join(c.name for c in self.checks if c.status != "passed")
        title = "Some checks failed" if self.failed else "No check failed"
        return plot_amounts(counts, title, bad, hues=(INK, ORANGE, BLUE), ax=ax)

    def _records(self) -> list[dict[str, str]]:
        return [plain(check) for check in self.checks]

    def __str__(self) -> str:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in self.checks:
            table.add_row(check.status, check.name, Text(check.text))
        width = max(80, min(120, shutil.get_terminal_size().columns))
        return plain_text(table, width=width)


def arranged(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Failures first, then warnings, each in their order."""
    return tuple(sorted(checks, key=lambda check: ORDER.index(check.status)))


def diagnose(measurement: Measurement) -> Diagnosis:
    """The checks that were made when a network was measured.

    Args:
        measurement: From `lightlike.measure`, or a saved one from `lightlike.load`.

    Raises:
        ChoiceError: if it is something else.
    """
    checks = getattr(measurement, "checks", None)
    if checks is None:
        raise ChoiceError(
            f"A {type(measurement).__name__} cannot be diagnosed.",
            "Checks are made when a network is measured, and kept with the result.",
            "Give what lightlike.measure returns, or lightlike.load of its file.",
        )
    return Diagnosis(arranged(checks))
