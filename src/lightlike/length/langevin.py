"""Stochastic-gradient Langevin dynamics on batches: cheap for large data, and biased.

    θ ← θ − ½ ε s² ∇Û(θ) + √ε s z,   Û = β (n/b-weighted loss of a random batch) + ½ γ |θ − θ̂|²

(Welling & Teh 2011), with unit s of each coordinate, by the library `posteriors`. Without a
Metropolis step the stationary distribution is off in the order of ε, and by the noise of the
gradient: no number of draws removes that. A batch is one of those the data come in.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import ModelError
from lightlike.length.potential import Potential
from lightlike.length.sampling import Chains
from lightlike.progress import Progress

STEP_SIZE = 0.1


def walk(
    potential: Potential,
    centre: Tensor,
    start: Tensor,
    scale: Tensor,
    *,
    beta: float,
    gamma: float,
    draws: int,
    burn_in: int,
    step_size: float | None,
    seed: int,
    progress: Progress,
) -> Chains:
    """Run chains (C, D); to be called inside `isolated`, as the library uses the global generator.

    What is recorded of a draw is the loss of its batch less that at θ̂, times the number of batches:
    an unbiased estimate of n L_n(θ) − n L_n(θ̂), as the batch does not depend on θ.

    Raises:
        ModelError: if the library is not there.
    """
    sgld = _library()
    count, (nll, _) = len(potential.batches), potential(centre[None])
    potential(start)  # decides whether all chains go through the model in one pass
    with torch.no_grad():
        home = [potential.losses(batch, centre[None])[0] for batch in potential.batches]
    size = step_size or STEP_SIZE

    def log_posterior(q: Tensor, index: int) -> tuple[Tensor, Tensor]:
        away = scale * q
        losses = count * (potential.losses(potential.batches[index], centre + away) - home[index])
        energy = beta * losses.sum() + 0.5 * gamma * away.square().sum()
        return -energy, losses

    torch.manual_seed(seed)
    walker = sgld.build(log_posterior, lr=0.5 * size)
    state = walker.init((start - centre) / scale)
    records: list[Tensor] = []
    for step in progress.track(range(burn_in + draws), "Sampling", burn_in + draws):
        state, losses = walker.update(state, int(torch.randint(count, ())))
        if step >= burn_in:
            records.append(losses.detach())
    last = centre + scale * state.params.detach()
    lowest = float((potential(last)[0] - nll).min())
    none = torch.zeros(0, dtype=torch.float64)
    return Chains(torch.stack(records, 1), last, none, none.long(), size, scale, lowest)


def _library() -> Any:
    with warnings.catch_warnings():
        # Of a dependency, on import; nothing that a caller could act on.
        warnings.simplefilter("ignore")
        try:
            from posteriors.sgmcmc import sgld  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise ModelError(
                "sampler='sgld' needs the library posteriors, which is not installed.",
                "The other samplers need nothing more.",
                "pip install 'lightlike[bayes]', or sampler='hmc' or 'mala'.",
            ) from error
    return sgld
