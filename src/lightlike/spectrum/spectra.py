"""The spectrum of whatever is symmetric and positive semi-definite."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightlike.errors import ChoiceError, choice_error
from lightlike.spectrum.decomposition import Decomposition, decompose
from lightlike.spectrum.dense import DenseMatrix
from lightlike.spectrum.operator import Factor, explicit
from lightlike.spectrum.partial import Lanczos, largest_of
from lightlike.spectrum.quadrature import as_quadrature
from lightlike.spectrum.routes import EXACT
from lightlike.spectrum.sketch import Sketch, as_sketch
from lightlike.spectrum.spectrum import Spectrum


@runtime_checkable
class Decomposable(Protocol):
    """A matrix Aᵀ A that keeps decompositions of its root A."""

    def decomposition(self, method: str = "auto", memory: Any = None) -> Decomposition:
        """The decomposition by a route."""


@runtime_checkable
class Sketchable(Protocol):
    """A matrix Aᵀ A whose root A can be sketched."""

    def sketch(self, sketch: Sketch | None = None, *, seed: int = 0, memory: Any = None) -> Any:
        """Independent sketches, with a `spectrum`."""


def spectrum(
    F: Any,
    method: str | Sketch | Lanczos = "auto",
    *,
    memory: int | float | str | None = None,
    seed: int = 0,
    count: int | None = None,
    tolerance: float | None = None,
) -> Spectrum:
    """Non-zero eigenvalues of Aᵀ A in float64, exact unless a sketch or the largest are asked for.

    Exact ones are computed when they are first looked at.

    Args:
        F: A Fisher matrix, a root A (then of Aᵀ A), or any symmetric positive semi-definite
            matrix or operator with `shape` and `@`.
        method: "auto" (the cheapest that fits), "gram" (eigenvalues of A Aᵀ), "metric" (of Aᵀ A)
            or "svd" (singular values of A); "lanczos" or a `lightlike.Lanczos` computes the largest
            only, by products, each with a bound on its error: what takes all of them is then
            refused; "sketch" or a `lightlike.Sketch` estimates them, for a Fisher matrix.
        memory: Bytes or a text such as "8 GB" that may be used; nine tenths of what is available
            unless given.
        seed: Of the sketch, or of the starts of Lanczos processes.
        count: How many with "lanczos"; 20 unless given.
        tolerance: With "lanczos", of each, relative to λ_1; 1e-7 unless given.

    Raises:
        ChoiceError: for an unknown method, or "slq", which knows sums over eigenvalues only.
        CapacityError: if no exact route fits; it names the sizes and the ways out.
        EstimateError: if the largest eigenvalues do not settle.
        ValueError: if a matrix is not square, finite, symmetric and positive semi-definite.
    """
    given: dict[str, Any] = {
        k: v for k, v in (("count", count), ("tolerance", tolerance)) if v is not None
    }
    if method == "lanczos":
        return largest_of(F, Lanczos(**given), memory=memory, seed=seed)
    for option, value in given.items():
        raise ChoiceError(
            f"{option}={value!r} goes with method='lanczos' only, not with {method!r}.",
            "Other methods take all eigenvalues, which would be more than was asked for.",
            f"Pass method='lanczos' too, or leave {option} out.",
        )
    if isinstance(method, Lanczos):
        return largest_of(F, method, memory=memory, seed=seed)
    if as_quadrature(method) is not None:
        raise ChoiceError(
            "Stochastic quadrature gives no single eigenvalues, and so no spectrum and no rank.",
            "Its Ritz values are points of a density, not eigenvalues.",
            "Use method='lanczos' for the largest ones and bounds on the rank; "
            "lightlike.density(F) for sums over eigenvalues and numbers above a bound; "
            "lightlike.measure(..., method='slq') for a length.",
        )
    sketch = as_sketch(method)
    if sketch is not None and isinstance(F, Sketchable):
        found: Spectrum = F.sketch(sketch, seed=seed, memory=memory).spectrum
        return found
    known = _methods(F)
    if not isinstance(method, str) or method not in known or sketch is not None:
        choices = [*map(repr, known), "a lightlike.Lanczos"]
        if "sketch" not in known:
            choices.append("a sketch for a Fisher matrix only")
        raise choice_error("method", method, choices)
    if isinstance(F, Decomposable):
        return F.decomposition(method, memory).spectrum
    if isinstance(F, Factor):
        return decompose(F, method, memory).spectrum
    return Spectrum(DenseMatrix(explicit(F)))


def _methods(F: Any) -> tuple[str, ...]:
    """What a spectrum of F can be had by."""
    if not isinstance(F, Decomposable | Factor):
        return "auto", "metric", "lanczos"
    return "auto", *EXACT, "lanczos", *(("sketch",) if isinstance(F, Sketchable) else ())
