"""WAIC and PSIS-LOO: how many nats new labels would take, from draws of the posterior.

Both estimate −N E log p(y_new | x_new, Y). With ℓ_si = log p(y_i | x_i, θ_s),

    WAIC = −Σ_i log mean_s e^{ℓ_si} + Σ_i var_s ℓ_si        (Watanabe 2010, JMLR 11, 3571)
    LOO  = −Σ_i log (Σ_s w_si e^{ℓ_si} / Σ_s w_si)

with w_si the ratios e^{−ℓ_si}, the largest smoothed by a Pareto fit whose shape k tells whether
they can be trusted (Vehtari, Gelman & Gabry 2017, doi:10.1007/s11222-016-9696-4; Vehtari et al.
2024, arXiv 1507.02646).
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import DependencyError, UndefinedError, choice_error
from lightlike.length.arguments import check_fisher
from lightlike.length.codelength import CodeLength, finite
from lightlike.length.observed import require_labels
from lightlike.length.posterior import log_likelihoods
from lightlike.length.priors import Prior
from lightlike.metric.fisher import Fisher

NOTE = (
    "Expected length of as many new labels, not a code for these; holds as far as the draws are "
    "the posterior's."
)
# Pareto shape above which importance weights have no usable mean, however many draws there are.
BAD_K = 0.7
# Posterior variance of one observation's log-likelihood above which WAIC is not to be trusted.
BAD_VARIANCE = 0.4


@dataclass(frozen=True, kw_only=True)
class PredictiveLength(CodeLength):
    """A `CodeLength` whose standard error is that of an expectation over new observations.

    Attributes:
        pointwise: What each observation adds, (N,).
        effective_parameters: Total less −Σ_i log mean_s p(y_i | θ_s), in nats.
        monte_carlo_stderr: The part of the total's error that more draws would remove.
        pareto_k: Pareto shape of each observation's weights, (N,); None for WAIC.
    """

    pointwise: Tensor
    effective_parameters: float
    monte_carlo_stderr: float
    pareto_k: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python types, fit for JSON."""
        return super().to_dict() | {
            "pointwise": self.pointwise.tolist(),
            "effective_parameters": self.effective_parameters,
            "monte_carlo_stderr": self.monte_carlo_stderr,
            "pareto_k": None if self.pareto_k is None else [*map(finite, self.pareto_k.tolist())],
        }

    def _times(self, factor: float, **changes: Any) -> Self:
        return replace(
            super()._times(factor, **changes),
            pointwise=self.pointwise * factor,
            monte_carlo_stderr=self.monte_carlo_stderr * factor,
        )


def waic(
    F: Fisher, *, prior: Prior | None = None, draws: int | Tensor = 1000, seed: int = 0,
    centre: str = "point", linearised: bool = False,
) -> PredictiveLength:  # fmt: skip
    """WAIC in nats, on the scale of a code length.

    Args:
        F: From `lightlike.fisher`, with labels.
        prior: Of Laplace draws; N(0, I) unless given.
        draws: How many draws from N(θ̂, (N Î + Σ⁻¹)⁻¹), or draws of your own, (n_draws, D).
        seed: Of Laplace draws.
        centre: "point" for θ̂, or "expansion"; see `lightlike.length.posterior`.
        linearised: Take outputs to be linear in θ around θ̂. Without it, Laplace draws of a network
            often lie where it predicts nothing well, and the result says so by its warnings.

    Raises:
        UndefinedError: without labels.
        ParameterError, ChoiceError, PriorError, CapacityError, ModelError: see `log_likelihoods`.
    """
    check_fisher(F)
    fit = require_labels(F.problem, "WAIC")
    found = log_likelihoods(
        F, prior=prior, draws=draws, seed=seed, centre=centre, linearised=linearised
    )
    return waic_of(found, fit)


def loo(
    F: Fisher, *, prior: Prior | None = None, draws: int | Tensor = 1000, seed: int = 0,
    centre: str = "point", linearised: bool = False, relative_efficiency: float = 1.0,
) -> PredictiveLength:  # fmt: skip
    """Leave-one-out cross-validation by Pareto-smoothed importance sampling, in nats.

    The smoothing is that of arviz-stats: `pip install 'lightlike[bayes]'`.

    Args:
        F: From `lightlike.fisher`, with labels.
        prior: Of Laplace draws; N(0, I) unless given.
        draws: How many draws from N(θ̂, (N Î + Σ⁻¹)⁻¹), or draws of your own, (n_draws, D).
        seed: Of Laplace draws.
        centre: "point" for θ̂, or "expansion"; see `lightlike.length.posterior`.
        linearised: Take outputs to be linear in θ around θ̂. Without it, Laplace draws of a network
            often lie where it predicts nothing well, and the result says so by its warnings.
        relative_efficiency: Effective over actual draws; below 1 for a Markov chain.

    Raises:
        DependencyError: if arviz-stats is not installed.
        UndefinedError: without labels.
        ParameterError, ChoiceError, PriorError, CapacityError, ModelError: see `log_likelihoods`.
    """
    check_fisher(F)
    smoothing()
    fit = require_labels(F.problem, "LOO")
    found = log_likelihoods(
        F, prior=prior, draws=draws, seed=seed, centre=centre, linearised=linearised
    )
    return loo_of(found, fit, relative_efficiency)


