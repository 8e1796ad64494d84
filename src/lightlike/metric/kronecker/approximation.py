"""A block-diagonal approximation of the Fisher matrix as an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, UndefinedError
from lightlike.metric.kronecker.deviation import ApproximationError, measure_error
from lightlike.metric.kronecker.forms import Form, Function
from lightlike.metric.root import Root
from lightlike.metric.units import Unit
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.rounding import eigenvalue_floor
from lightlike.spectrum.spectrum import Spectrum
from lightlike.vectors import Vector, read_vectors

# Columns up to which all entries are written out.
DENSE = 20_000


@dataclass(frozen=True, eq=False)
class Part:
    """One block.

    Attributes:
        layer: The module that owns its parameters.
        names: Their names.
        structure: "kronecker", "kronecker, corrected", "dense" or "diagonal".
        columns: Where they are in θ ∈ R^D, in the order of the block.
        form: The block.
    """

    layer: str
    names: tuple[str, ...]
    structure: str
    columns: tuple[slice, ...]
    form: Form

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.form.width

    def gather(self, v: Tensor) -> Tensor:
        """The block's rows of v (D, ...)."""
        return torch.cat([v[c] for c in self.columns])

    def scatter(self, part: Tensor, out: Tensor) -> None:
        """Write the block's rows to out (D, ...)."""
        start = 0
        for c in self.columns:
            out[c] = part[start : start + c.stop - c.start]
            start += c.stop - c.start


