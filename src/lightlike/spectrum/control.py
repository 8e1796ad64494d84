"""A control variate for quadratic forms: less noise, the same expectation.

Of forms q_i = z_iᵀ f(F) z_i of random probes the mean is wanted, tr f(F). Of the same probes' forms
k_i = z_iᵀ f(M) z_i with an approximation M the mean κ = tr f(M) is known, so that

    y_i = q_i − α_i (k_i − κ)

has the mean of q_i for any α_i that does not depend on z_i. The best number, Cov(q, k)/Var(k), is
estimated from all probes but the i-th: nothing is biased, and where M is of no use α is near 0.
(Glynn & Szechtman 2002, doi:10.1007/978-3-642-56046-0_3.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.errors import ChoiceError
from lightlike.spectrum.estimate import Estimate

# Fewest probes from which a slope is worth estimating.
FEWEST = 4


def controlled(values: Tensor, controls: Tensor, mean: float) -> Estimate:
    """The mean of some values with the help of controls whose mean is known.

    Args:
        values: q, one a probe, (n,).
        controls: k of the same probes, (n,).
        mean: κ.

    Returns:
        The mean of q_i − α_i (k_i − κ), unbiased, with its standard error.

    Raises:
        ChoiceError: for fewer than four probes, or unequal numbers.
    """
    n = len(values)
    if n < FEWEST or values.shape != controls.shape:
        raise ChoiceError(
            f"{n} values and {len(controls)} controls are given.",
            "The slope between them is estimated for each probe from all the others.",
            f"Give as many controls as values, {FEWEST} or more.",
        )
    return Estimate.of(list(values - slopes(values, controls) * (controls - mean)))


def slopes(values: Tensor, controls: Tensor) -> Tensor:
    """For each i the least-squares slope of values on controls without the i-th, (n,).

    With deviations q, k from the means over all n, leaving one out takes n/(n − 1) q_i k_i off
    Σ q k, and n/(n − 1) k_i² off Σ k².
    """
    n = len(values)
    q, k = values - values.mean(), controls - controls.mean()
    share = n / (n - 1)
    above, below = q @ k - share * q * k, k @ k - share * k.square()
    # Controls that are all one number, up to rounding, say nothing.
    flat = below <= 1e-20 * controls.square().sum()
    return torch.where(flat, 0.0, above / torch.where(flat, 1.0, below))
