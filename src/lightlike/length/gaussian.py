"""The Gaussian razor, correct at any point θ̂: maximum likelihood, MAP or neither.

With prior N(μ, Σ), δ = θ̂ − μ, H = N Î(θ̂) and g = ∇NLL_total(θ̂), expanding the log-likelihood to
second order at θ̂ and integrating it exactly against the prior gives

    L = NLL_total + ½ δᵀΣ⁻¹δ − ½ rᵀ(H + Σ⁻¹)⁻¹r + ½ log det(I + Σ^½ H Σ^½),   r = g + Σ⁻¹δ,

which is exact for a linear model with Gaussian noise (arXiv 1905.11027; MacKay 1992,
doi:10.1162/neco.1992.4.3.415). All of it is done in prior units z = Σ^{-½}(θ − μ), where the root is
A Σ^½ and the prior N(0, I).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightlike.errors import PriorError
from lightlike.length.description import DescriptionLength
from lightlike.length.priors import Isotropic, Prior, ResolvedPrior
from lightlike.metric.jacobian import gradient
from lightlike.metric.root import Root
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.spectrum import Spectrum

# Search range of log σ² around 0 in empirical Bayes: beyond it a variance is no longer a number
# that float64 arithmetic of the evidence can tell from its limits.
LOG_RANGE = 30.0


@dataclass(frozen=True)
class Expansion:
    """NLL_total and its gradient at the point of expansion, None without labels."""

    nll: float | None
    gradient: Tensor | None


def expand(problem: Problem) -> Expansion:
    """Evaluate NLL_total(θ̂) and ∇NLL_total(θ̂)."""
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
    resolved = prior.resolve(problem)
    if isinstance(prior, Isotropic):
        if prior.by_evidence:
            resolved = fit_variance(problem, resolved, decomposition, expansion)
        scale = float(resolved.variance[0])
        spectrum = spectrum or decomposition.spectrum
        eigenvalues = spectrum.eigenvalues * scale
        matrix, root = decomposition.matrix * scale, _scaled(problem, decomposition, resolved)
        left = decomposition.left
    else:
        root = _scaled(problem, decomposition, resolved)
        own = Decomposition(root, decomposition.route, decomposition.budget)
        spectrum, matrix, left = own.spectrum, own.matrix, own.left
        eigenvalues = spectrum.eigenvalues
    displacement, nll = None, None
    if expansion.gradient is not None and expansion.nll is not None:
        nll, g = shift_frozen(problem, resolved, root, expansion.nll, expansion.gradient)
        displacement = displaced(problem, resolved, root, matrix, g, left=left)
        displacement += nll - expansion.nll
        nll = expansion.nll
    return assemble(problem, resolved, spectrum, eigenvalues, nll, displacement)


def assemble(
    problem: Problem,
    prior: ResolvedPrior,
    spectrum: Spectrum,
    eigenvalues: Tensor,
    nll: float | None,
    displacement: float | None,
) -> DescriptionLength:
    """Put the terms together; eigenvalues are those in prior units."""
    n = problem.survey.observations
    complexity = 0.5 * float(torch.log1p(n * eigenvalues).sum())
    dimension_term = 0.5 * len(eigenvalues) * math.log(n)
    return DescriptionLength(
        fit=nll,
        displacement=displacement,
        dimension_term=dimension_term,
        spectrum_term=complexity - dimension_term,
        effective_dimension=float((n * eigenvalues / (1 + n * eigenvalues)).sum()),
        tuning_cost=0.5 * prior.tuned * math.log(n),
        stderr=0.0,
        kind=spectrum.kind,
        observations=n,
        prior=prior.description,
    )


def displaced(
    problem: Problem, prior: ResolvedPrior, root: Root, matrix: Tensor, g: Tensor, *, left: bool
) -> float:
    """½ δᵀΣ⁻¹δ − ½ rᵀ(H + Σ⁻¹)⁻¹r over the parameters with a positive variance."""
    sigma = prior.variance.sqrt()
    delta = problem.theta - prior.mean
    z = torch.where(sigma > 0, delta / sigma.clamp_min(1e-300), 0.0)
    r = sigma * g + z
    quadratic = solve_quadratic(root, matrix, r, problem.survey.observations, left=left)
    return 0.5 * float(z @ z) - 0.5 * quadratic


def solve_quadratic(root: Root, matrix: Tensor, r: Tensor, n: int, *, left: bool) -> float:
    """rᵀ (I + N Aᵀ A)⁻¹ r from an explicit A Aᵀ (left) or Aᵀ A, refined against A itself.

    With x an approximate solution and e = r − (I + N Aᵀ A) x, the value is rᵀx + xᵀe up to
    eᵀ(…)⁻¹e ≤ |e|²; e is driven down by iterative refinement.
    """
    system = n * matrix
    system.diagonal().add_(1.0)
    cholesky = torch.linalg.cholesky(system)

    def solve(v: Tensor) -> Tensor:
        if not left:
            return torch.cholesky_solve(v[:, None], cholesky)[:, 0]
        inner = torch.cholesky_solve(root.mv(v)[:, None], cholesky)[:, 0]
        return v - n * root.rmv(inner)

    def residual(x: Tensor) -> Tensor:
        return r - x - n * root.rmv(root.mv(x))

    x = solve(r)
    e = residual(x)
    for _ in range(3):
        value = float(r @ x + x @ e)
        if float(e @ e) <= 1e-15 * abs(value):
            break
        better = x + solve(e)
        remainder = residual(better)
        if float(remainder @ remainder) >= float(e @ e):
            break
        x, e = better, remainder
    return float(r @ x + x @ e)


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
    plain = Root(problem, None, None, root.sweep)
    he = problem.survey.observations * plain.rmv(plain.mv(e))
    return nll + float(g @ e) + 0.5 * float(e @ he), g + he


def fit_variance(
    problem: Problem, prior: ResolvedPrior, decomposition: Decomposition, expansion: Expansion
) -> ResolvedPrior:
    """The σ² that minimises the razor of N(μ, σ² I): empirical Bayes for one number.

    Where it is exact (linear Gaussian models) the minimum is MacKay's fixed point σ² = |m − μ|²/γ
    with m the posterior mean (doi:10.1162/neco.1992.4.3.415).

    Raises:
        PriorError: without labels, or if the razor falls all the way to σ² → 0 or ∞.
    """
    from scipy.optimize import minimize_scalar

    if expansion.gradient is None:
        raise PriorError(
            "Isotropic('evidence') needs labels.",
            "The evidence is the probability of the labels.",
            "Pass labels, or give the variance as a number.",
        )
    razor = evidence_curve(problem, prior, decomposition, expansion.gradient)
    grid = torch.linspace(-LOG_RANGE, LOG_RANGE, 121, dtype=torch.float64)
    values = [razor(float(t)) for t in grid]
    best = min(range(len(values)), key=values.__getitem__)
    if best in (0, len(values) - 1):
        towards = "0" if best == 0 else "infinity"
        raise PriorError(
            f"The evidence has no maximum: it grows as the prior variance goes to {towards}.",
            "At this point the labels do not determine how far θ lies from the prior mean.",
            "Give the variance as a number, or another prior mean.",
        )
    found = minimize_scalar(
        razor,
        bounds=(float(grid[best - 1]), float(grid[best + 1])),
        method="bounded",
        options={"xatol": 1e-10},
    )
    variance = math.exp(float(found.x))
    return replace(
        prior,
        variance=torch.full_like(prior.variance, variance),
        tuned=1,
        description={**prior.description, "variance": variance, "fitted_by": "evidence"},
    )


def evidence_curve(  # type: ignore[no-untyped-def]
    problem: Problem, prior: ResolvedPrior, decomposition: Decomposition, g: Tensor
):
    """The razor less NLL as a function of log σ², in the eigenbasis of Aᵀ A.

    g lies in the row space of A because scores lie in the range of their covariance; what rounding
    puts elsewhere is left out.
    """
    n = problem.survey.observations
    delta = problem.theta - prior.mean
    values, vectors = decomposition.vectors
    keep = values > decomposition.first.floor
    values, vectors = values[keep], vectors[:, keep]
    both = torch.stack([g, delta], 1)
    if decomposition.left:
        both = (vectors.T @ decomposition.factor.mv(both)) / values.sqrt()[:, None]
    else:
        both = vectors.T @ both
    p, q = both[:, 0], both[:, 1]
    rest = max(float(delta @ delta) - float(q @ q), 0.0)

    def razor(log_variance: float) -> float:
        tau = math.exp(-log_variance)
        quadratic = float(((p + tau * q).square() / (n * values + tau)).sum()) + tau * rest
        squares = tau * (float(q @ q) + rest)
        return 0.5 * (squares - quadratic + float(torch.log1p(n * values / tau).sum()))

    return razor


def _scaled(problem: Problem, decomposition: Decomposition, prior: ResolvedPrior) -> Root:
    factor = decomposition.factor
    assert isinstance(factor, Root)
    return factor.scaled(prior.variance.sqrt())
