"""The Gaussian razor, correct at any point θ̂: maximum likelihood, MAP or neither.

With prior N(μ, Σ), δ = θ̂ − μ, H = N Î(θ̂) and g = ∇NLL_total(θ̂), expanding the log-likelihood to
second order at θ̂ and integrating it exactly against the prior gives

    L = NLL_total + ½ δᵀΣ⁻¹δ − ½ rᵀ(H + Σ⁻¹)⁻¹r + ½ log det(I + Σ^½ H Σ^½),   r = g + Σ⁻¹δ,

which is exact for a linear model with Gaussian noise (arXiv 1905.11027; MacKay 1992,
doi:10.1162/neco.1992.4.3.415). All of it is done in prior units z = Σ^{-½}(θ − μ), where the
root is A Σ^½ and the prior N(0, I).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import PriorError
from lightlike.length.description import DescriptionLength
from lightlike.length.displacement import STIFF, displacement_of
from lightlike.length.evidence import settle
from lightlike.length.priors import Prior, ResolvedPrior
from lightlike.metric.jacobian import gradient
from lightlike.metric.root import Root
from lightlike.problem.data import digest
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.spectrum import Spectrum


@dataclass(frozen=True)
class Expansion:
    """NLL_total and its gradient at the point of expansion, None without labels."""

    nll: float | None
    gradient: Tensor | None


@dataclass(frozen=True)
class SpectralCounts:
    """Counts that a spectrum is asked for when they are.

    Attributes:
        spectrum: Eigenvalues λ.
        scale: N σ² with λ those of Î, N with λ those in prior units.
    """

    spectrum: Spectrum
    scale: float

    @property
    def dimension(self) -> int:
        """d, the number of positive eigenvalues."""
        return len(self.spectrum)

    @property
    def effective_dimension(self) -> float:
        """Σ cλ / (1 + cλ) with c the scale."""
        return self.spectrum.effective_dimension(1.0 / self.scale)


def expand(problem: Problem) -> Expansion:
    """Evaluate NLL_total(θ̂) and ∇NLL_total(θ̂), in float64 whatever the problem's dtype."""
    problem = problem.reference
    nll = problem.survey.nll
    if nll is None:
        return Expansion(None, None)
    with isolated():
        return Expansion(float(nll.sum()), gradient(problem))


def gaussian_razor(
    problem: Problem,
    prior: Prior,
    decomposition: Decomposition,
    expansion: Expansion,
    spectrum: Spectrum | None = None,
) -> DescriptionLength:
    """The razor under a Gaussian prior, from a decomposition of A.

    Args:
        problem: Model, data and likelihood at θ̂.
        prior: See `lightlike.priors`.
        decomposition: Of A itself; priors with unequal variances need one of A Σ^½, which is
            made here by the same route.
        expansion: NLL_total and its gradient at θ̂.
        spectrum: Of Aᵀ A, if there is one already; of use to isotropic priors only.

    Raises:
        PriorError: if the prior does not fit, or its evidence has no maximum.
    """
    resolved = settle(problem, prior, decomposition, expansion.gradient)
    return razor_under(problem, resolved, decomposition, expansion, spectrum)


def razor_under(
    problem: Problem,
    resolved: ResolvedPrior,
    decomposition: Decomposition,
    expansion: Expansion,
    spectrum: Spectrum | None = None,
) -> DescriptionLength:
    """`gaussian_razor` with the prior's mean and variances at hand."""
    n = problem.survey.observations
    if resolved.isotropic and spectrum is not None:
        check_spectrum(spectrum, decomposition)
    whole = decomposition
    root, decomposition, scale = scaled_by(resolved, whole, n)
    if spectrum is None or decomposition is not whole:
        spectrum = decomposition.spectrum
    shifted = decomposition.explicit.shifted(scale)
    displacement, error = None, 0.0
    if expansion.gradient is not None and expansion.nll is not None:
        nll, g = shift_frozen(problem, resolved, root, expansion.nll, expansion.gradient)
        z, b = in_prior_units(problem, resolved, g)
        stiffness = shifted.condition
        if stiffness > STIFF:
            stiffness = scale * spectrum.largest
        displacement, error = displacement_of(
            root, shifted, z, b, stiffness,
            nll=nll, left=decomposition.left, budget=decomposition.budget,
            root_error=root_error(decomposition) * math.sqrt(scale / n),
        )  # fmt: skip
        displacement += nll - expansion.nll
    return DescriptionLength(
        fit=expansion.nll,
        displacement=displacement,
        complexity=0.5 * spectrum.logdet_of(shifted),
        counts=SpectralCounts(spectrum, scale),
        tuning_cost=0.5 * resolved.tuned * math.log(n),
        stderr=0.0,
        kind=spectrum.kind,
        observations=n,
        prior=resolved.description,
        complexity_error=0.5 * spectrum.logdet_error(scale),
        displacement_error=error,
    )