class ApproximateFisher:
    """M ≈ Î(θ), D × D, symmetric, positive semi-definite and block-diagonal.

    Every selected parameter is in one block, or in none if no output depends on it: then its rows
    and columns are zero. All products are functions of M by its blocks' eigenvectors.

    All but "kfac" are the diagonal of Î, or diagonal blocks of it, in some orthonormal basis. By
    the inequalities of Hadamard and Fischer (Horn & Johnson 2012, doi:10.1017/CBO9781139020411,
    7.8) log det(I + c M) ≥ log det(I + c Î), and by the theorem of Schur the eigenvalues of Î
    majorise those of M (4.3.45): every Schur-concave sum of them, such as MacKay's dimension, is an
    upper bound. `above` says so.

    Attributes:
        root: The root A of the exact Î = AᵀA.
        method: "kfac", "ekfac", "diagonal", "blocks by layer" or "blocks by parameter".
        parts: The blocks.
        ways: How the batches were back-propagated.
    """

    def __init__(
        self,
        root: Root,
        method: str,
        parts: Sequence[Part],
        exact: Callable[[], Decomposition],
        ways: Sequence[str] = (),
    ) -> None:
        self.root, self.method, self.parts, self.ways = root, method, tuple(parts), tuple(ways)
        self._exact = exact

    @property
    def shape(self) -> tuple[int, int]:
        """(D, D)."""
        return self.root.shape[1], self.root.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Always float64."""
        return torch.float64

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.root.device

    @property
    def above(self) -> bool:
        """Whether log det(I + c M) is certain to be no less than that of Î."""
        return self.method != "kfac"

    @property
    def structures(self) -> dict[str, str]:
        """How each parameter's block is held, by its name; "zero" if no output depends on it."""
        found: dict[str, list[str]] = {}
        for part in self.parts:
            for name in part.names:
                kinds = found.setdefault(name, [])
                if part.structure not in kinds:
                    kinds.append(part.structure)
        layers = self.root.problem.selection.layers()
        entries = [
            entry
            for layer, own in layers.items()
            if self.root.layer in (None, layer)
            for entry in own
        ]
        return {entry.name: " + ".join(found.get(entry.name, ["zero"])) for entry in entries}

    def apply(self, function: Function, v: Vector) -> Tensor:
        """The product f(M) v for one vector (D,) or a block (D, c), f of eigenvalues λ ≥ 0.

        Raises:
            ParameterError: if v has another shape, or is not finite and real.
        """
        v = read_vectors(v, self.shape[0], self.device)
        columns = v.reshape(len(v), -1)
        # Columns in no block have eigenvalue 0.
        out = function(columns.new_zeros(1)) * columns
        for part in self.parts:
            part.scatter(part.form.apply(function, part.gather(columns)), out)
        return out[:, 0] if v.ndim == 1 else out

    def turn(self, v: Tensor) -> Tensor:
        """Uᵀ v for a block (D, c), along the eigenvectors of all blocks, in the order of `values`.

        For forms that serve as control variates, see `lightlike.Quadrature`.
        """
        parts = [part.form.turn(part.gather(v)) for part in self.parts]
        return torch.cat(parts) if parts else v.new_zeros(0, v.shape[1])

    def __matmul__(self, v: Vector) -> Tensor:
        """M v."""
        return self.apply(lambda values: values, v)

    def solve(self, v: Tensor, damping: float) -> Tensor:
        """(M + damping · I)⁻¹ v, exactly, also for the Kronecker blocks.

        As a preconditioner for (N Î + Σ⁻¹)⁻¹ r with Σ = σ²I: solve(r, 1/(N σ²)) / N. It saves
        products where layers are ill-conditioned in themselves and the data determine most
        directions. Null directions of Î that combine layers are none of M: it scatters what was
        one eigenvalue, and conjugate gradients without it take fewer products.

        Raises:
            ChoiceError: if the damping is negative.
            UndefinedError: if it is 0 and M is singular.
        """
        if not damping >= 0.0:
            raise ChoiceError(
                f"damping={damping!r} is not a number from 0 up.",
                "M + damping · I would not be positive definite.",
                "Give the precision of the prior over N, say.",
            )
        if damping == 0.0 and self._singular:
            raise UndefinedError(
                "M is singular, and the damping is 0.",
                "M⁻¹ does not exist.",
                "Give a positive damping.",
            )
        return self.apply(lambda values: 1.0 / (values + damping), v)

    def half_solve(self, v: Tensor, scale: float) -> Tensor:
        """(I + scale · M)^{-½} v."""
        self._check(scale)
        return self.apply(lambda values: torch.rsqrt(1.0 + scale * values), v)

    def log_product(self, v: Tensor, scale: float) -> Tensor:
        """Log(I + scale · M) v: for forms that serve as control variates, of trace `logdet`."""
        self._check(scale)
        return self.apply(lambda values: torch.log1p(scale * values), v)

    def logdet(self, scale: float) -> float:
        """Log det(I + scale · M)."""
        self._check(scale)
        return float(torch.log1p(scale * self.values).sum())

    def trace(self) -> float:
        """The trace of M; that of Î itself unless the method is "kfac"."""
        return float(self.values.sum())

    def squared_norm(self) -> float:
        """‖M‖²_F."""
        return float(self.values.square().sum())

    def diagonal(self) -> Tensor:
        """The diagonal of M, (D,); that of Î itself for "diagonal" and "blocks"."""
        out = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
        for part in self.parts:
            part.scatter(part.form.diagonal(), out)
        return out

    def dense(self) -> Tensor:
        """All of M, (D, D).

        Raises:
            ChoiceError: for more than 20,000 parameters.
        """
        size = self.shape[0]
        if size > DENSE:
            raise ChoiceError(
                f"All entries of a {size:,} × {size:,} matrix are asked for.",
                "That is what an approximation is there to avoid.",
                "Use products, solve, diagonal or the parts.",
            )
        full = self @ torch.eye(size, dtype=torch.float64, device=self.device)
        return (full + full.T) / 2

    @cached_property
    def values(self) -> Tensor:
        """Eigenvalues of all blocks, in no order, those of columns in no block left out."""
        parts = [part.form.values for part in self.parts]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    @cached_property
    def spectrum(self) -> Spectrum:
        """The positive eigenvalues of M, of kind "approximate": no error of theirs is known.

        Of the rank of Î they tell nothing but that it is positive if M is.
        """
        values = self.values.sort(descending=True).values
        largest = float(values[0]) if len(values) else 0.0
        # What rounding of a decomposition makes of zeros is no eigenvalue.
        floor = eigenvalue_floor(len(values), largest)
        values, below = values[values > floor], values[values <= floor]
        rows, columns = self.root.shape
        found = Eigenvalues(
            eigenvalues=values,
            trace=self.trace(),
            shape=(rows, columns),
            kind="approximate",
            method=self.method,
            floor=floor,
            residue=float(below[0]) if len(below) else 0.0,
            rank_bounds=(min(1, len(values)), min(rows, columns)),
            reason=self.summary,
            precision=self.root.precision,
        )
        return Spectrum(found)

    @property
    def summary(self) -> str:
        """How many columns are held in which form, in a few words."""
        counts: dict[str, int] = {}
        for part in self.parts:
            counts[part.structure] = counts.get(part.structure, 0) + part.width
        missing = self.shape[0] - sum(counts.values())
        if missing:
            counts["zero"] = missing
        return ", ".join(f"{count:,} columns {name}" for name, count in counts.items())

    def error(self, scale: float | None = None) -> ApproximationError:
        """How far M is from the exact Î, measured.

        It takes an exact decomposition of A, kept for later questions, and one pass over its rows.

        Args:
            scale: c of log det(I + c ·); N unless given, as for a prior variance of 1.

        Raises:
            CapacityError: if no exact route fits in memory.
        """
        if scale is None:
            scale = float(self.root.problem.survey.observations)
        self._check(scale)
        return measure_error(self, self._exact(), scale)

    @property
    def _singular(self) -> bool:
        covered = len(self.values) == self.shape[0]
        return not covered or bool((self.values <= 0).any())

    @staticmethod
    def _check(scale: float) -> None:
        if not scale >= 0.0:
            raise ChoiceError(
                f"scale={scale!r} is not a number from 0 up.",
                "I + scale · M would not be positive definite.",
                "Give N times a prior variance, say.",
            )

    def __repr__(self) -> str:
        return f"ApproximateFisher({self.method}: {self.summary})"


def part_of(unit: Unit, place: tuple[int, int], form: Form, structure: str) -> Part:
    """The block on a stretch of a unit's columns."""
    names, columns = [], []
    start = 0
    for entry in unit.entries:
        first, last = max(place[0] - start, 0), min(place[1] - start, entry.size)
        if first < last:
            names.append(entry.name)
            columns.append(slice(entry.start + first, entry.start + last))
        start += entry.size
    return Part(unit.layer, tuple(names), structure, tuple(columns), form)