def waic_of(log_likelihood: Tensor, fit: float | None = None) -> PredictiveLength:
    """WAIC from log-likelihoods (n_draws, N)."""
    count = len(log_likelihood)
    mean = torch.logsumexp(log_likelihood, 0) - math.log(count)
    variance = log_likelihood.var(0)
    centred = log_likelihood - log_likelihood.mean(0)
    # What each draw changes in the total, to first order.
    influence = ((log_likelihood - mean).exp() - 1).sum(1) / count
    influence = influence - (centred.square() - variance).sum(1) / (count - 1)
    wild = int((variance > BAD_VARIANCE).sum())
    warnings = (
        f"The log-likelihood of {wild} observations varies by more than {BAD_VARIANCE} over the "
        "posterior; WAIC is not reliable there, use LOO.",
    )
    return _result(
        "waic", variance - mean, float(variance.sum()), influence, fit, warnings if wild else ()
    )


def loo_of(
    log_likelihood: Tensor, fit: float | None = None, relative_efficiency: float = 1.0
) -> PredictiveLength:
    """PSIS-LOO from log-likelihoods (n_draws, N).

    Raises:
        DependencyError: if arviz-stats is not installed.
        ChoiceError: if the relative efficiency is not positive.
    """
    if not isinstance(relative_efficiency, Real) or not 0 < relative_efficiency < math.inf:
        raise choice_error("relative_efficiency", relative_efficiency, ["a number above 0"])
    count = len(log_likelihood)
    log_weights, k = _smoothed(log_likelihood, relative_efficiency)
    if not bool(torch.isfinite(log_weights + log_likelihood).any(0).all()):
        raise UndefinedError(
            "The importance weights of some observations are not finite.",
            "Likelihoods at the draws differ by more than numbers can hold.",
            "Check that the draws are the posterior's, or give a narrower prior.",
        )
    mean = torch.logsumexp(log_weights + log_likelihood, 0)
    full = torch.logsumexp(log_likelihood, 0) - math.log(count)
    influence = (log_weights.exp() * ((log_likelihood - mean).exp() - 1)).sum(1)
    influence = influence / math.sqrt(relative_efficiency)
    limit = min(BAD_K, 1 - 1 / math.log10(count)) if count > 1 else BAD_K
    bad = int((~(k <= limit)).sum())
    warnings = (
        f"Pareto k exceeds {limit:.2f} for {bad} of {len(k)} observations (largest "
        f"{float(k.max()):.2f}); their share of LOO, and its standard error, are not reliable. "
        "Take more draws, or leave these observations out and train again.",
    )
    return _result(
        "loo", -mean, float((full - mean).sum()), influence, fit, warnings if bad else (), k
    )


def _smoothed(log_likelihood: Tensor, relative_efficiency: float) -> tuple[Tensor, Tensor]:
    """Normalised log weights (n_draws, N) of leaving each observation out, and their k (N,).

    Raises:
        UndefinedError: if there are too few draws to fit a tail to.
    """
    smooth = smoothing()
    log_weights = torch.full_like(log_likelihood, -math.log(len(log_likelihood)))
    k = torch.full_like(log_likelihood[0], -torch.inf)
    # An observation that all draws expect alike has equal weights, and no tail.
    spread = log_likelihood.amax(0) - log_likelihood.amin(0)
    varies = spread > 1e-12 * log_likelihood.abs().amax(0).clamp_min(1.0)
    if bool(varies.any()):
        # It takes log-likelihoods and turns their sign itself.
        given = log_likelihood[:, varies].T.contiguous().numpy()
        try:
            with np.errstate(all="ignore"):
                # Ratios that span more than float64 have no fit: k is then infinite or NaN.
                found, shape = smooth(given, r_eff=relative_efficiency, axis=-1)
        except (ValueError, IndexError) as error:
            raise UndefinedError(
                f"No Pareto tail can be fitted to {len(log_likelihood)} draws ({error}).",
                "Without it nothing says whether the importance weights can be trusted.",
                "Take more draws, 25 or more.",
            ) from error
        weights = torch.as_tensor(found).T
        log_weights[:, varies] = weights - torch.logsumexp(weights, 0)
        fitted = torch.as_tensor(shape)
        k[varies] = torch.where(torch.isnan(fitted), torch.inf, fitted)
    return log_weights, k


def smoothing() -> Any:
    """Pareto smoothing of importance weights.

    Raises:
        DependencyError: if arviz-stats is not installed.
    """
    try:
        return importlib.import_module("arviz_stats.base").array_stats.psislw
    except ImportError as error:
        raise DependencyError(
            "PSIS-LOO needs arviz-stats, which is not installed.",
            "Its importance weights are smoothed by that package.",
            "Run: pip install 'lightlike[bayes]' (or: pip install arviz-stats).",
        ) from error


def _result(
    name: str, pointwise: Tensor, effective: float, influence: Tensor, fit: float | None,
    warnings: tuple[str, ...], k: Tensor | None = None,
) -> PredictiveLength:  # fmt: skip
    n = len(pointwise)
    return PredictiveLength(
        name=name,
        total=math.fsum(pointwise.tolist()),
        fit=fit,
        stderr=math.sqrt(n * float(pointwise.var())) if n > 1 else math.inf,
        kind="estimated",
        observations=n,
        note=NOTE,
        warnings=warnings,
        record={"draws": len(influence), "effective_parameters": effective},
        pointwise=pointwise,
        effective_parameters=effective,
        monte_carlo_stderr=float(influence.square().sum().sqrt()),
        pareto_k=k,
    )
