"""One pass over A's rows: norms of its columns, and what the inputs and outputs of layers span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightlike.geometry.symmetry.tracing import Floats, Ints
from lightlike.metric.blocks import Block
from lightlike.metric.contractions import Factor, Outer
from lightlike.metric.contractions.factor import strips
from lightlike.metric.root import Root
from lightlike.metric.units import Unit
from lightlike.problem.isolation import isolated


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight whose rows in A are Σ_p g_p x_pᵀ throughout.

    Attributes:
        name: Of the module.
        place: Coordinates, (outs, ins); the last column is the bias if there is one.
        bias: Whether there is.
        inputs: A square matrix (ins, ins) whose null space is that of all inputs x.
        outputs: The same of the back-propagated rows g, (outs, outs).
        rare: For outputs that few places reach, the inputs there, (places, ins).
    """

    name: str
    place: Ints
    bias: bool
    inputs: Floats
    outputs: Floats
    rare: dict[int, Floats]


@dataclass(frozen=True, eq=False)
class Columns:
    """What the pass found.

    Attributes:
        norms: ‖A e_j‖, (D,).
        layers: The layers of that form.
    """

    norms: Floats
    layers: list[Layer]


class Span:
    """The null space of rows that come in batches, kept as a triangular factor R.

    Many rows are first added up, times random numbers, in four times as many places as they are
    wide: that keeps their null space, but for coincidences, and A decides about those.
    """

    def __init__(self, width: int) -> None:
        self.factor = torch.zeros(0, width, dtype=torch.float64)
        self._random = torch.Generator().manual_seed(0)

    def add(self, rows: Tensor) -> None:
        """More rows, (n, width)."""
        rows, places = rows.to(self.factor), 4 * rows.shape[1]
        if len(rows) > 2 * places:
            weights = torch.randn(len(rows), 1, generator=self._random, dtype=torch.float64)
            where = torch.arange(len(rows)) % places
            rows = rows.new_zeros(places, rows.shape[1]).index_add_(0, where, weights * rows)
        joined = torch.cat([self.factor, rows])
        if len(joined) > 2 * joined.shape[1]:
            joined = torch.linalg.qr(joined, mode="r").R
        self.factor = joined

    def square(self) -> Floats:
        """R, square."""
        width = self.factor.shape[1]
        found = torch.linalg.qr(self.factor, mode="r").R if len(self.factor) else self.factor
        out = np.zeros((width, width))
        out[: len(found)] = found.numpy()
        return out


class Places:
    """Inputs at the places that reach each output, of outputs with fewer places than inputs."""

    def __init__(self, ins: int, outs: int) -> None:
        self.ins = ins
        self.found: dict[int, list[Tensor]] = {o: [] for o in range(outs)}
        self.counts, self.total = torch.zeros(outs, dtype=torch.int64), 0

    def add(self, x: Tensor, reached: Tensor) -> None:
        """Inputs (n, ins) and which outputs each reaches, (n, outs)."""
        self.counts += reached.sum(0)
        self.total += int(reached.any(1).sum())
        for o in list(self.found):
            if int(self.counts[o]) >= self.ins:
                del self.found[o]
            elif bool(reached[:, o].any()):
                self.found[o].append(x[reached[:, o]])

    def rare(self) -> dict[int, Floats]:
        """The inputs by output; those that nothing reaches, or everything, are left out."""
        few = {o: parts for o, parts in self.found.items() if int(self.counts[o]) < self.total}
        return {o: torch.cat(parts).numpy() for o, parts in few.items() if parts}


def read_columns(root: Root) -> Columns:
    """Norms of all columns of A, and the spans of its layers' inputs and outputs."""
    squares = torch.zeros(root.shape[1], dtype=torch.float64)
    spans: dict[Unit, tuple[Span, Span, Places, bool, bool]] = {}
    mixed: set[Unit] = set()
    for block in _blocks(root):
        for unit, factor in block.factors.items():
            factor = factor.to(torch.float64)
            unit.scatter(square_norms(factor).cpu(), squares)
            if not isinstance(factor, Outer):
                mixed.add(unit)
                continue
            if unit not in spans:
                sides = Span(factor.ins), Span(factor.outs), Places(factor.ins, factor.outs)
                spans[unit] = *sides, factor.bias, factor.transposed
            inputs, outputs, places, *_ = spans[unit]
            reached = (factor.g != 0).any(0)  # (s, P, outs)
            inputs.add(factor.x[reached.any(-1)].cpu())
            places.add(factor.x.flatten(0, 1).cpu(), reached.flatten(0, 1).cpu())
            rows = factor.g.transpose(0, 1).flatten(0, 2)
            outputs.add(rows[(rows != 0).any(-1)].cpu())
    layers = [
        Layer(unit.layer, _place(unit, bias, transposed, inputs, outputs), bias,
              inputs.square(), outputs.square(), places.rare())
        for unit, (inputs, outputs, places, bias, transposed) in spans.items()
        if unit not in mixed
    ]  # fmt: skip
    return Columns(squares.sqrt().numpy(), layers)


def square_norms(factor: Factor) -> Tensor:
    """Squared norms of a factor's columns, (width,)."""
    if isinstance(factor, Outer) and factor.positions == 1:
        x, g = factor.x[:, 0].square(), factor.g[:, :, 0].square().sum(0)
        found = g.T @ x
        weight = found[:, : factor.ins - factor.bias]
        flat = (weight.T if factor.transposed else weight).reshape(-1)
        return torch.cat([flat, found[:, -1]]) if factor.bias else flat
    return torch.cat([strip.square().sum((0, 1)) for strip in strips(factor)])


def _place(unit: Unit, bias: bool, transposed: bool, inputs: Span, outputs: Span) -> Ints:
    ins, outs = inputs.factor.shape[1], outputs.factor.shape[1]
    weight = unit.entries[0]
    shape = (ins - bias, outs) if transposed else (outs, ins - bias)
    place = weight.start + np.arange(weight.size).reshape(shape)
    place = place.T if transposed else place
    if bias:
        place = np.concatenate([place, unit.entries[1].start + np.arange(outs)[:, None]], 1)
    return place


def _blocks(root: Root) -> Iterator[Block]:
    batches = root.sweep.blocks(root.units, "Columns of A")
    while True:
        with isolated(root.problem.dtype):
            found = next(batches, None)
        if found is None:
            return
        yield from found
