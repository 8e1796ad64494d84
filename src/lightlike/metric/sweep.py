"""Back-propagate the whitened rows of A batch by batch, each batch checked against plain autograd.

Four ways, each exact where it applies, tried in this order:

- *causal*: as the next, but each row through no more of its sequence than it depends on;
- *aligned*: one backward pass carries the same row of every sample of the batch, because samples
  do not touch one another and lie side by side in the output of every captured call;
- *single*: one sample at a time, which also serves parameters without a contraction;
- *whole*: every row of the batch on its own, for models whose outputs share a batch.

Whatever was done, the rows' product with a random vector must equal plain reverse-mode
differentiation of the untouched model; if not, the next way is taken, and after the last one an
error is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from lightlike.errors import ConsistencyError, LightlikeError
from lightlike.metric.blocks import Block
from lightlike.metric.buffers import empty, zeros
from lightlike.metric.capture import Capture, Captured
from lightlike.metric.contractions import Layout
from lightlike.metric.jacobian import HONEST, SHORT, Backward, gradient_error, whitening
from lightlike.metric.placing import close, forward, place_samples
from lightlike.metric.prefixes import NotCausalError, Passage, Prefixes, step_of
from lightlike.metric.rounding import exact_image
from lightlike.metric.units import Unit, find_units, unit_factor
from lightlike.metric.witness import Witness
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator, Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.precision import rounding_unit
from lightlike.problem.problem import Problem

# Bytes of gradients in flight in one batched backward pass.
IN_FLIGHT = 16 << 20


class Sweep:
    """Rows of A = N^{-1/2} [L_iᵀ J_i] in blocks, for some or all units of parameters.

    Attributes:
        units: The units of the selected parameters.
        precision: Largest rounding unit seen in the forward pass.
        mixes: Whether an item's output alone differs from its output in the first batch.
        ways: How the batches of the last pass were back-propagated.
        witness: What the rows of the last pass were held against.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.evaluator: Evaluator = problem.evaluator
        self.ways: list[str] = []
        self._backward = Backward()
        self._acausal = False
        first = next(problem.batches())
        self._places, (outputs, capture, leftover) = place_samples(self.evaluator, first)
        self.units = find_units(
            problem.selection.entries, capture.calls, leftover, outputs.samples, self._places.places
        )
        self.precision = max(capture.precision, rounding_unit(problem.dtype))
        self.mixes = self._mixes(first, outputs)
        self.witness = Witness(problem, self.precision)

    @cached_property
    def exact_image(self) -> Tensor:
        """AᵀU in float64, to hold rows in float32 against: see `lightlike.metric.rounding`."""
        return exact_image(self.problem)

    @cached_property
    def reference_precision(self) -> float:
        """Rounding unit of the forward pass in float64: above 2.2e-16 if the model casts down."""
        reference = self.problem.reference
        with isolated():
            return forward(reference.evaluator, next(reference.batches()))[1].precision

    @cached_property
    def gradient_error(self) -> float:
        """How far PyTorch's gradient is from the change of the outputs, on the first batch."""
        reference = self.problem.reference
        with isolated():
            batch = next(reference.batches())
            leaves = reference.evaluator.leaves.values()
            versions = [leaf._version for leaf in leaves]
            found = gradient_error(reference.evaluator, batch)
            # A model that moves its own parameters may be true to them only where it put them.
            steady = versions == [leaf._version for leaf in leaves]
            if found > HONEST and steady:
                # Fewer kinks lie on a shorter way; what is no derivative stays so.
                found = min(found, gradient_error(reference.evaluator, batch, SHORT))
            return found

    @property
    def graph_bytes(self) -> int:
        """Bytes that a forward pass over the first batch leaves for the backward pass."""
        return self._places.graph_bytes

    def blocks(
        self, units: Sequence[Unit], stage: str, share: float = 1.0
    ) -> Iterator[list[Block]]:
        """The blocks of each batch, factors for the given units only; a share of the stage."""
        self.ways = []
        self.witness = witness = Witness(self.problem, self.precision)
        for batch, outputs in self.problem.sweep(stage, share):
            yield self._blocks(batch, outputs, units, witness)

    def testify(self, stage: str) -> None:
        """Have the witness see all batches, for rows that are not back-propagated now."""
        self.witness = Witness(self.problem, self.precision)
        for _, outputs in self.problem.sweep(stage):
            self.witness.draw(outputs)

    def _blocks(
        self, batch: Batch, plain: Outputs, units: Sequence[Unit], witness: Witness
    ) -> list[Block]:
        u, image = witness.draw(plain)
        # Batched backward passes first; if these are at fault, the rows one by one.
        for batched in (True, False) if self._backward.batched else (False,):
            self._backward.batched = batched
            for way in (self._causal, self._aligned, self._single, self._whole):
                blocks = way(batch, plain, units)
                if blocks is not None and witness.confirms_rows(blocks, u, image, units):
                    self.ways.append(way.__name__.strip("_"))
                    return blocks
        raise ConsistencyError(
            "The rows of A disagree with plain differentiation of the model on one batch.",
            "Some operation's backward pass depends on how it is called, so no number from it "
            "can be trusted.",
            "Look for custom autograd functions, in-place changes or hooks with state.",
        )

    def _causal(self, batch: Batch, plain: Outputs, units: Sequence[Unit]) -> list[Block] | None:
        if self._acausal or plain.positions <= step_of(plain.positions):
            return None
        found = self._aside(batch, plain, units)
        if found is None:
            return None
        outputs, calls, layouts = found
        prefixes = Prefixes(self.evaluator, batch, self._places, outputs, calls, self.precision)
        try:
            return [
                self._rows(outputs, calls, layouts, units, plain.samples, plain.positions, prefixes)
            ]
        except NotCausalError:
            self._acausal = True
            return None

    def _aligned(self, batch: Batch, plain: Outputs, units: Sequence[Unit]) -> list[Block] | None:
        found = self._aside(batch, plain, units)
        if found is None:
            return None
        outputs, calls, layouts = found
        return [self._rows(outputs, calls, layouts, units, outputs.samples, outputs.positions)]

    def _aside(
        self, batch: Batch, plain: Outputs, units: Sequence[Unit]
    ) -> tuple[Outputs, list[Captured], list[Layout]] | None:
        """Outputs, calls and their layouts, if samples lie side by side in all of them."""
        if not all(unit.aligned for unit in units):
            return None
        wanted = {name for unit in units for name in unit.names}
        if plain.samples > 1 and not self._places.seen:
            self._places, _ = place_samples(self.evaluator, batch)
        try:
            outputs, capture, leftover = forward(
                self.evaluator, batch, self._places.widened(plain.samples)
            )
        except LightlikeError:  # what was widened does not suit this batch
            return None
        if leftover & wanted or not close(outputs.h, plain.h, self.precision):
            return None
        mine = [c for c in capture.calls if wanted & set(c.call.uses)]
        found = [self._places.layout(c, outputs.samples) for c in mine]
        layouts = [layout for layout in found if layout is not None]
        return None if len(layouts) < len(mine) else (outputs, mine, layouts)

    def _single(self, batch: Batch, plain: Outputs, units: Sequence[Unit]) -> list[Block] | None:
        blocks = []
        for i in range(plain.samples):
            one = batch.sample(i, plain.samples)
            try:
                outputs, capture, _ = forward(self.evaluator, one)
            except LightlikeError:  # a model may well refuse a batch of one
                return None
            rows = slice(i * plain.positions, (i + 1) * plain.positions)
            if outputs.samples != 1 or not close(outputs.h, plain.h[rows], self.precision):
                return None
            blocks.append(self._whole_rows(outputs, capture, units, outputs.positions))
        return blocks

    def _whole(self, batch: Batch, plain: Outputs, units: Sequence[Unit]) -> list[Block]:
        outputs, capture, _ = forward(self.evaluator, batch)
        return [self._whole_rows(outputs, capture, units, plain.samples * plain.positions)]

    def _whole_rows(
        self, outputs: Outputs, capture: Capture, units: Sequence[Unit], positions: int
    ) -> Block:
        """Every row on its own, all of the batch taken for one sample."""
        wanted = {name for unit in units for name in unit.names}
        mine = [c for c in capture.calls if wanted & set(c.call.uses)]
        return self._rows(outputs, mine, [Layout(1, None)] * len(mine), units, 1, positions)

    def _mixes(self, batch: Batch, outputs: Outputs) -> bool:
        try:
            alone = self.evaluator.outputs(batch.sample(0, outputs.samples))
        except LightlikeError:
            return False
        if alone.samples != 1:
            return False
        return not close(alone.h, outputs.h[: outputs.positions], self.precision)

    def _rows(
        self,
        outputs: Outputs,
        calls: Sequence[Captured],
        layouts: Sequence[Layout],
        units: Sequence[Unit],
        samples: int,
        positions: int,
        prefixes: Prefixes | None = None,
    ) -> Block:
        """Back-propagate rank Λ columns of L_i / √N for each position of each sample."""
        wanted = {name for unit in units for name in unit.names}
        leaves = {n: t for n, t in self.evaluator.leaves.items() if n in wanted}
        if samples > 1:
            leaves = {}
        root = whitening(self.problem, outputs)
        keep = None
        if outputs.observed is not None:
            keep = outputs.observed.view(samples, positions)
        chosen: Sequence[int] = range(positions)
        if keep is not None:
            # Positions that count in no sample need no rows at all.
            chosen = [p for p in chosen if bool(keep[:, p].any())]
            keep = keep[:, list(chosen)]
            keep = None if bool(keep.all()) else keep
        rank = root.shape[-1]
        size = sum(c.shape.numel() for c in calls) + sum(t.numel() for t in leaves.values())
        size *= self.problem.dtype.itemsize
        count, make = len(chosen) * rank, empty if prefixes is None else zeros
        gathered = [
            Gathered(count, layout, c.shape, make) for c, layout in zip(calls, layouts, strict=True)
        ]
        gathered += [Gathered(count, Layout(1, None), t.shape, make) for t in leaves.values()]
        whole = Passage(outputs.h, [c.edge for c in calls], chosen, positions)
        start = 0
        for passage in [whole] if prefixes is None else prefixes.passages(chosen):
            targets: list[GradientEdge | Tensor] = [*passage.edges, *leaves.values()]
            part = root.view(samples, positions, *root.shape[1:])[:, : passage.length]
            step = max(1, IN_FLIGHT * positions // max(1, size * passage.length))
            for cotangents in _cotangents(part, passage.positions, step):
                flat = cotangents.flatten(1, 2)
                found = self._backward(passage.h, targets, flat) if targets else []
                for store, gradient in zip(gathered, found, strict=True):
                    store.put(start, gradient)
                start += len(flat)
        seen = []
        for c, layout, store in zip(calls, layouts, gathered, strict=False):
            if store.rows is not None:
                c.check()
                seen.append((c, layout, store.rows))
        rows = {
            name: store.rows.flatten(2)
            for name, store in zip(leaves, gathered[len(calls) :], strict=True)
            if store.rows is not None
        }
        factors = {unit: unit_factor(unit, seen, rows) for unit in units}
        kept = None if keep is None else keep.repeat_interleave(rank, 1)
        present = {unit: factor for unit, factor in factors.items() if factor is not None}
        return Block(samples, len(chosen) * rank, present, kept)


class Gathered:
    """Gradients at one place for all rows, put together as they come, sample by sample in memory.

    Attributes:
        rows: (rows, *layout.spread(…)), or None if the output does not depend on the place.
    """

    def __init__(
        self, count: int, layout: Layout, shape: torch.Size, make: Callable[..., Tensor]
    ) -> None:
        self.count, self.layout, self.shape, self.make = count, layout, shape, make
        self.rows: Tensor | None = None

    def put(self, start: int, gradient: Tensor | None) -> None:
        """Add the gradients (some, *shape) of the rows from `start` on.

        Where they are of fewer positions, these are the first ones.
        """
        if gradient is None:
            return
        spread = self.layout.spread(gradient, 1)
        if self.rows is None:
            full = self.layout.spread(torch.empty(self.shape, device="meta")).shape
            store = self.make(
                full[0], self.count, *full[1:], device=gradient.device, dtype=gradient.dtype
            )
            self.rows = store.transpose(0, 1)
        part = self.rows[start : start + len(gradient)]
        part[(slice(None), slice(None), *map(slice, spread.shape[2:]))] = spread


def _cotangents(root: Tensor, positions: Sequence[int], step: int) -> Iterator[Tensor]:
    """Rows (samples, positions, m, r) as cotangents (≤ step, samples, positions, m), in order.

    Row (p, c) carries column c of the root at position p of every sample, and zero elsewhere.
    """
    samples, total, width, rank = root.shape
    pairs = [(p, c) for p in positions for c in range(rank)]
    for start in range(0, len(pairs), step):
        part = pairs[start : start + step]
        if total == 1:
            yield root[:, 0, :, part[0][1] : part[-1][1] + 1].permute(2, 0, 1).unsqueeze(2)
            continue
        cotangents = root.new_zeros(len(part), samples, total, width)
        for row, (p, c) in enumerate(part):
            cotangents[row, :, p] = root[:, p, :, c]
        yield cotangents
