"""Calls with a slice of a parameter along its first dimension, such as packed attention weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names
from lightlike.metric.contractions.factor import Factor
from lightlike.metric.contractions.grouped import Blank, Grouped
from lightlike.metric.contractions.layout import Layout

# Functions that cut a tensor into consecutive slices.
CUTS = (torch.split, Tensor.split, torch.chunk, Tensor.chunk)


@dataclass(frozen=True)
class Slice:
    """Entries of a parameter that follow one another.

    Attributes:
        name: Of the parameter.
        start: First entry, counted in the flat parameter.
        size: Number of entries.
        total: Those of the whole parameter.
    """

    name: str
    start: int
    size: int
    total: int

    def widened(self, factor: Factor) -> list[Factor]:
        """A factor on the slice's columns, with nothing on the parameter's others."""
        after = self.total - self.start - self.size
        k, s, like = factor.per_sample, factor.samples, factor.columns(0, 1)
        around = [Blank(like, k, s, width) if width else None for width in (self.start, after)]
        return [part for part in (around[0], factor, around[1]) if part is not None]


def cut(tensor: Tensor, name: str, parts: Sequence[Tensor]) -> list[Slice]:
    """Which entries of a parameter consecutive slices of it hold; none if not along dimension 0."""
    if any(part.shape[1:] != tensor.shape[1:] for part in parts):
        return []
    if sum(part.numel() for part in parts) != tensor.numel():
        return []
    found, start = [], 0
    for part in parts:
        found.append(Slice(name, start, part.numel(), tensor.numel()))
        start += part.numel()
    return found


class Sliced(Call):
    """Another call of which a parameter, or both, is a slice of a measured one."""

    def __init__(self, inner: Call, slices: dict[str, Slice]) -> None:
        self.inner, self.slices = inner, slices
        self.weight, self.bias = self._outer(inner.weight), self._outer(inner.bias)

    @property
    def x(self) -> Tensor:
        """The input of the call."""
        return self.inner.x

    @x.setter
    def x(self, value: Tensor) -> None:
        self.inner.x = value

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """None: the call inside has been made already."""
        return None

    def factor(self, unit: tuple[str, ...], g: Tensor, layout: Layout) -> Factor:
        """The factors of the slices among the columns of the whole parameters."""
        parts: list[Factor] = []
        for name in unit:
            mine = self.inner.weight if name == self.weight else self.inner.bias
            factor = self.inner.factor((mine or "",), g, layout)
            known = self.slices.get(mine or "")
            parts.extend([factor] if known is None else known.widened(factor))
        return Grouped(parts)

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """The rows on the whole weight."""
        return self.factor((self.weight or "",), g, layout)

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """The rows on the whole bias."""
        return self.factor((self.bias or "",), g, layout).dense()

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Those of the call inside."""
        return self.inner.pair_operations(shape, samples)

    def held(self, shape: torch.Size, samples: int) -> float:
        """Those of the call inside."""
        return self.inner.held(shape, samples)

    def order(self, shape: torch.Size, samples: int) -> str:
        """That of the call inside."""
        return self.inner.order(shape, samples)

    def axes(self, shape: torch.Size) -> Sequence[int]:
        """Those of the call inside."""
        return self.inner.axes(shape)

    def _outer(self, name: str | None) -> str | None:
        known = self.slices.get(name or "")
        return name if known is None else known.name
