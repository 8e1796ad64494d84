"""Draws from the Laplace posterior N(θ̂, (N Î + Σ⁻¹)⁻¹), and what the labels' likelihood is there.

In prior units, B = A Σ^½, the covariance is M = (I + N BᵀB)⁻¹. With standard normal ξ (D,) and
η (K,), M(ξ + √N Bᵀη) has covariance M (I + N BᵀB) M = M; by Woodbury's identity it is

    ξ − √N Bᵀ (I + N B Bᵀ)⁻¹ (√N B ξ − η):

perturb and solve in row space, K × K and two products with B, without a D × D matrix (Papandreou &
Yuille 2010, NIPS 23; Antorán et al. 2023, arXiv 2210.04994).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightlike.errors import CapacityError, ParameterError, choice_error
from lightlike.length.evidence import settle
from lightlike.length.gaussian import Expansion, expand, in_prior_units, scaled_by
from lightlike.length.observed import require_labels
from lightlike.length.priors import Prior, resolve_prior
from lightlike.length.roots import inverse_roots
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.numbers import check_seed, is_whole

# Draws made together; a part of what the seed means.
TOGETHER = 32
# N λ_1 in prior units above which the solution is rounding.
STIFF = 1e12
CENTRES = ("point", "expansion")


def laplace_draws(
    F: Fisher, *, prior: Prior | None = None, draws: int = 1000, seed: int = 0,
    centre: str = "point",
) -> Iterator[Tensor]:  # fmt: skip
    """Independent draws from the Laplace posterior, up to 32 at a time: (≤ 32, D).

    Args:
        F: From `lightlike.fisher`.
        prior: From `lightlike.priors`; N(0, I) unless given. What is to be fitted by the evidence
            is fitted first.
        draws: How many, 2 or more.
        seed: Of a generator of their own.
        centre: "point": θ̂, as it stands. "expansion": the maximum of the quadratic expansion of
            the posterior at θ̂, one Gauss–Newton step away; it needs labels, and makes the draws
            exact for a linear model with Gaussian noise, wherever θ̂ is.

    Raises:
        ChoiceError: if an option is not one.
        PriorError: if the prior does not fit, or its evidence has no maximum.
        CapacityError: if the prior is too wide for float64, or no exact route fits.
    """
    if not is_whole(draws) or draws < 2:
        raise choice_error("draws", draws, ["a whole number, 2 or more", "a tensor (n, D)"])
    check_seed(seed)
    if centre not in CENTRES:
        raise choice_error("centre", centre, [*map(repr, CENTRES)])
    problem = F.problem.reference
    if problem is not F.problem:
        F = Fisher(Root(problem))
    n, given = problem.survey.observations, resolve_prior(prior)
    # A gradient is for what is fitted, and for the step to the expansion's maximum.
    if centre == "expansion":
        require_labels(problem, "maximum of the posterior's expansion")
    wanted = given.by_evidence or centre == "expansion"
    expansion = expand(problem) if wanted else Expansion(None, None)
    resolved = settle(problem, given, F.decomposition(), expansion.gradient)
    sigma = resolved.variance.sqrt()
    root, decomposition, scale = scaled_by(resolved, F.decomposition(), n)
    shifted = decomposition.explicit.shifted(scale)
    if shifted.condition > STIFF:
        raise CapacityError(
            f"N λ_1 in units of the prior is {shifted.condition:.1g}.",
            "Draws along the best determined directions would be rounding.",
            "Give a smaller prior variance.",
        )
    K, D = root.shape

    def shrink(v: Tensor) -> Tensor:
        """M v for a block (D, c)."""
        if decomposition.left:
            return v - n * root.rmv(shifted.solve(root.mv(v)))
        return shifted.solve(v)

    middle = torch.where(resolved.variance > 0, problem.theta, resolved.mean)
    if centre == "expansion":
        assert expansion.gradient is not None
        z, b = in_prior_units(problem, resolved, expansion.gradient)
        middle = middle - sigma * shrink((b + z)[:, None])[:, 0]
    generator = torch.Generator().manual_seed(int(seed))
    step = math.sqrt(n)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.to(problem.theta.device)

    for start in range(0, int(draws), TOGETHER):
        count = min(TOGETHER, int(draws) - start)
        xi, eta = normal(D, count), normal(K, count)
        if decomposition.left:
            x = xi - step * root.rmv(shifted.solve(step * root.mv(xi) - eta))
        else:
            x = shifted.solve(xi + step * root.rmv(eta))
        yield middle + (sigma[:, None] * x).T


def log_likelihoods(
    F: Fisher, *, prior: Prior | None = None, draws: int | Tensor = 1000, seed: int = 0,
    centre: str = "point", linearised: bool = False,
) -> Tensor:  # fmt: skip
    """Log p(y_i | x_i, θ_s) of every observation at every draw, (n_draws, N).

    Args:
        F: From `lightlike.fisher`, with labels.
        prior: Of the Laplace draws.
        draws: How many Laplace draws, or draws of your own, (n_draws, D), in the order of
            `F.problem.selection`.
        seed: Of the Laplace draws.
        centre: Of the Laplace draws; see `laplace_draws`.
        linearised: Take outputs at a draw to be h(θ̂) + J (θ_s − θ̂), the model whose posterior the
            Laplace draws are exactly (up to the likelihood's curvature): a network itself is often
            far from its linearisation there (Immer et al. 2021, arXiv 2008.08400).

    Raises:
        UndefinedError: without labels.
        ParameterError: if draws have another shape.
        ModelError: if the model's output is not finite at a draw.
        ChoiceError, PriorError, CapacityError: as `laplace_draws`.
    """
    problem = F.problem.reference
    require_labels(problem, "likelihood at draws")
    if isinstance(draws, Tensor):
        shape = tuple(draws.shape)
        if draws.ndim != 2 or shape[1] != problem.parameters or shape[0] < 2:
            raise ParameterError(
                f"The draws have shape {shape}; two or more of {problem.parameters:,} parameters "
                "are needed.",
                "Each row is one point of parameter space.",
                f"Pass a tensor (n_draws, {problem.parameters}).",
            )
        chunks: Iterator[Tensor] = iter([draws.detach().to(problem.theta)])
    else:
        chunks = laplace_draws(F, prior=prior, draws=draws, seed=seed, centre=centre)
    rows: list[Tensor] = []
    for chunk in chunks:
        if linearised:
            rows.extend(_linearised(F, chunk))
            continue
        for theta in chunk:
            nll = problem.at(theta).survey.nll
            assert nll is not None
            rows.append(-nll.double().cpu())
    return torch.stack(rows)


def _linearised(F: Fisher, thetas: Tensor) -> Tensor:
    """Log-likelihoods (c, N) with outputs linear in θ, at points (c, D).

    J_i δ comes from √N A_i δ = L_iᵀJ_i δ. What L_iᵀ does not see, a shift of all logits, has no
    likelihood.
    """
    problem = F.problem.reference
    root = F.root if problem is F.problem else Root(problem)
    n, rank = problem.survey.observations, problem.survey.rank
    whitened = math.sqrt(n) * root.mv((thetas - problem.theta).T.contiguous())
    whitened = whitened.reshape(n, rank, len(thetas))
    start, found = 0, []
    for _, outputs in problem.sweep("Linearised outputs"):
        assert outputs.targets is not None
        h, y, L = outputs.h.detach(), outputs.targets, problem.score_roots(outputs)
        if outputs.observed is not None:
            h, y, L = h[outputs.observed], y[outputs.observed], L[outputs.observed]
        part = whitened[start : start + len(h)]
        start += len(h)
        shift = inverse_roots(L).mT @ part
        nll = [problem.likelihood.nll(h + shift[..., c], y) for c in range(len(thetas))]
        found.append(-torch.stack(nll).double().cpu())
    return torch.cat(found, 1)
