"""Factors made of others with the same rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Self

from lightlike.metric.contractions.factor import Factor


class Compound(Factor):
    """Several factors of the same rows, handled part by part.

    Attributes:
        parts: They.
    """

    def __init__(self, parts: Sequence[Factor]) -> None:
        self.parts = list(parts)
        self.samples, self.per_sample = parts[0].samples, parts[0].per_sample
        self.width = self._width()

    @abstractmethod
    def _width(self) -> int:
        """Number of columns of the whole."""

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(part.nbytes for part in self.parts)

    @property
    def form(self) -> Hashable:
        """The forms of the parts."""
        return type(self).__name__, *(part.form for part in self.parts)

    def settled(self) -> Self:
        """Each part in its leanest form."""
        return type(self)([part.settled() for part in self.parts])

    def narrow(self, start: int, length: int) -> Self:
        """The factor of some of the samples."""
        return type(self)([part.narrow(start, length) for part in self.parts])

    def blank(self, samples: int) -> Self:
        """Zero rows for some other samples."""
        return type(self)([part.blank(samples) for part in self.parts])

    @classmethod
    def join(cls, parts: Sequence[Factor]) -> Self:
        """One factor for the samples of several."""
        columns = zip(*(part.parts for part in parts if isinstance(part, cls)), strict=True)
        return cls([column[0].join(column) for column in columns])
