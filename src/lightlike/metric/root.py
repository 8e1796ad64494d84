"""The root A(θ) of the metric, K × D: the one object that everything else is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from lightlike.checkpoint import Part
from lightlike.errors import choice_error
from lightlike.metric.blocks import Block, merge, tile_rows
from lightlike.metric.buffers import empty
from lightlike.metric.footprint import Footprint, footprint
from lightlike.metric.gram import add_square, mirror
from lightlike.metric.jacobian import check_derivatives, whitened_vjp
from lightlike.metric.ledger import Ledger, fill
from lightlike.metric.rounding import PROBES, Probe, bounds, norm_bounds, signs
from lightlike.metric.sweep import Sweep
from lightlike.metric.transposed import Transposed, linear_operator
from lightlike.metric.units import Unit
from lightlike.metric.witness import Witness
from lightlike.numbers import check_index
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.memory import available_memory
from lightlike.spectrum.operator import Cost
from lightlike.spectrum.rounding import Rounding
from lightlike.vectors import Vector, read_rows, read_vectors

# Bytes of a slab of explicitly written rows.
SLAB = 128 << 20


class Root:
    """A = N^{-1/2} [L_iᵀ J_i]_{i=1..N}, of which nobody ever needs all entries at once.

    J_i = ∂h_θ(x_i)/∂θ (m × D) is the Jacobian of the model's output at one observation and
    L_i L_iᵀ = Λ_i the covariance of its score, so that Aᵀ A is the Fisher information matrix on the
    sample (Sun & Nielsen, arXiv 1905.11027). Rows are ordered by observation, rank Λ each;
    columns as the parameters in `problem.selection`. Everything is reverse mode, and float64 unless
    the problem's dtype is another: then its entries are, A Aᵀ sums products of them in float64, and
    products with vectors are those of these entries in float64.

    Attributes:
        weights: None, or w (D,) if this is A diag(w), as for a prior with variances w².
        layer: None, or the name of the layer whose columns these are.
        traces: tr Aᵀ A by layer, once `gram`, `metric` or `dense` has been asked for.
        rounding: How far what these gave last is from float64; None if it is float64.
        keeper: Where `gram` saves how far it is; None to save nothing.
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
        self.keeper: Part | None = None
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
    def device(self) -> torch.device:
        """Where the model is."""
        return self.problem.evaluator.device

    @cached_property
    def sweep(self) -> Sweep:
        """The back-propagation of rows; made on first use."""
        if self._sweep is not None:
            return self._sweep
        with isolated(self.problem.dtype):
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

    def cost(self, budget: float | None = None, rows: int | None = None) -> Cost:
        """What `gram` and `dense` take within a budget of bytes, roughly; for K rows or others."""
        rows, columns = rows or self.shape[0], self.shape[1]
        memory = self.footprint(budget, rows)
        pairs = float(rows) ** 2 * sum(unit.pair_operations for unit in self.units)
        # In time of operations in float64.
        pairs *= self.problem.dtype.itemsize / 8
        return Cost(pairs, 6.0 * rows * columns, memory.fixed, memory.factors)

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

    def mv(self, v: Vector) -> Tensor:
        """A v for one vector (D,) or a block (D, c): (K,) or (K, c).

        Raises:
            ParameterError: if v has another shape, or is not finite and real.
        """
        vectors = read_vectors(v, self.shape[1], self.device)
        given = columns = vectors.reshape(len(vectors), -1)
        if self.weights is not None:
            columns = columns * self.weights[:, None]
        parts = [
            block.outward(
                sum(
                    (
                        f.to(torch.float64).apply(unit.gather(columns))
                        for unit, f in block.factors.items()
                    ),
                    start=columns.new_zeros(block.per_sample, block.samples, columns.shape[1]),
                )
            )
            for block in self.blocks("A v")
        ]
        result = torch.cat(parts)
        witness = self.sweep.witness
        image, size = self.witnessed(witness)
        witness.confirm("A v", witness.u @ result, image @ given, size * float(given.norm()))
        return result.reshape(len(result), *vectors.shape[1:])

    def rmv(self, u: Vector) -> Tensor:
        """Aᵀ u for one vector (K,) or a block (K, c): (D,) or (D, c).

        Raises:
            DataError: if u has another shape, or is not finite and real.
        """
        vectors = read_rows(u, self.shape[0], self.device)
        columns = vectors.reshape(len(vectors), -1)
        # One combination of whole rows is ordinary differentiation; but in float32 not quite Aᵀ.
        plain = columns.shape[1] == 1 and self.layer is None and self._probe() is None
        result = self._pull_one(columns) if plain else self._pull_many(columns)
        if self.weights is not None:
            result *= self.weights[:, None]
        return result.reshape(len(result), *vectors.shape[1:])

    def footprint(self, budget: float | None = None, rows: int | None = None) -> Footprint:
        """What `gram` takes within a budget of bytes; nine tenths of what there is unless given."""
        budget = 0.9 * available_memory() if budget is None else budget
        return footprint(self.sweep, self.units, rows or self.shape[0], budget)

    def gram(self, budget: float | None = None) -> Tensor:
        """A Aᵀ, (K, K) float64, symmetric to the bit.

        Args:
            budget: Bytes that may be used; nine tenths of what is available unless given.

        Raises:
            CapacityError: if the gradients of one unit do not fit.
            ConsistencyError: if the rows disagree with plain differentiation.
        """
        rows, dtype = self.shape[0], self.problem.dtype
        self.traces = {}
        memory = self.footprint(budget)
        if memory.largest > memory.room:
            raise memory.error()
        probe = self._probe()
        with isolated(dtype):
            out = empty(rows, rows, device=self.device)
            ledger = Ledger(out, memory.passes, self.keeper, self.problem.progress)
            fill(ledger, self.sweep, self._weighted, probe)
        self.traces = ledger.traces
        if ledger.finished:
            self.rounding = ledger.rounding
        elif probe is not None:
            self._note_rounding(probe.image, out @ probe.u - probe.product)
        witness = self.sweep.witness
        u, (image, size) = witness.u, self.witnessed(witness)
        scale = float(u.norm()) * float(out.diagonal().sum()) + size**2
        witness.confirm("A Aᵀ", u @ (out @ u), image @ image, scale)
        ledger.finish(self.rounding)
        return out

    def metric(self) -> Tensor:
        """Aᵀ A, (D, D) float64: the Fisher information matrix."""
        size = self.shape[1]
        out = torch.zeros(size, size, dtype=torch.float64, device=self.device)
        u = signs(size, self.device)
        product = torch.zeros_like(u)
        for slab in self.slabs("Fisher matrix"):
            add_square(slab.to(self.problem.dtype), out)
            if self.problem.dtype != torch.float64:
                product += slab.T @ (slab @ u)
        mirror(out)
        if self.rounding is not None:
            top, total = norm_bounds(out @ u - product, size)
            self.rounding = replace(self.rounding, product=top, product_sum=total)
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
        for block in self.blocks(stage):
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
            witness.confirm("A", pulled, *self.witnessed(witness))
        if probe is not None:
            self._note_rounding(found)

    def rows(self, index: int) -> Tensor:
        """The rank Λ rows of observation `index`: (rank Λ, D)."""
        check_index("index", index, self.problem.survey.observations)
        rank = self.problem.survey.rank
        unit = torch.zeros(self.shape[0], rank, dtype=torch.float64, device=self.device)
        start = range(self.problem.survey.observations)[index] * rank
        unit[start : start + rank] = torch.eye(rank, dtype=torch.float64, device=self.device)
        return self.rmv(unit).T

    def __matmul__(self, v: Vector) -> Tensor:
        return self.mv(v)

    @property
    def T(self) -> Transposed:  # noqa: N802 — as a matrix has it
        """Aᵀ as an operator."""
        return Transposed(self)

    def to_scipy(self) -> LinearOperator:
        """A as a SciPy linear operator on float64 NumPy vectors."""
        return linear_operator(self, self.device)

    def blocks(self, stage: str) -> Iterator[Block]:
        """All rows in order, block by block, with the factors of all `units`, unweighted."""
        batches = self.sweep.blocks(self.units, stage)
        while True:
            # Isolated only while the model runs, not while the caller does.
            with isolated(self.problem.dtype):
                blocks = next(batches, None)
            if blocks is None:
                return
            yield from merge(blocks, self.units)

    def _probe(self) -> Probe | None:
        """What measures the rounding of a pass over the rows; None in float64."""
        return None if self.problem.dtype == torch.float64 else Probe(*self.shape, self.device)

    def _note_rounding(self, image: Tensor, product: Tensor | None = None) -> None:
        """Hold ÃᵀU (D, P) against AᵀU in float64, and note (M̃ − ÃÃᵀ)U."""
        exact = torch.stack([self._mine(column) for column in self.sweep.exact_image.T], 1)
        unit = self.sweep.reference_precision
        self.rounding = bounds(image - exact, product, min(self.shape), unit)

    def witnessed(self, witness: Witness) -> tuple[Tensor, float]:
        """Aᵀ u of a witness, and the size of what rounding is relative to.

        That is of all columns, not of one layer that may be 0.
        """
        weight = 1.0 if self.weights is None else float(self.weights.abs().max())
        return self._mine(witness.image), float(witness.image.norm()) * weight

    def _mine(self, image: Tensor) -> Tensor:
        """Aᵀ u for this root from that for all columns without weights."""
        if self.layer is not None:
            entries = self.problem.selection.layers()[self.layer]
            image = torch.cat([image[e.start : e.stop] for e in entries])
        return image if self.weights is None else image * self.weights

    def _note_traces(self, blocks: list[Block]) -> None:
        for block in blocks:
            for unit, factor in block.factors.items():
                self.traces.setdefault(unit.layer, 0.0)
                self.traces[unit.layer] += factor.squared_norm()

    def _weighted(self, block: Block) -> Block:
        if self.weights is None:
            return block
        column = self.weights[:, None].to(self.problem.dtype)
        factors = {
            unit: factor.scaled(unit.gather(column)[:, 0]) for unit, factor in block.factors.items()
        }
        return Block(block.samples, block.per_sample, factors, block.keep)

    def _pull_many(self, columns: Tensor) -> Tensor:
        with isolated(self.problem.dtype):
            out = columns.new_zeros(columns.shape[1], self.shape[1])
        start = 0
        for block in self.blocks("Aᵀ u"):
            inner, start = block.inward(columns[start : start + block.rows]), start + block.rows
            for unit, factor in block.factors.items():
                unit.scatter(factor.to(torch.float64).pull(inner).T, out)
        return out.T

    def _pull_one(self, columns: Tensor) -> Tensor:
        start = 0
        with isolated(self.problem.dtype):
            out = columns.new_zeros(self.shape[1])
            for _, outputs in self.problem.sweep("Aᵀ u"):
                stop = start + outputs.count * self.problem.survey.rank
                out += whitened_vjp(self.problem, outputs, columns[start:stop, 0])
                start = stop
        check_derivatives(self.problem, out)
        return out[:, None]
