"""Several vectors through one passage: one after the other, or together."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lightlike.metric.products.passage import Passage
from lightlike.metric.products.ways import RefusedError

# Vectors that go together; more would take memory in proportion and gain nothing.
WIDTH = 8
# Together has to be faster by this factor, so that noise decides nothing.
CLEARLY = 0.9

One = Callable[[Passage, Tensor], Tensor]
Many = Callable[[Passage, Tensor], Tensor]


class Blocks:
    """Takes the vectors of a block in the faster way, found out on the first block.

    Batched products gain on small layers; convolutions on a CPU lose.

    Attributes:
        together: Whether vectors go together; None until it was tried.
        seconds: Of one vector, one after the other and together, as found then.
    """

    def __init__(self) -> None:
        self.together: bool | None = None
        self.seconds: tuple[float, float] | None = None

    def __call__(self, passage: Passage, columns: Tensor, one: One, many: Many | None) -> Tensor:
        """Results (c, D) of vectors (c, D), by a function of one vector or one of many."""
        if len(columns) == 1:
            return one(passage, columns[0])[None]
        if many is None:
            return torch.stack([one(passage, v) for v in columns])
        if self.together is None:
            return self._tried(passage, columns, one, many)
        if self.together:
            return torch.cat(
                [_quietly(many, passage, part) for part in torch.split(columns, WIDTH)]
            )
        return torch.stack([one(passage, v) for v in columns])

    def _tried(self, passage: Passage, columns: Tensor, one: One, many: Many) -> Tensor:
        start = time.perf_counter()
        first = torch.stack([one(passage, columns[0])])
        single, rest = time.perf_counter() - start, columns[1 : 1 + WIDTH]
        try:
            start = time.perf_counter()
            found = _quietly(many, passage, rest)
            each = (time.perf_counter() - start) / len(rest)
        except (RuntimeError, RefusedError):
            # Some operation has no batching rule; one after the other gives the same.
            self.together = False
            return torch.cat([first, *(one(passage, v)[None] for v in columns[1:])])
        self.seconds = single, each
        self.together = each < CLEARLY * single
        found = torch.cat([first, found])
        left = columns[len(found) :]
        if len(left):
            found = torch.cat([found, self(passage, left, one, many)])
        return found


def _quietly(many: Many, passage: Passage, block: Tensor) -> Tensor:
    """Without warnings of operations that are looped over inside: the clock has seen them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return many(passage, block)
