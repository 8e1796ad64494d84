"""The root A(θ) of the metric, K × D: the one object that everything else is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from lightlike.errors import CapacityError, choice_error
from lightlike.metric.blocks import Block, merge
from lightlike.metric.buffers import empty
from lightlike.metric.gram import add_gram, add_square, mirror, passes
from lightlike.metric.jacobian import whitened_vjp
from lightlike.metric.rounding import PROBES, Probe, norm_bounds, signs
from lightlike.metric.sweep import Sweep
from lightlike.metric.units import Unit
from lightlike.metric.witness import Witness
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.memory import available_memory
from lightlike.spectrum.rounding import Rounding

FloatArray = NDArray[np.float64]

# Bytes of a slab of explicitly written rows.
SLAB = 128 << 20


class Root:
    """A = N^{-1/2} [L_iᵀ J_i]_{i=1..N}, of which nobody ever needs all entries at once.

    J_i = ∂h_θ(x_i)/∂θ (m × D) is the Jacobian of the model's output at one observation and
    L_i L_iᵀ = Λ_i the covariance of its score, so that Aᵀ A is the Fisher information matrix on the
    sample (Sun & Nielsen, arXiv 1905.11027). Rows are ordered by observation, rank Λ each;
    columns as the parameters in `problem.selection`. Everything is reverse mode, and float64 unless
    the problem's dtype is another: then its entries are, and A Aᵀ sums products of them in float64.

    Attributes:
        weights: None, or w (D,) if this is A diag(w), as for a prior with variances w².
        layer: None, or the name of the layer whose columns these are.
        traces: tr Aᵀ A by layer, once `gram`, `metric` or `dense` has been asked for.
        rounding: How far what these gave last is from float64; None if it is float64.
    """

    def __init__(
        self,
        problem: Problem,
        weights: Tensor | None = None,
        layer: str | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        self.problem, self.weights, self.layer = problem, weights, layer
        self.traces: dict[str, float] = {}
        self.rounding: Rounding | None = None
        self._sweep = sweep

    @property
    def shape(self) -> tuple[int, int]:
        """(K, D)."""
        if self.layer is None:
            return self.problem.survey.rows, self.problem.parameters
        return self.problem.survey.rows, sum(unit.width for unit in self.units)

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors and matrices: always float64."""
        return torch.float64

    @property
    def isolated(self) -> AbstractContextManager[None]:
        """For running the model: see `lightlike.problem.isolation`."""
        return isolated(self.problem.dtype)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.problem.evaluator.device

    @cached_property
    def sweep(self) -> Sweep:
        """The back-propagation of rows; made on first use."""
        if self._sweep is not None:
            return self._sweep
        with self.isolated:
            return Sweep(self.problem)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The units of parameters whose columns these are."""
        if self.layer is None:
            return self.sweep.units
        mine = [unit for unit in self.sweep.units if unit.layer == self.layer]
        start = min(entry.start for unit in mine for entry in unit.entries)
        return tuple(unit.rebased(start) for unit in mine)

    @property
    def precision(self) -> float:
        """Rounding unit of the forward pass: 2.2e-16 in float64 if nothing is cast down inside."""
        return self.sweep.precision

    def gram_operations(self) -> float:
        """Operations of `gram` after back-propagation, roughly, in time of a float64 one."""
        share = self.problem.dtype.itemsize / 8
        return share * self.shape[0] ** 2 * sum(unit.pair_operations for unit in self.units)

    def row_operations(self) -> float:
        """Floating-point operations of writing out all rows, roughly."""
        return 6.0 * self.shape[0] * self.shape[1]

    def of_layer(self, layer: str) -> Root:
        """The columns of one layer, those of the parameters that the module `layer` owns."""
        layers = self.problem.selection.layers()
        if layer not in layers:
            raise choice_error("layer", layer, [repr(name) for name in layers])
        part = Root(self.problem, None, layer, self.sweep)
        if self.weights is not None:
            part.weights = torch.cat([self.weights[e.start : e.stop] for e in layers[layer]])
        return part

    def scaled(self, weights: Tensor) -> Root:
        """A diag(w) for w (D,): the root of diag(w) Aᵀ A diag(w)."""
        weights = weights if self.weights is None else self.weights * weights
        return Root(self.problem, weights, self.layer, self.sweep)

    def mv(self, v: Tensor) -> Tensor:
        """A v for one vector (D,) or a block (D, c): (K,) or (K, c)."""
        given = columns = self._columns(v, self.shape[1])
        if self.weights is not None:
            columns = columns * self.weights[:, None]
        parts = [
            block.outward(
                sum(
                    (
                        f.apply(unit.gather(columns).to(self.problem.dtype))
                        for unit, f in block.factors.items()
                    ),
                    start=columns.new_zeros(block.per_sample, block.samples, columns.shape[1]),
                )
            )
            for block in self._blocks("A v")
        ]
        result = torch.cat(parts)
        witness = self.sweep.witness
        image = self._mine(witness.image)
        scale = self._size(witness) * float(given.norm())
        witness.confirm("A v", witness.u @ result, image @ given, scale)
        return result[:, 0] if v.ndim == 1 else result

    def rmv(self, u: Tensor) -> Tensor:
        """Aᵀ u for one vector (K,) or a block (K, c): (D,) or (D, c)."""
        columns = self._columns(u, self.shape[0])
        result = self._pull_one(columns) if self._is_plain(columns) else self._pull_many(columns)
        if self.weights is not None:
            result *= self.weights[:, None]
        return result[:, 0] if u.ndim == 1 else result

    def gram(self) -> Tensor:
        """A Aᵀ, (K, K) float64, symmetric to the bit.

        Raises:
            ConsistencyError: if the rows disagree with plain differentiation.
        """
        rows, dtype = self.shape[0], self.problem.dtype
        self.traces = {}
        probe = self._probe()
        with self.isolated:
            out = empty(rows, rows, device=self.device)
            for index, units in enumerate(self._passes(rows)):
                joined = merge(
                    [
                        self._weighted(block).settled()
                        for blocks in self.sweep.blocks(units, "Gram matrix")
                        for block in blocks
                    ],
                    units,
                )
                if probe is not None:
                    probe.add(joined, units)
                found = add_gram(joined, units, out, first=not index, dtype=dtype)
                for unit, trace in found.items():
                    self.traces[unit.layer] = self.traces.get(unit.layer, 0.0) + trace
            mirror(out)
        if probe is not None:
            self._note_rounding(probe.image, norm_bounds(out @ probe.u - probe.product))
        witness = self.sweep.witness
        u, image = witness.u, self._mine(witness.image)
        scale = float(u.norm()) * float(out.diagonal().sum()) + self._size(witness) ** 2
        witness.confirm("A Aᵀ", u @ (out @ u), image @ image, scale)
        return out

    def metric(self) -> Tensor:
        """Aᵀ A, (D, D) float64: the Fisher information matrix."""
        size = self.shape[1]
        out = torch.zeros(size, size, dtype=torch.float64, device=self.device)
        u = signs(size, self.device)
        product = torch.zeros_like(u)
        for slab in self.slabs("Fisher matrix"):
            add_square(slab.to(self.problem.dtype), out)
            if self._is_lower:
                product += slab.T @ (slab @ u)
        mirror(out)
        if self.rounding is not None:
            largest, total = norm_bounds(out @ u - product)
            self.rounding = replace(self.rounding, product=largest, product_sum=total)
        return out

    def dense(self) -> Tensor:
        """All of A, (K, D)."""
        return torch.cat(list(self.slabs("Rows of A")))

    def slabs(self, stage: str) -> Iterator[Tensor]:
        """All rows of A in order, some at a time: (≤ some, D)."""
        size = self.shape[1]
        self.traces = {}
        start, pulled = 0, torch.zeros(size, dtype=torch.float64, device=self.device)
        witness: Witness | None = None
        probe = self._probe()
        found = pulled.new_zeros(size, PROBES)
        for block in self._blocks(stage):
            # Each pass has its own: the caller may start another one meanwhile.
            witness = witness or self.sweep.witness
            u = witness.u
            self._note_traces([self._weighted(block)])
            for tile in block.tiles(max(1, SLAB // (8 * size))):
                slab = tile_rows(tile, size, self.device)
                slab = slab if self.weights is None else slab * self.weights
                pulled += u[start : start + len(slab)] @ slab
                if probe is not None:
                    found += slab.T @ probe.u[start : start + len(slab)]
                start += len(slab)
                yield slab
        if witness is not None:
            image = self._mine(witness.image)
            witness.confirm("A", pulled, image, self._size(witness))
        if probe is not None:
            self._note_rounding(found)

    def rows(self, index: int) -> Tensor:
        """The rank Λ rows of observation `index`: (rank Λ, D)."""
        rank = self.problem.survey.rank
        unit = torch.zeros(self.shape[0], rank, dtype=torch.float64, device=self.device)
        start = range(self.problem.survey.observations)[index] * rank
        unit[start : start + rank] = torch.eye(rank, dtype=torch.float64, device=self.device)
        return self.rmv(unit).T

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.mv(v)

    @property
    def T(self) -> TransposedRoot:  # noqa: N802 — as a matrix has it
        """Aᵀ as an operator."""
        return TransposedRoot(self)

    def to_scipy(self) -> LinearOperator:
        """A as a SciPy linear operator on float64 NumPy vectors."""
        product, transposed = _numpy(self.mv, self.device), _numpy(self.rmv, self.device)
        return LinearOperator(
            self.shape, matvec=product, rmatvec=transposed, matmat=product, rmatmat=transposed,
            dtype="float64",
        )  # fmt: skip

    def _blocks(self, stage: str) -> Iterator[Block]:
        """Blocks with all units' factors, unweighted."""
        batches = self.sweep.blocks(self.units, stage)
        while True:
            # Isolated only while the model runs, not while the caller does.
            with self.isolated:
                blocks = next(batches, None)
            if blocks is None:
                return
            yield from merge(blocks, self.units)

    @property
    def _is_lower(self) -> bool:
        """Whether rows are in lower precision than float64, for speed."""
        return self.problem.dtype != torch.float64

    def _probe(self) -> Probe | None:
        """What measures the rounding of a pass over the rows; None in float64."""
        rows, size = self.shape
        return Probe(size, rows, self.device) if self._is_lower else None

    def _note_rounding(self, image: Tensor, product: tuple[float, float] = (0.0, 0.0)) -> None:
        """Hold ÃᵀU (D, P) against AᵀU in float64."""
        exact = torch.stack([self._mine(column) for column in self.sweep.exact_image.T], 1)
        reference = self.sweep.reference_precision
        root = norm_bounds(image - exact)
        self.rounding = Rounding(root[0], product[0], root[1], product[1], reference=reference)

    def _mine(self, image: Tensor) -> Tensor:
        """Aᵀ u for this root from that for all columns without weights."""
        if self.layer is not None:
            entries = self.problem.selection.layers()[self.layer]
            image = torch.cat([image[e.start : e.stop] for e in entries])
        return image if self.weights is None else image * self.weights

    def _size(self, witness: Witness) -> float:
        """Size of what rounding is relative to: of all columns, not of one layer that may be 0."""
        weight = 1.0 if self.weights is None else float(self.weights.abs().max())
        return float(witness.image.norm()) * weight

    def _note_traces(self, blocks: list[Block]) -> None:
        for block in blocks:
            for unit, factor in block.factors.items():
                self.traces.setdefault(unit.layer, 0.0)
                self.traces[unit.layer] += factor.squared_norm()

    def _is_plain(self, columns: Tensor) -> bool:
        """Whether ordinary differentiation of all parameters does it."""
        return columns.shape[1] == 1 and self.layer is None

    def _passes(self, rows: int) -> list[list[Unit]]:
        budget = available_memory() // 3
        item = self.problem.dtype.itemsize
        groups = passes(self.units, rows, budget, item)
        for units in groups:
            size = item * rows * sum(unit.held for unit in units)
            if size > budget:
                raise CapacityError(
                    f"The rows of {units[0].names[0]!r} alone take {size / 2**30:.1f} GiB for "
                    f"{rows} rows; {budget / 2**30:.1f} GiB may be used.",
                    "Its inner products between all rows need them together.",
                    "Use fewer observations, exclude that parameter, or method='metric'.",
                )
        return groups

    def _weighted(self, block: Block) -> Block:
        if self.weights is None:
            return block
        column = self.weights[:, None].to(self.problem.dtype)
        factors = {
            unit: factor.scaled(unit.gather(column)[:, 0]) for unit, factor in block.factors.items()
        }
        return Block(block.samples, block.per_sample, factors, block.keep)

    def _columns(self, v: Tensor, length: int) -> Tensor:
        if v.ndim not in (1, 2) or v.shape[0] != length:
            raise ValueError(f"expected ({length},) or ({length}, c), got {tuple(v.shape)}")
        return v.detach().to(self.device, torch.float64).reshape(length, -1)

    def _pull_many(self, columns: Tensor) -> Tensor:
        with self.isolated:
            out = columns.new_zeros(columns.shape[1], self.shape[1])
        start = 0
        for block in self._blocks("Aᵀ u"):
            inner = block.inward(columns[start : start + block.rows])
            start += block.rows
            for unit, factor in block.factors.items():
                unit.scatter(factor.pull(inner.to(self.problem.dtype)).T, out)
        return out.T

    def _pull_one(self, columns: Tensor) -> Tensor:
        problem = self.problem
        start = 0
        with self.isolated:
            out = columns.new_zeros(self.shape[1])
            for _, outputs in problem.sweep("Aᵀ u"):
                stop = start + outputs.count * problem.survey.rank
                out += whitened_vjp(problem, outputs, columns[start:stop, 0])
                start = stop
        return out[:, None]


class TransposedRoot:
    """Aᵀ, D × K."""

    def __init__(self, root: Root) -> None:
        self.T = root
        self.shape = root.shape[::-1]

    def __matmul__(self, u: Tensor) -> Tensor:
        return self.T.rmv(u)

    def mv(self, u: Tensor) -> Tensor:
        """Aᵀ u."""
        return self.T.rmv(u)

    def rmv(self, v: Tensor) -> Tensor:
        """A v."""
        return self.T.mv(v)


def tile_rows(block: Block, size: int, device: torch.device) -> Tensor:
    """The rows of a block written out, (rows, D)."""
    shape = block.per_sample, block.samples, size
    out = torch.zeros(shape, dtype=torch.float64, device=device)
    for unit, factor in block.factors.items():
        unit.scatter(factor.dense(), out)
    return block.outward(out)


def _numpy(
    function: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[FloatArray], FloatArray]:
    def call(x: FloatArray) -> FloatArray:
        return function(torch.as_tensor(x, dtype=torch.float64, device=device)).cpu().numpy()

    return call
