"""Progress on stderr: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lightlike.errors import choice_error

T = TypeVar("T")
LINE_EVERY_S = 30.0


class Progress(ABC):
    """Follows loops. Never writes to stdout."""

    @abstractmethod
    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and report how far it is."""

    @staticmethod
    def silent() -> Progress:
        """One that says nothing."""
        return Silent()

    @staticmethod
    def resolve(progress: str | bool | Progress) -> Progress:
        """From "auto" (bar in a terminal, lines elsewhere), True, False, or an object."""
        if isinstance(progress, Progress):
            return progress
        if progress is False:
            return Silent()
        if progress is True or progress == "auto":
            return Bar() if sys.stderr.isatty() else Lines()
        raise choice_error("progress", progress, ["'auto'", "True", "False"])


class Silent(Progress):
    """Says nothing."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002
        """Yield the items."""
        yield from items


class Bar(Progress):
    """A bar for each stage that takes longer than a moment."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield the items under a transient bar."""
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        console = Console(stderr=True)
        with Bars(*columns, console=console, transient=True) as bars:
            task = bars.add_task(stage, total=total)
            for item in items:
                yield item
                bars.advance(task)


class Lines(Progress):
    """A line every half minute."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield the items; say now and then how many are done."""
        last = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - last > LINE_EVERY_S:
                of = f" of {total}" if total else ""
                sys.stderr.write(f"{stage}: {done}{of}\n")
                last = time.monotonic()
            yield item
