"""Single questions to a Fisher matrix, each with its own answer type."""

from __future__ import annotations

from typing import Any

from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.criteria import criteria_of
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.priors import Prior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.spectrum.sketch import Sketch
from lightlike.spectrum.spectra import spectrum as spectrum_of
from lightlike.spectrum.spectrum import Spectrum


def dimension(F: Any, method: str | Sketch = "auto", *, seed: int = 0) -> Dimension:
    """The local dimension d̂ = rank Î(θ), with certain bounds.

    Args:
        F: A Fisher matrix, a root A, or a symmetric matrix.
        method: As in `lightlike.spectrum`; a sketch bounds it by its rank and min(D, K).
        seed: Of the sketch.

    Raises:
        CapacityError: if no exact route fits in memory.
    """
    return dimension_of(spectrum_of(F, method, seed=seed))


def description_length(
    F: Fisher, *, prior: Prior | None = None, spectrum: Spectrum | None = None
) -> DescriptionLength:
    """The Gaussian razor of the labels given the inputs, at the point F is taken at.

    L = NLL + ½ δᵀΣ⁻¹δ − ½ rᵀ(N Î + Σ⁻¹)⁻¹r + ½ log det(I + N Σ^½ Î Σ^½) with δ = θ̂ − μ and
    r = ∇NLL + Σ⁻¹δ: correct at a maximum-likelihood point, at a MAP point or at neither, exact for
    linear models with Gaussian noise (arXiv 1905.11027, doi:10.1162/neco.1992.4.3.415).

    Args:
        F: From `lightlike.fisher`, with or without labels.
        prior: From `lightlike.priors`; N(0, I) unless given.
        spectrum: Of F, if there is one already; serves isotropic priors.

    Raises:
        PriorError: if the prior does not fit the parameters.
    """
    return gaussian_razor(
        F.problem, resolve_prior(prior), F.decomposition(), expand(F.problem), spectrum
    )


def criteria(F: Fisher) -> dict[str, float | None]:
    """AIC, BIC with D and with d, uniform code and label entropy, by name, in nats."""
    return criteria_of(F.problem, int(dimension(F)))
