"""How much of a long computation is done, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# Seconds of work before the time that is left is guessed from it.
FIRST_GUESS_S = 2.0


class Meter:
    """What is expected, what is done, and how long the rest will take at the rate so far.

    The work of a stage is a number of operations; how much of it is done is a share between 0 and
    1. What an earlier run has done counts as done, and not into the rate.

    Args:
        clock: Seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._expected: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._credit: dict[str, float] = {}
        self._worked: dict[str, float] = {}
        self._stage, self._entered = "", clock()

    def expect(self, operations: Mapping[str, float]) -> None:
        """Operations of the stages to come, in their order."""
        self._expected.update(operations)

    def credit(self, stage: str, share: float) -> None:
        """A share of a stage was done in an earlier run."""
        self._done[stage] = min(1.0, self._done.get(stage, 0.0) + share)
        self._credit[stage] = min(1.0, self._credit.get(stage, 0.0) + share)

    def enter(self, stage: str) -> None:
        """Time goes to this stage from now on."""
        self._leave()
        self._stage = stage

    def advance(self, stage: str, share: float) -> None:
        """So much more of a stage is done."""
        self._done[stage] = min(1.0, self._done.get(stage, 0.0) + share)

    def end(self, stage: str) -> None:
        """All of a stage is done."""
        self._done[stage] = 1.0
        self._leave()
        self._stage = ""

    def share(self) -> float | None:
        """The share of all expected operations that is done, None if none are expected."""
        total = sum(self._expected.values())
        if not total:
            return None
        return sum(n * self._done.get(s, 0.0) for s, n in self._expected.items()) / total

    def remaining(self) -> float | None:
        """Seconds that are left of all stages, None while that cannot be told.

        Time inside a stage that cannot say how far it is counts against what the stage should take.
        """
        silent = self._spent(self._stage)
        operations = seconds = 0.0
        for stage, count in self._expected.items():
            here = self._done.get(stage, 0.0) - self._credit.get(stage, 0.0)
            if here > 0:
                operations += count * here
                seconds += self._spent(stage)
                silent = 0.0 if stage == self._stage else silent
        if not operations or seconds < FIRST_GUESS_S:
            return None
        rate = operations / seconds
        left = 0.0
        for stage, count in self._expected.items():
            rest = count * (1.0 - self._done.get(stage, 0.0)) / rate
            left += max(0.0, rest - silent) if stage == self._stage else rest
        return left

    def _spent(self, stage: str) -> float:
        now = self.clock() - self._entered if stage == self._stage else 0.0
        return self._worked.get(stage, 0.0) + now

    def _leave(self) -> None:
        now = self.clock()
        if self._stage:
            self._worked[self._stage] = self._worked.get(self._stage, 0.0) + now - self._entered
        self._entered = now


def format_seconds(seconds: float) -> str:
    """A duration to read."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"
