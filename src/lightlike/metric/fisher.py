"""The Fisher information matrix Î(θ) = Aᵀ A on the sample, as an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightlike.metric.alternatives import estimates
from lightlike.metric.kronecker.approximation import ApproximateFisher
from lightlike.metric.kronecker.factored import (
    LARGEST,
    SMALL,
    blocks,
    diagonal,
    kronecker_factored,
)
from lightlike.metric.products.operator import Products
from lightlike.metric.root import Root
from lightlike.metric.sketch import SketchedFisher
from lightlike.metric.thinned import ThinnedFisher
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.parameters import Point
from lightlike.problem.problem import Problem
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.decomposition import Decomposition, decompose
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.sketch import Sketch
from lightlike.vectors import Vector, read_vectors


class Fisher:
    """Î(θ) = (1/N) Σ_i J_iᵀ Λ_i J_i = Aᵀ A, D × D, symmetric and positive semi-definite.

    Attributes:
        root: A, the K × D root.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self._decompositions: dict[tuple[str, object], Decomposition] = {}
        self._single: Products | None = None

    def decomposition(
        self, method: str = "auto", memory: int | float | str | None = None
    ) -> Decomposition:
        """The exact decomposition of A by a route; kept, so that later questions are cheap."""
        key = method, memory
        if key not in self._decompositions:
            self._decompositions[key] = decompose(
                self.root,
                method,
                memory,
                lambda: estimates(self.root, resolve_memory(memory)),
                self.root.keeper,
            )
        return self._decompositions[key]

    def sketch(
        self,
        sketch: Sketch | None = None,
        *,
        seed: int = 0,
        memory: int | float | str | None = None,
    ) -> SketchedFisher:
        """Independent row sketches of A, for outputs too wide to take whole; drawn when asked.

        Raises:
            ChoiceError: if the sketch would be no smaller than A.
            CapacityError: if it does not fit in memory.
        """
        return SketchedFisher(self.root, sketch or Sketch(), seed, memory)

    def columns(
        self,
        columns: Columns | None = None,
        *,
        seed: int = 0,
        memory: int | float | str | None = None,
    ) -> ThinnedFisher:
        """A sample of the columns of A, whole output units of layers, for many parameters.

        Raises:
            ChoiceError: if the dtype is not float64.
            CapacityError: if it does not fit in memory.
        """
        return ThinnedFisher(self.root, columns or Columns(), seed, memory)

    def kronecker(
        self,
        *,
        eigenvalue_correction: bool = False,
        sharing: str = "expand",
        small: int = SMALL,
        largest: int = LARGEST,
    ) -> ApproximateFisher:
        """KFAC, or EKFAC: one Kronecker product L ⊗ R for each layer that has the structure.

        For rows Σ_p g_p x_pᵀ with the input x_p at position p, 1 at its end where there is a bias,
        and g_p back-propagated from a column of the output covariance's root: no label is drawn.
        Linear layers and matrix products, convolutions by their patches (each group of channels on
        its own), embeddings (L diagonal). Tied weights are one block with all their uses, see
        `lightlike.metric.kronecker.uses`. Everything else is an exact block, or an exact diagonal
        if it is long; `structures` says which is which.

        KFAC (Martens & Grosse 2015, arXiv 1503.05671) is exact for a layer with one observation.
        EKFAC (George et al. 2018, arXiv 1806.03884) keeps its eigenvectors and takes for
        eigenvalues the exact second moments along them, of each row's gradient summed over
        positions and uses: the nearest matrix with these eigenvectors. As it is the diagonal of Î
        in an orthonormal basis, its trace is that of Î, and its log det(I + c ·) is never less.

        Where outputs are too wide for all rows, take it of a sketch S of A in place of A,
        `Fisher(next(F.sketch().roots())).kronecker()`: L and R are then those of SᵀS, R unbiased.

        Args:
            eigenvalue_correction: EKFAC; takes a second pass.
            sharing: "expand", positions as observations of their own, or "reduce", means of x and
                sums of g over the positions of a sample (arXiv 2311.00636), which is right where
                outputs depend on a layer's mean over positions; tables always expand.
            small: Blocks without the structure are exact up to this many columns.
            largest: L and R are full up to this size, diagonal beyond.

        Raises:
            ChoiceError: for an unknown sharing, a size below 0, or "reduce" where samples cannot be
                told apart.
        """
        return kronecker_factored(
            self.root,
            self.decomposition,
            eigenvalue_correction=eigenvalue_correction,
            sharing=sharing,
            small=small,
            largest=largest,
        )

    def diagonal(self) -> ApproximateFisher:
        """The diagonal of Î, exact, in one pass and without the K × D entries of A."""
        return diagonal(self.root, self.decomposition)

    def blocks(
        self, by: str = "layer", *, memory: int | float | str | None = None
    ) -> ApproximateFisher:
        """The diagonal blocks of Î, exact, one a layer or one a parameter tensor.

        Raises:
            ChoiceError: for another grouping.
            CapacityError: if the rows and eigenvectors of a layer do not fit in memory.
        """
        return blocks(self.root, self.decomposition, by, resolve_memory(memory))

    def at(self, theta: Point) -> Fisher:
        """Î of the same model, data and likelihood at another point θ.

        Args:
            theta: The selected parameters as a flat vector (D,) in the model's order, or a module
                or state dict, such as a checkpoint, with all of them; other parameters and buffers
                in it are taken too.

        Raises:
            ParameterError: if something is missing, unknown, of another shape or not finite.
            ModelError: if the model's outputs are not finite there.
        """
        return Fisher(Root(self.problem.at(theta), self.root.weights, self.root.layer))

    @property
    def problem(self) -> Problem:
        """The model, data and likelihood it is taken at."""
        return self.root.problem

    @property
    def shape(self) -> tuple[int, int]:
        """(D, D)."""
        return self.root.shape[1], self.root.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Always float64."""
        return self.root.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.root.device

    def __matmul__(self, v: Vector) -> Tensor:
        """Î v for one vector (D,) or a block (D, c); see `products` for many of them.

        A Jacobian-vector and a vector-Jacobian product each, or through rows of A where a block is
        wider than an observation has rows. In float32 always the latter.

        Raises:
            ParameterError: if v has another shape, or is not finite and real.
        """
        v = read_vectors(v, self.shape[1], self.device)
        few = v.ndim == 1 or v.shape[-1] <= self.problem.survey.rank
        if self.problem.dtype != torch.float64 or not few:
            return self.root.rmv(self.root.mv(v))
        if self._single is None:
            self._single = self.products(memory=0)
        return self._single @ v

    def products(
        self,
        expected: int | None = None,
        *,
        dtype: str | torch.dtype | None = None,
        memory: int | float | str | None = None,
    ) -> Products:
        """Î as an operator for many products, which keeps what depends on no vector.

        Args:
            expected: Number of products to come, if it is known; a single one keeps nothing.
            dtype: Of the model's arithmetic, "float64" or "float32"; as Î is unless given.
            memory: Bytes, or a text such as "8 GB", that may be kept; 0 keeps nothing. Half of
                what is available unless given.

        Raises:
            ChoiceError: for an unknown dtype or amount of memory, or if fewer than one product is
                expected.
        """
        return Products(self.root, expected=expected, dtype=dtype, memory=memory)

    def dense(self) -> Tensor:
        """All of Î, (D, D)."""
        return self.root.metric()

    def trace(self) -> float:
        """The trace tr Î = ‖A‖²_F = (1/N) Σ_i tr(J_iᵀ Λ_i J_i).

        From a decomposition that is kept, if one knows it; otherwise all rows are written out.
        """
        for kept in self._decompositions.values():
            if (known := kept.trace) is not None:
                return known
        return sum(float(slab.square().sum()) for slab in self.root.slabs("Trace"))


def fisher(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    parameters: str | Sequence[str] | None = None,
    *,
    dtype: str | torch.dtype = "float64",
) -> Fisher:
    """The Fisher information matrix of a model on data, as an operator.

    Args:
        model: Any module that PyTorch can differentiate; it is not changed, and later changes of
            it do not show.
        data: `(x, y)`, `(x,)`, a Dataset, a DataLoader or any re-iterable of batches.
        likelihood: "categorical", "gaussian", "bernoulli", "poisson" or an object from
            `lightlike.likelihoods`.
        parameters: None (all that require grad), a regular expression on names, or a list.
        dtype: "float64", or "float32" where only large eigenvalues matter: half the memory, and how
            far it is from float64 is found out.

    Returns:
        Î(θ) = (1/N) Σ_i J_iᵀ Λ_i J_i (arXiv 1905.11027), N counting observations.

    Raises:
        ModelError, DataError, ParameterError, DeterminismError, ChoiceError: if the parts do not
            fit; each message says what to do.
    """
    return Fisher(Root(Problem(model, data, likelihood, parameters, None, dtype)))
