"""Progress on stderr: a bar a stage in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from lightlike.errors import choice_error
from lightlike.meter import Meter, format_seconds

T = TypeVar("T")
LINE_EVERY_S = 30.0


class Progress(ABC):
    """Follows loops and stages. Never writes to stdout.

    One of your own gives `track`; the other methods do nothing unless it has them.
    """

    @abstractmethod
    def track(
        self,
        items: Iterable[T],
        stage: str,
        total: int | None = None,
        *,
        done: int = 0,
        share: float = 1.0,
    ) -> Iterator[T]:
        """Yield the items and report how far it is.

        Args:
            items: What is to be done.
            stage: What it is for.
            total: How many items there are, with those that were done before.
            done: How many were done before, in an earlier run.
            share: Which part of the stage this loop is.
        """

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:  # noqa: ARG002
        """A stage that cannot say how far it is."""
        yield

    def expect(self, operations: Mapping[str, float]) -> None:  # noqa: B027
        """Tell the operations of the stages to come, for the time that all of them take."""

    def credit(self, stage: str, share: float = 1.0) -> None:  # noqa: B027
        """Tell that a share of a stage was done in an earlier run."""

    def note(self, text: str) -> None:  # noqa: B027
        """Say something once."""

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

    def track(
        self,
        items: Iterable[T],
        stage: str,  # noqa: ARG002
        total: int | None = None,  # noqa: ARG002
        *,
        done: int = 0,  # noqa: ARG002
        share: float = 1.0,  # noqa: ARG002
    ) -> Iterator[T]:
        """Yield the items."""
        yield from items


class Metered(Progress):
    """Knows what is under way and how long the rest will take; says it in its own manner.

    A loop inside another, or inside a stage, is a part of that and not shown.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.meter = Meter(clock)
        self._depth = 0

    def expect(self, operations: Mapping[str, float]) -> None:
        """Tell the operations of the stages to come."""
        self.meter.expect(operations)

    def credit(self, stage: str, share: float = 1.0) -> None:
        """Tell that a share of a stage was done in an earlier run."""
        self.meter.credit(stage, share)

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """A stage that cannot say how far it is."""
        if self._depth:
            yield
            return
        with self._entered(stage, None, 0):
            yield
        self.meter.end(stage)

    def track(
        self,
        items: Iterable[T],
        stage: str,
        total: int | None = None,
        *,
        done: int = 0,
        share: float = 1.0,
    ) -> Iterator[T]:
        """Yield the items and report how far it is."""
        if self._depth:
            yield from items
            return
        if done and total:
            self.meter.credit(stage, share * done / total)
        with self._entered(stage, total, done):
            for count, item in enumerate(items, done):
                self.show(stage, count, total)
                yield item
                if total:
                    self.meter.advance(stage, share / total)

    @contextmanager
    def _entered(self, stage: str, total: int | None, done: int) -> Iterator[None]:
        self._depth += 1
        self.meter.enter(stage)
        try:
            with self.showing(stage, total, done):
                yield
        finally:
            self.meter.enter("")
            self._depth -= 1

    @abstractmethod
    def showing(
        self, stage: str, total: int | None, done: int
    ) -> contextlib.AbstractContextManager[None]:
        """Show a stage while it lasts."""

    @abstractmethod
    def show(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is."""

    def outlook(self) -> str:
        """How long everything will still take, in words; "" while that cannot be told."""
        left, share = self.meter.remaining(), self.meter.share()
        if left is None or share is None:
            return ""
        return f"{share:.0%} of all, {format_seconds(left)} left"


class Bar(Metered):
    """A bar for each stage, with the time that all of them will still take."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._bars: Bars | None = None

    @contextmanager
    def showing(self, stage: str, total: int | None, done: int) -> Iterator[None]:
        """A transient bar."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[outlook]}"),
        )  # fmt: skip
        self._bars = Bars(*columns, console=Console(stderr=True), transient=True)
        self._bars.add_task(stage, total=total, completed=done, outlook=self.outlook())
        try:
            with self._bars:
                yield
        finally:
            self._bars = None

    def show(self, stage: str, done: int, total: int | None) -> None:  # noqa: ARG002
        """Move the bar."""
        if self._bars is not None:
            task = self._bars.task_ids[0]
            self._bars.update(task, completed=done, outlook=self.outlook())

    def note(self, text: str) -> None:
        """A line above the bar."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{text}\n")


class Lines(Metered):
    """A line every half minute, also from inside a step that takes longer.

    Args:
        clock: Seconds, from any start.
        ticking: Whether a thread of its own gives lines while a step goes on.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, ticking: bool = True
    ) -> None:
        super().__init__(clock)
        self._last = clock()
        self._ticking = ticking
        self._writing = threading.Lock()
        self._at: tuple[str, int, int | None] = "", 0, None

    @contextmanager
    def showing(self, stage: str, total: int | None, done: int) -> Iterator[None]:
        """A thread that gives lines while the stage lasts."""
        self._at = stage, done, total
        if not self._ticking:
            yield
            return
        over = threading.Event()

        def tick() -> None:
            while not over.wait(LINE_EVERY_S / 10):
                self.show(*self._at)

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def show(self, stage: str, done: int, total: int | None) -> None:
        """A line, if the last one is half a minute old."""
        self._at = stage, done, total
        with self._writing:
            now = self.meter.clock()
            if now - self._last < LINE_EVERY_S:
                return
            self._last = now
            of = f": {done} of {total}" if total else f": {done}" if done else ""
            outlook = self.outlook()
            sys.stderr.write(f"{stage}{of}{'; ' if outlook else ''}{outlook}\n")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """A line at once."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
