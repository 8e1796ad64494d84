"""The Fisher information matrix Î(θ) = Aᵀ A on the sample, as an operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightlike.metric.drawing import sketch_that_fits
from lightlike.metric.root import Root
from lightlike.metric.sketch import SketchedFisher
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition, decompose
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.sketch import Sketch


class Fisher:
    """Î(θ) = (1/N) Σ_i J_iᵀ Λ_i J_i = Aᵀ A, D × D, symmetric and positive semi-definite.

    Attributes:
        root: A, the K × D root.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self._decompositions: dict[tuple[str, object], Decomposition] = {}

    def decomposition(
        self, method: str = "auto", memory: int | float | str | None = None
    ) -> Decomposition:
        """The exact decomposition of A by a route; kept, so that later questions are cheap."""
        key = method, memory
        if key not in self._decompositions:
            sketch = sketch_that_fits(self.root, resolve_memory(memory))
            kept = self.root.keeper
            self._decompositions[key] = decompose(self.root, method, memory, sketch, kept)
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

    def at(self, theta: Tensor | Mapping[str, Tensor]) -> Fisher:
        """Î of the same model, data and likelihood at another point θ.

        Args:
            theta: The selected parameters as a flat vector (D,) in the model's order, or a state
                dict, such as a checkpoint, with all of them; other parameters and buffers in it
                are taken too.

        Raises:
            ParameterError: if something is missing, unknown or of another shape.
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

    def __matmul__(self, v: Tensor) -> Tensor:
        """Î v for one vector (D,) or a block (D, c)."""
        return self.root.rmv(self.root.mv(v))

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
