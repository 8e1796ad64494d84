"""Passages that are kept, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterator

from lightlike.metric.products.passage import Passage


class Cache:
    """Passages by batch.

    Products go round the batches in their order, so that the least recently used passage is the
    next one needed: what once is in stays, and batches beyond the budget are computed anew.

    Args:
        budget: Bytes that may be kept.

    Attributes:
        used: Bytes that are kept.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._passages: dict[int, Passage] = {}
        self._rate = 0.0

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter([self._passages[index] for index in sorted(self._passages)])

    def get(self, index: int) -> Passage | None:
        """The passage of a batch, if it is kept."""
        return self._passages.get(index)

    def admits(self, samples: int) -> bool:
        """Whether a batch with so many samples can be expected to fit."""
        return self.budget > 0 and self.used + self._rate * samples <= self.budget

    def put(self, index: int, passage: Passage, samples: int) -> bool:
        """Keep a passage if it fits."""
        self._rate = max(self._rate, passage.size / samples)
        if self.used + passage.size > self.budget:
            return False
        self._passages[index] = passage
        self.used += passage.size
        return True

    def clear(self) -> None:
        """Keep nothing more."""
        self._passages.clear()
        self.used = 0
