"""The Fisher matrix from a sample of the columns of its root: unbiased, and all of K rows.

With groups g of columns (see `lightlike.metric.strata`), A Aᵀ = Σ_g A_g A_gᵀ. Of the N_h groups of
stratum h a simple random sample of n_h is kept, and G̃ = Σ_h (N_h / n_h) Σ_g A_g A_gᵀ has the
expectation A Aᵀ (Horvitz & Thompson 1952, doi:10.1080/01621459.1952.10483446). For one sample,

- tr G̃ is unbiased, and rank G̃ ≤ rank A always;
- log det(I + c G̃) is concave in G̃, so that its expectation is at most log det(I + c A Aᵀ).

Of the last the bias is removed to second order, and its standard error had, by the jackknife over
R disjoint parts of the sample (Quenouille 1956, doi:10.1093/biomet/43.3-4.353). Since groups are
drawn without replacement, leaving out a part moves G̃ by √(1 − n_h / N_h) times as much as it would
otherwise (Rao & Wu 1988, doi:10.1080/01621459.1988.10478591): with B_r the share of part r in G̃ and
v that root,

    G̃_(r) = G̃ + v (Σ_s B_s − R B_r) / (R − 1).

One v serves all strata, the largest of theirs, so that the standard error is not too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightlike.errors import ChoiceError
from lightlike.metric.blocks import Block, merge
from lightlike.metric.buffers import empty
from lightlike.metric.gram import add_gram
from lightlike.metric.root import Root
from lightlike.metric.strata import Stratum, draw_strata
from lightlike.metric.thinning import Thinning
from lightlike.metric.triangle import Triangle
from lightlike.metric.units import Unit
from lightlike.numbers import check_not_negative, check_seed
from lightlike.problem.isolation import isolated
from lightlike.problem.precision import name_of
from lightlike.spectrum.cholesky import cholesky, logdet_of
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.dense import from_symmetric
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.spectrum import Spectrum


class ThinnedFisher:
    """Î(θ) from some of the columns of its root A, by K × K matrices; made when first asked.

    Args:
        root: A.
        options: Share and replicates.
        seed: Of the choice of columns.
        memory: What may be used.

    Attributes:
        strata: What is kept of every unit.
        traces: Of each layer, one number a replicate, then that of what is kept whole; once made.

    Raises:
        ChoiceError: if the dtype is not float64, or the seed none.
        CapacityError: if the matrices, or the gradients of one unit, do not fit in memory.
    """

    def __init__(
        self, root: Root, options: Columns, seed: int = 0, memory: int | float | str | None = None
    ) -> None:
        check_seed(seed)
        if root.problem.dtype != torch.float64:
            raise ChoiceError(
                f"method='columns' computes in float64, not {name_of(root.problem.dtype)}.",
                "The record would name a precision that no number has.",
                "Leave dtype='float64'.",
            )
        self.root, self.options, self.seed = root, options, seed
        self.budget = resolve_memory(memory)
        self.strata = draw_strata(root.units, options, seed, root.device)
        self.thinning = Thinning(root, options, self.strata, self.budget)
        self.passes = self.thinning.passes()
        self.traces: dict[str, list[float]] = {}
        self._triangles: list[Triangle] = []
        self._values: dict[float, list[float]] = {}
        self._eigenvalues: Eigenvalues | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(D, D)."""
        return self.root.shape[1], self.root.shape[1]

    @property
    def exact(self) -> bool:
        """Whether all columns are kept."""
        return self.thinning.exact

    def logdet(self, scale: float) -> Estimate:
        """Log det(I + scale · Î), its bias removed to second order, with its standard error."""
        return self._jackknife(self.logdets(scale))

    def logdets(self, scale: float) -> list[float]:
        """Log det(I + scale · G) for G̃, below in expectation, and for each G̃_(r)."""
        check_not_negative("scale", scale)
        if scale not in self._values:
            self._values[scale] = self._each(scale, lambda factor, _: logdet_of(factor))
        return self._values[scale]

    def factor(self, scale: float) -> Tensor:
        """The Cholesky factor of I + scale · G̃, lower, for `lightlike.spectrum.cholesky.solve`."""
        matrix = self._matrix(scale, None)
        matrix.diagonal().add_(1.0)
        return cholesky(matrix, scale)

    def effective_dimension(self, tau: float) -> Estimate:
        """MacKay's γ(τ) = tr Î(Î + τI)⁻¹, as `logdet`; by an inverse for each replicate."""

        def gamma(factor: Tensor, size: int) -> float:
            return size - float(torch.cholesky_inverse(factor).diagonal().sum())

        return self._jackknife(self._each(1.0 / tau, gamma))

    def trace(self) -> Estimate:
        """The trace tr Î, unbiased."""
        self._make()
        return self._summed([sum(column) for column in zip(*self.traces.values(), strict=True)])

    def layer_traces(self) -> dict[str, Estimate]:
        """The part of tr Î of every layer's parameters, unbiased."""
        self._make()
        return {name: self._summed(parts) for name, parts in self.traces.items()}

    @property
    def spectrum(self) -> Spectrum:
        """The eigenvalues of G̃: their sum is unbiased, and their number at most the rank of A."""
        if self._eigenvalues is None:
            matrix = self._matrix(1.0, None)
            found = from_symmetric(matrix, self.root.shape, "columns", self.root.precision)
            self._eigenvalues = Eigenvalues(
                eigenvalues=found.eigenvalues,
                trace=found.trace,
                shape=self.root.shape,
                kind=found.kind if self.exact else "estimated",
                method="columns",
                floor=found.floor,
                residue=found.residue,
                rank_bounds=found.rank_bounds
                if self.exact
                else (found.rank_bounds[0], min(self.root.shape)),
                reason=self.thinning.reason,
                precision=found.precision,
            )
        return Spectrum(self._eigenvalues)

    @property
    def _shrink(self) -> float:
        """V, the largest of √(1 − n_h / N_h)."""
        return math.sqrt(1.0 - min((s.share for s in self.strata if not s.whole), default=1.0))

    def _jackknife(self, values: Sequence[float]) -> Estimate:
        """From a function of G̃ and the same of each G̃_(r)."""
        whole, left = values[0], torch.tensor(values[1:], dtype=torch.float64)
        count = self.options.replicates
        if self.exact:
            return Estimate(whole, 0.0, count - 1)
        mean = float(left.mean())
        error = math.sqrt((count - 1) / count * float((left - mean).square().sum()))
        return Estimate(whole + (count - 1) * (whole - mean), error, count - 1, "unknown")

    def _summed(self, parts: Sequence[float]) -> Estimate:
        """The sum of what each replicate adds, and what is kept whole adds in the end."""
        count = self.options.replicates
        spread = float(torch.tensor(parts[:-1], dtype=torch.float64).std())
        return Estimate(sum(parts), self._shrink * math.sqrt(count) * spread, count - 1)

    def _each(self, scale: float, function: Callable[[Tensor, int], float]) -> list[float]:
        """A function of the Cholesky factor of I + scale · G, for G̃ and each G̃_(r)."""
        self._make()
        left = () if self.exact else range(self.options.replicates)
        found = []
        for index in (None, *left):
            matrix = self._matrix(scale, index)
            matrix.diagonal().add_(1.0)
            found.append(function(cholesky(matrix, scale), len(matrix)))
        return found

    def _matrix(self, scale: float, left_out: int | None) -> Tensor:
        """The lower triangle of scale · G̃, or of scale · G̃_(r)."""
        self._make()
        *parts, whole = self._triangles
        size, count = whole.size, self.options.replicates
        matrix = empty(size, size, device=self.root.device).zero_()
        whole.onto(matrix, scale)
        move = self._shrink / (count - 1)
        for r, part in enumerate(parts):
            factor = 1.0 if left_out is None else 1.0 + move - (count * move) * (r == left_out)
            part.onto(matrix, scale * factor)
        return matrix

    def _make(self) -> None:
        """Sum the kept groups of each replicate, and those of units that are kept whole."""
        if self._triangles:
            return
        root, rows = self.root, self.root.shape[0]
        progress = root.problem.progress
        parts = [] if self.exact else list(range(self.options.replicates))
        triangles = [Triangle(rows, root.device) for _ in range(len(parts) + 1)]
        traces = {unit.layer: [0.0] * (self.options.replicates + 1) for unit in root.units}
        by_unit = {stratum.unit: stratum for stratum in self.strata}
        with isolated(root.problem.dtype):
            for units in self.passes:
                share = 1.0 / len(self.passes)
                blocks = root.sweep.blocks(units, "Rows of A", share)
                kept = [self._thinned(block, by_unit) for some in blocks for block in some]
                joined = merge(kept, units)
                square = empty(rows, rows, device=root.device)
                steps = progress.track([*parts, None], "Gram matrix", len(triangles), share=share)
                for r in steps:
                    mine, chosen = self._part(joined, units, by_unit, r)
                    if not chosen:
                        continue
                    found = add_gram(mine, chosen, square, first=True, last=False)
                    triangles[-1 if r is None else r].add(square)
                    for unit, trace in found.items():
                        traces[unit.layer][-1 if r is None else r] += trace
        self._confirm(triangles)
        self._triangles, self.traces = triangles, traces

    def _thinned(self, block: Block, by_unit: dict[Unit, Stratum]) -> Block:
        """The kept lanes, each multiplied so that its square stands for those left out too."""
        weights = self.root.weights
        for unit in list(block.factors):
            stratum = by_unit[unit]
            factor = block.factors[unit]
            columns = stratum.lanes.columns()
            if not stratum.whole:
                factor = factor.keep(stratum.lanes)
            scale = torch.full((len(columns),), stratum.share**-0.5, dtype=torch.float64)
            scale = scale.to(self.root.device)
            if weights is not None:
                scale = scale * unit.gather(weights[:, None])[columns, 0]
            if not stratum.whole or weights is not None:
                factor = factor.scaled(scale)
            block.factors[unit] = factor.settled()
        return block

    @staticmethod
    def _part(
        blocks: Sequence[Block],
        units: Sequence[Unit],
        by_unit: dict[Unit, Stratum],
        replicate: int | None,
    ) -> tuple[list[Block], list[Unit]]:
        """The blocks of one replicate, or of the units that are kept whole, and their units."""
        chosen = [unit for unit in units if by_unit[unit].whole == (replicate is None)]
        found = []
        for block in blocks:
            factors = {unit: block.factors[unit] for unit in chosen if unit in block.factors}
            if replicate is not None:
                for unit in factors:
                    stratum = by_unit[unit]
                    mine = stratum.lanes.among(stratum.places[replicate])
                    factors[unit] = factors[unit].keep(mine)
            found.append(Block(block.samples, block.per_sample, factors, block.keep))
        return found, chosen

    def _confirm(self, triangles: Sequence[Triangle]) -> None:
        """Hold every part against uᵀ G u = Σ_j w_j (Aᵀu)_j² from plain differentiation."""
        witness = self.root.sweep.witness
        image, size = self.root.witnessed(witness)
        expected = [0.0] * len(triangles)
        for stratum in self.strata:
            mine = stratum.unit.gather(image[:, None])[:, 0]
            groups = stratum.places or (torch.arange(stratum.lanes.kept, device=image.device),)
            for r, places in enumerate(groups):
                lanes = stratum.lanes.only(stratum.lanes.index[places])
                square = float(mine[lanes.columns()].square().sum()) / stratum.share
                expected[-1 if stratum.whole else r] += square
        u = witness.u
        for triangle, value in zip(triangles, expected, strict=True):
            scale = float(u.norm()) * triangle.trace() + size**2
            found = image.new_tensor(triangle.form(u))
            witness.confirm("A sample of A Aᵀ", found, image.new_tensor(value), scale)
