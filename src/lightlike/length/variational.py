"""The variational, or bits-back, length: E_q[NLL] + KL(q ‖ p).

What a posterior q pays as a code (Hinton & van Camp 1993, doi:10.1145/168304.168306; bits-back).
It is −log p(Y | X) + KL(q ‖ posterior): never less than the exact length, and equal to it if q is
the posterior, as the Laplace q of a linear model with Gaussian noise is.

The expectation is over antithetic pairs m ± y. In each pair the average of the NLL is compared with
½|By|², whose expectation ½ tr H C is known, by the regression coefficient of the other half of the
pairs: where the loss is quadratic nothing is left to chance. What the control leaves is of fourth
order in the draws, with tails so heavy that few pairs have not seen them: see `uncertainty`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lightlike.errors import DataError, choice_error
from lightlike.length.arguments import check_fisher
from lightlike.length.description import DescriptionLength
from lightlike.length.draws import check_draws, check_precision
from lightlike.length.eigenbasis import eigenbasis
from lightlike.length.evidence import settle
from lightlike.length.gaussian import (
    expand,
    in_prior_units,
    razor_under,
    scaled_by,
    shift_frozen,
)
from lightlike.length.posteriors import Laplace, MeanField, Posterior, Screen, squared_columns
from lightlike.length.priors import Prior, ResolvedPrior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.numbers import check_seed

POSTERIORS = ("laplace", "mean_field", "screen")
# Bytes of deviations at a time.
CHUNK = 64 << 20
# Fewest draws, and what widens the error of n pairs, 1 + (TAIL/n)^POWER: see `uncertainty`.
FEWEST_DRAWS = 16
TAIL, POWER = 25.0, 1.75


def variational(
    F: Fisher,
    *,
    prior: Prior | None = None,
    posterior: str = "laplace",
    directions: int | None = None,
    draws: int = 100,
    seed: int = 0,
) -> DescriptionLength:
    """E_q[NLL] + KL(q ‖ p) for a Gaussian q, with its standard error.

    Of the result, `fit` is E_q[NLL], `displacement` what the mean of q costs, ½|m − μ|²_{Σ⁻¹}, and
    `complexity` what its width does, ½ [tr Σ⁻¹C − D − log det Σ⁻¹C]; the last two are exact.

    Args:
        F: From `lightlike.fisher`, with labels, in float64.
        prior: p, from `lightlike.priors`; N(0, I) unless given.
        posterior: q. All have as mean the minimum of the quadratic loss and its prior at θ̂.
            "laplace": covariance C = (N Î + Σ⁻¹)⁻¹. "mean_field": independent parameters with
            variances 1/(N Î_jj + 1/σ_j²), the best ones for the quadratic loss. "screen": the
            Laplace posterior along the best determined directions in prior units, the prior along
            all others.
        directions: For "screen", how many; those with N λ_k > 1, which the data determine better
            than the prior, unless given.
        draws: Evaluations of the model's loss, an even number, 16 or more. The
            standard error allows for tails that few draws have not seen; from 100 on hardly.
        seed: Of the draws.

    Raises:
        ChoiceError: for an unknown posterior, a prior or seed that is none, or a number of draws
            or directions that is not one.
        DataError: without labels.
        PriorError: if the prior does not fit.
        ModelError: if the model's loss is not finite at a draw.
    """
    check_fisher(F)
    if posterior not in POSTERIORS:
        raise choice_error("posterior", posterior, [*map(repr, POSTERIORS)])
    prior = resolve_prior(prior)
    check_seed(seed)
    check_draws(draws, fewest=FEWEST_DRAWS, even=True)
    if directions is not None:
        check_draws(directions, fewest=1, option="directions")
    problem = F.problem
    check_precision(problem)
    decomposition, expansion = F.decomposition(), expand(problem)
    if expansion.gradient is None or expansion.nll is None:
        raise DataError(
            "The variational length needs labels.",
            "It is the expected length of a code for them.",
            "Pass labels; the complexity alone is in lightlike.description_length(F).",
        )
    resolved = settle(problem, prior, decomposition, expansion.gradient)
    razor = razor_under(problem, resolved, decomposition, expansion).settled()
    root, scaled, scale = scaled_by(resolved, decomposition, problem.survey.observations)
    _, g = shift_frozen(problem, resolved, root, expansion.nll, expansion.gradient)
    z, b = in_prior_units(problem, resolved, g)
    shifted = scaled.explicit.shifted(scale)
    logdet, gamma = 2.0 * razor.complexity, razor.effective_dimension
    q: Posterior = Laplace(root, shifted, scaled.left, logdet, gamma, z, b)
    if posterior == "mean_field":
        q = MeanField(problem.survey.observations * squared_columns(root), q.mean)
    elif posterior == "screen":
        n = problem.survey.observations
        basis = eigenbasis(scaled, root, scale / n)
        count = int((n * basis.values > 1.0).sum()) if directions is None else directions
        q = Screen(basis.top(count), scale * scaled.explicit.trace, q.mean)
    fit, stderr = expected_loss(F, resolved, root, q, draws // 2, seed)
    return replace(
        razor,
        fit=fit,
        displacement=0.5 * float(q.mean.square().sum()),
        complexity=q.width,
        stderr=stderr,
        kind="estimated",
        complexity_error=0.0,
        displacement_error=0.0,
        prior={**razor.prior, "posterior": posterior, "draws": draws, "seed": seed},
        name="variational",
        effective_draws=draws / 2,
        validity="In expectation never below the exact length −log p(Y | X), whatever the model.",
    )


def expected_loss(
    F: Fisher, prior: ResolvedPrior, root: Root, q: Posterior, pairs: int, seed: int
) -> tuple[float, float]:
    """E_q[NLL] and its standard error.

    Args:
        F: At any point.
        prior: μ and σ², the units of q.
        root: A Σ^½.
        q: The posterior.
        pairs: Antithetic pairs, 8 or more.
        seed: Of the draws.
    """
    problem, n = F.problem, F.problem.survey.observations
    sigma = prior.variance.sqrt()
    centre = prior.mean + sigma * q.mean
    generator = torch.Generator().manual_seed(int(seed))
    step = max(1, min(pairs, CHUNK // (8 * len(sigma))))
    losses: list[float] = []
    squares: list[Tensor] = []
    track = iter(problem.progress.track(range(pairs), "Draws from the posterior", pairs))
    while len(losses) < pairs:
        y = q.deviations(min(step, pairs - len(losses)), generator)
        squares.append(0.5 * n * root.mv(y).square().sum(0))
        for column in (sigma[:, None] * y).T:
            next(track)
            both = (problem.at(centre + sign * column).survey.nll for sign in (1.0, -1.0))
            losses.append(0.5 * sum(float(nll.sum()) for nll in both if nll is not None))
    loss = torch.tensor(losses, dtype=torch.float64)
    control, expected = torch.cat(squares).cpu(), 0.5 * q.spread
    return regressed(loss, control, expected)[0], uncertainty(loss, control, expected)


def regressed(values: Tensor, control: Tensor, expected: float) -> tuple[float, float]:
    """The mean of values with a control whose expectation is known, and its standard error.

    Each half takes the regression coefficient of the other, so that the mean stays unbiased.

    Args:
        values: (n,), n ≥ 4.
        control: (n,).
        expected: E of one control.
    """
    half = len(values) // 2
    parts = (slice(None, half), slice(half, None))
    residuals = []
    for mine, other in (parts, parts[::-1]):
        centred = control[other] - control[other].mean()
        square = float(centred @ centred)
        slope = float(centred @ values[other]) / square if square > 0 else 0.0
        residuals.append(values[mine] - slope * (control[mine] - expected))
    variance = sum(len(r) * float(r.var()) for r in residuals) / len(values) ** 2
    return float(torch.cat(residuals).mean()), math.sqrt(variance)


def uncertainty(values: Tensor, control: Tensor, expected: float) -> float:
    """A standard error of the mean by `regressed` that covers although its residuals have tails.

    The regression fits the rare large draws best, as they weigh most, and hides in its residuals
    how little is known of them. Its own error is therefore only a lower end: residuals with the
    coefficient fixed at 1, its value for a quadratic loss, or with none (at 0) are not fitted to
    anything, and the smaller of these two is taken if it is larger. The factor 1 + (25/n)^1.75
    stands in Student's place: with it |mean − truth| is below two such errors in 95 % of samples
    of n = 8 to 100 pairs if residuals are the fourth power of one normal variable, the heaviest
    tail that terms of fourth order have. Residuals that are 0 keep the error 0.

    Args:
        values: (n,), n ≥ 4.
        control: (n,).
        expected: E of one control.
    """
    n = len(values)
    fixed = min(float((values - slope * control).std()) for slope in (0.0, 1.0)) / math.sqrt(n)
    widened: float = 1.0 + (TAIL / n) ** POWER
    return widened * max(regressed(values, control, expected)[1], fixed)
