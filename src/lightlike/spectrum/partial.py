"""A spectrum of the largest eigenvalues only, each with a bound on its error."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.lanczos import lanczos
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.matrices import check_square, precision_of
from lightlike.spectrum.operator import Factor
from lightlike.spectrum.spectrum import Spectrum

COUNT, TOLERANCE = 20, 1e-7


@runtime_checkable
class Rooted(Protocol):
    """A matrix Aᵀ A with its root at hand."""

    @property
    def root(self) -> Any:
        """A."""


@runtime_checkable
class Multiplying(Protocol):
    """A matrix that can make itself ready for many products."""

    def products(self, expected: int | None = None) -> Any:
        """An operator with `shape` and `@`."""


class Squared:
    """Products with Aᵀ A.

    Args:
        root: A.
        ready: What multiplies by Aᵀ A, if there is something faster than A and Aᵀ in turn.
    """

    def __init__(self, root: Factor, ready: Any = None) -> None:
        self.root, self.ready = root, ready
        self.shape = root.shape[1], root.shape[1]
        self.precision = max(root.precision, precision_of(ready))
        self.device = getattr(root, "device", "cpu")

    def __matmul__(self, v: Tensor) -> Any:
        return self.root.rmv(self.root.mv(v)) if self.ready is None else self.ready @ v


def largest_of(
    F: Any,
    count: int | None = None,
    tolerance: float | None = None,
    *,
    memory: int | float | str | None = None,
    seed: int = 0,
) -> Spectrum:
    """The largest eigenvalues of Aᵀ A as a spectrum that is not whole; see `lanczos`.

    Args:
        F: A Fisher matrix, a root A, or any symmetric positive semi-definite matrix or operator.
        count: How many; 20 unless given.
        tolerance: Of each, relative to λ_1; 1e-7 unless given.
        memory: For the basis.
        seed: Of the random vectors.
    """
    count = COUNT if count is None else count
    tolerance = TOLERANCE if tolerance is None else tolerance
    root = F if isinstance(F, Factor) else F.root if isinstance(F, Rooted) else None
    operator, trace = F, None
    if root is not None:
        ready = F if root is not F else None
        if isinstance(F, Multiplying):
            ready = F.products(expected=4 * count)
        operator = Squared(root, ready)
    elif isinstance(F, Tensor | np.ndarray):
        check_square(F)
        trace = float(torch.as_tensor(F).diagonal().double().sum())
    found = lanczos(operator, count, tolerance=tolerance, memory=memory, seed=seed)
    shape = F.shape if root is None else root.shape
    return Spectrum(eigenvalues_of(found, shape, precision_of(operator), trace))


def eigenvalues_of(
    found: Leading, shape: tuple[int, int], precision: float, trace: float | None = None
) -> Eigenvalues:
    """Leading eigenvalues with what they tell about all of them.

    Args:
        found: The eigenvalues.
        shape: (K, D), the shape of A.
        precision: Rounding unit of products.
        trace: Of the matrix, if it is known.
    """
    whole = len(found) == min(shape)
    if whole and trace is None:
        trace = float(found.eigenvalues.sum())
    return Eigenvalues(
        eigenvalues=found.eigenvalues,
        trace=trace,
        shape=(int(shape[0]), int(shape[1])),
        kind="certified",
        method="lanczos",
        floor=found.beyond,
        residue=0.0,
        rank_bounds=(len(found), min(shape)),
        reason="; ".join(found.reasons),
        precision=precision,
        whole=whole,
        deviations=tuple(found.errors.tolist()),
    )
