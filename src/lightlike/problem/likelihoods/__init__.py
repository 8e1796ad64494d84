"""Output distributions p(y | h): negative log-likelihood, whitening factor of the score, sampling.

With natural parameter h and score s = ∂ log p(y | h)/∂h, every likelihood gives a root L(h) of the
score's covariance, E_y[s sᵀ] = L Lᵀ, with exactly rank(E[s sᵀ]) columns (theory: Sun & Nielsen,
arXiv 1905.11027). All functions act on a batch of n observations: outputs are (n, m), roots
(n, m, r) and negative log-likelihoods (n,), in nats and with every constant included.
"""

from __future__ import annotations

from lightlike.errors import choice_error
from lightlike.problem.likelihoods.base import Likelihood
from lightlike.problem.likelihoods.categorical import Categorical
from lightlike.problem.likelihoods.counts import Bernoulli, Poisson
from lightlike.problem.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian

__all__ = [
    "NAMED",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "Poisson",
    "resolve_likelihood",
]

NAMED: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Categorical, Gaussian, Bernoulli, Poisson, HeteroscedasticGaussian)
}


def resolve_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """A likelihood from its name, or the object itself.

    Raises:
        ChoiceError: for an unknown name or another type; it lists the names.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, str) and likelihood in NAMED:
        return NAMED[likelihood]()
    raise choice_error(
        "likelihood", likelihood, [*map(repr, NAMED), "an object from lightlike.likelihoods"]
    )