def root_error(decomposition: Decomposition) -> float:
    """A bound on the error of the root that is decomposed; 0 in float64.

    Of a model that casts down inside while it runs in float64 only an estimate is known.
    """
    if decomposition.precision <= EPS:
        return 0.0
    values = decomposition.spectrum.values
    # The base is of eigenvalues: 2 s_1 times that of singular values.
    found = 0.5 * values.base / math.sqrt(values.largest) if values.largest else 0.0
    return found + (decomposition.rounding.root if decomposition.rounding else 0.0)


def check_spectrum(spectrum: Spectrum, decomposition: Decomposition) -> None:
    """Raise a PriorError if a spectrum is not that of the decomposed matrix."""
    trace = decomposition.explicit.trace
    same = tuple(spectrum.shape) == tuple(decomposition.factor.shape)
    allowed = max(1e-6, 100 * decomposition.precision) * abs(trace)
    if not same or abs(spectrum.trace - trace) > allowed:
        raise PriorError(
            f"The spectrum (shape {spectrum.shape}, trace {spectrum.trace:.6g}) is not that of "
            f"this Fisher matrix (shape {decomposition.factor.shape}, trace {trace:.6g}).",
            "The length would mix two networks.",
            "Pass lightlike.spectrum(F) of the same F, or none.",
        )


def in_prior_units(problem: Problem, prior: ResolvedPrior, g: Tensor) -> tuple[Tensor, Tensor]:
    """Σ^{-½}(θ̂ − μ), 0 for parameters without variance, and Σ^½ g."""
    sigma = prior.variance.sqrt()
    delta = problem.theta - prior.mean
    return torch.where(sigma > 0, delta / sigma.clamp_min(1e-300), 0.0), sigma * g


def shift_frozen(
    problem: Problem, prior: ResolvedPrior, root: Root, nll: float, g: Tensor
) -> tuple[float, Tensor]:
    """Move parameters of zero variance to their prior mean, to second order.

    A parameter with variance 0 sits at μ under the prior. With e = μ − θ̂ on those parameters,
    NLL becomes NLL + gᵀe + ½ eᵀHe and g becomes g + He.
    """
    frozen = prior.variance == 0
    e = torch.where(frozen, prior.mean - problem.theta, 0.0)
    if not bool(e.any()):
        return nll, g
    if problem.dtype != torch.float64:
        raise PriorError(
            "The prior has parameters without variance away from θ̂, and the dtype is float32.",
            "Moving θ̂ there takes products that float32 does not give to a known error.",
            "Measure with dtype='float64', or give these parameters a variance.",
        )
    plain = Root(problem, None, None, root.sweep)
    he = problem.survey.observations * plain.rmv(plain.mv(e))
    return nll + float(g @ e) + 0.5 * float(e @ he), g + he


def scaled_by(
    prior: ResolvedPrior, decomposition: Decomposition, observations: int
) -> tuple[Root, Decomposition, float]:
    """A Σ^½, what to decompose for it, and c: the eigenvalues of N Σ^½ Î Σ^½ are c times those.

    Equal variances need no other decomposition than that of A itself.
    """
    factor = decomposition.factor
    assert isinstance(factor, Root)
    root = factor.scaled(prior.variance.sqrt())
    if prior.isotropic:
        return root, decomposition, observations * float(prior.variance[0])
    if factor.keeper is not None:
        root.keeper = factor.keeper.under(f"-{digest({'variance': prior.variance})[:16]}")
    mine = Decomposition(root, decomposition.route, decomposition.budget, root.keeper)
    return root, mine, float(observations)
