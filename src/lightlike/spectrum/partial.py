"""A spectrum of the largest eigenvalues only, each with a bound on its error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import choice_error
from lightlike.numbers import is_finite
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.lanczos import lanczos
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.matrices import check_square, precision_of
from lightlike.spectrum.operator import Factor
from lightlike.spectrum.spectrum import Spectrum

COUNT, TOLERANCE = 20, 1e-7


@dataclass(frozen=True)
class Lanczos:
    """How leading eigenvalues are computed one by one, see `lightlike.lanczos`.

    Given as `method`, or "lanczos" for the defaults.

    Args:
        count: How many.
        tolerance: Bound on the error of each, relative to λ_1.
        block: Vectors at once.
        chance: Probability that is allowed of an eigenvalue having been missed.
        maximum: Products at most; 1,000 + 100 · count unless given.

    Raises:
        ChoiceError: if a number is out of range.
    """

    count: int = COUNT
    tolerance: float = TOLERANCE
    block: int = 1
    chance: float = 1e-6
    maximum: int | None = None

    def __post_init__(self) -> None:
        for name in ("count", "block", "maximum"):
            value = getattr(self, name)
            if name == "maximum" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise choice_error(name, value, ["a whole number from 1 up"])
        if not is_finite(self.tolerance) or not 1e-14 <= self.tolerance < 1.0:
            raise choice_error("tolerance", self.tolerance, ["a number from 1e-14 to below 1"])
        if not is_finite(self.chance) or not 0.0 < self.chance < 1.0:
            raise choice_error("chance", self.chance, ["a probability above 0 and below 1"])


def as_lanczos(method: Any) -> Lanczos | None:
    """The search for leading eigenvalues that a `method` means, if it means one."""
    if isinstance(method, Lanczos):
        return method
    return Lanczos() if method == "lanczos" else None


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
    options: Lanczos | None = None,
    *,
    memory: int | float | str | None = None,
    seed: int = 0,
) -> Spectrum:
    """The largest eigenvalues of Aᵀ A as a spectrum that is not whole; see `lanczos`.

    Args:
        F: A Fisher matrix, a root A, or any symmetric positive semi-definite matrix or operator.
        options: How many, how well, and so on.
        memory: For the basis.
        seed: Of the random vectors.
    """
    options = options or Lanczos()
    root = F if isinstance(F, Factor) else F.root if isinstance(F, Rooted) else None
    operator, trace = F, None
    if root is not None:
        ready = F if root is not F else None
        if isinstance(F, Multiplying):
            ready = F.products(expected=4 * options.count)
        operator = Squared(root, ready)
    elif isinstance(F, Tensor | np.ndarray):
        check_square(F)
        trace = float(torch.as_tensor(F).diagonal().double().sum())
    found = lanczos(operator, **asdict(options), memory=memory, seed=seed)
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
