"""Single questions to a Fisher matrix, each with its own answer type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

from lightlike.errors import CapacityError, ModelError, UndefinedError, choice_error
from lightlike.geometry.dimension import (
    Dimension,
    SignificantDimension,
    dimension_of,
    significant_dimension_of,
)
from lightlike.geometry.symmetry.explain import certified, explain
from lightlike.geometry.symmetry.explanation import Explanation
from lightlike.length.arguments import check_fisher
from lightlike.length.criteria import Criteria, criteria_of
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.information import tic
from lightlike.length.optimum import doubts, told_of_limits
from lightlike.length.priors import Prior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_not_negative, check_truth
from lightlike.spectrum.partial import Lanczos
from lightlike.spectrum.sketch import Sketch
from lightlike.spectrum.spectra import spectrum as spectrum_of
from lightlike.spectrum.spectrum import Spectrum


@overload
def dimension(
    F: Any,
    method: str | Sketch | Lanczos = "auto",
    *,
    above: None = None,
    seed: int = 0,
    certify: bool = False,
    explanation: Explanation | None = None,
) -> Dimension: ...
@overload
def dimension(
    F: Any, method: str | Sketch | Lanczos = "auto", *, above: float, seed: int = 0
) -> SignificantDimension: ...
def dimension(
    F: Any,
    method: str | Sketch | Lanczos = "auto",
    *,
    above: float | None = None,
    seed: int = 0,
    certify: bool = False,
    explanation: Explanation | None = None,
) -> Dimension | SignificantDimension:
    """The local dimension d̂ = rank Î(θ), or the number of eigenvalues above ε, with certain bounds.

    The rank takes the eigenvalues. The number above ε takes one factorisation of the same matrix,
    by the inertia of A Aᵀ − εI (Sylvester), unless the eigenvalues are known already or ε is so
    small that only a refinement can tell.

    Args:
        F: A Fisher matrix, a root A, or a symmetric matrix.
        method: As in `lightlike.spectrum`. A sketch bounds the rank by its own and min(D, K); of
            the number above ε it gives an estimate without bounds. "lanczos" bounds both, and
            decides the number above ε where the largest eigenvalues reach down to it.
        above: None for the rank, or ε ≥ 0, an absolute bound on eigenvalues of Î.
        seed: Of the sketch.
        certify: Whether to seek named null directions (`lightlike.explain`) and bound the rank from
            above by D less their number; where that meets the singular values from below, the rank
            is proven twice.
        explanation: Of F, if there is one already; certifies too.

    Raises:
        CapacityError: if no exact route fits in memory.
        DataError: if F is no square matrix, or not finite and real.
        ChoiceError: if ε is negative or not a finite number, if F is no Fisher matrix and is to be
            certified, or if the explanation is of another one or of a wider tolerance.
        ConsistencyError: if the bounds contradict each other.
    """
    check_truth("certify", certify)
    if above is None:
        found = dimension_of(spectrum_of(F, method, seed=seed))
        if not certify and explanation is None:
            return found
        if not isinstance(F, Fisher):
            raise choice_error("certify", certify, ["False for anything but a Fisher matrix"])
        explanation = explain(F) if explanation is None else explanation
        return certified(found, explanation, F.root)
    if certify or explanation is not None:
        raise choice_error("certify", certify, ["False for the number above a bound"])
    check_not_negative("above", above)
    return significant_dimension_of(spectrum_of(F, method, seed=seed), float(above))


def description_length(
    F: Fisher, *, prior: Prior | None = None, spectrum: Spectrum | None = None
) -> DescriptionLength:
    """The Gaussian razor of the labels given the inputs, at the point F is taken at.

    L = NLL + ½ δᵀΣ⁻¹δ − ½ rᵀ(N Î + Σ⁻¹)⁻¹r + ½ log det(I + N Σ^½ Î Σ^½) with δ = θ̂ − μ and
    r = ∇NLL + Σ⁻¹δ: correct at a maximum-likelihood point, at a MAP point or at neither, exact for
    linear models with Gaussian noise (arXiv 1905.11027, doi:10.1162/neco.1992.4.3.415).

    The total takes one Cholesky factorisation of I + N A Σ Aᵀ; the split of the complexity into
    `dimension_term` and `spectrum_term` takes the eigenvalues, when it is read or printed.

    Args:
        F: From `lightlike.fisher`, with or without labels.
        prior: From `lightlike.priors`; N(0, I) unless given.
        spectrum: Of F, if there is one already; serves isotropic priors.

    Returns:
        The length, whose `validity` says so if θ is far from an optimum, or a fitted variance is a
        limit.

    Raises:
        PriorError: if the prior does not fit the parameters.
    """
    check_fisher(F)
    if spectrum is not None and not isinstance(spectrum, Spectrum):
        raise choice_error("spectrum", spectrum, ["None", "what lightlike.spectrum(F) returns"])
    length = gaussian_razor(
        F.problem, resolve_prior(prior), F.decomposition(), expand(F.problem), spectrum
    )
    told = told_of_limits(length.prior)
    validity = " ".join(filter(None, (*doubts(F.problem, length), told)))
    return replace(length, validity=validity)


def criteria(F: Fisher) -> Criteria:
    """AIC, BIC with D and with d, TIC, uniform code and label entropy, by name, in nats.

    "tic" takes the Hessian of the loss, "tic_ggn" the Fisher matrix in its place; either is None
    where it is not defined, and `lightlike.lengths.tic` says why. It also warns off an optimum, as
    a bare number cannot.
    """
    check_fisher(F)
    found = criteria_of(F.problem, int(dimension(F)))
    for name, method in (("tic", "hessian"), ("tic_ggn", "ggn")):
        try:
            found[name] = tic(F, method=method).total
        except (UndefinedError, CapacityError, ModelError):
            found[name] = None
    return found
