"""A control variate for quadratic forms: less noise, the same expectation.

Of forms q_i = z_iᵀ f(F) z_i of random probes the mean is wanted, tr f(F). Of the same probes' forms
k_i = z_iᵀ f(M) z_i with an approximation M the mean κ = tr f(M) is known, so that

    y_i = q_i − α_i (k_i − κ)

has the mean of q_i for any α_i that does not depend on z_i. The best number, Cov(q, k)/Var(k), is
estimated from all probes but the i-th: nothing is biased, and where M is of no use α is near 0.
(Glynn & Szechtman 2002, doi:10.1007/978-3-642-56046-0_3.)

With M = U diag(s) Uᵀ and probes uniform on the sphere of radius √(n − k) orthogonal to Q (n, k),

    k_i = Σ_j f(s_j) (Uᵀz_i)_j²,      κ = Σ_j f(s_j) (1 − Σ_l (Uᵀq_l)_j²),

so that the squares, once taken, serve every f. What M leaves is f(F) off the diagonal in the basis
U. Of log det(I + N Î) of small networks on digits, 10 eigenvectors taken out, EKFAC left 0.5 to 0.8
of the variance, exact blocks of layers 0.4 to 0.75, the diagonal 0.9; with α_i = 1 for all, as if M
were Î, the last left 1.7 to 5 times the variance, and the others up to 2.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightlike.errors import ChoiceError
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.probes import orthogonal, sphere
from lightlike.spectrum.tridiagonal import Function

# Fewest probes from which a slope can be estimated, and from which it is worth it.
FEWEST, WORTH = 4, 8


class Approximation(Protocol):
    """A matrix M = U diag(s) Uᵀ with known eigenvalues and eigenvectors."""

    @property
    def values(self) -> Tensor:
        """Eigenvalues s, (r,); any others are 0."""

    def turn(self, v: Tensor) -> Tensor:
        """Uᵀ v, (n, c) -> (r, c)."""


@dataclass(frozen=True, eq=False)
class Control:
    """What an approximation says of the probes of a quadrature.

    Attributes:
        values: s, (r,).
        squares: (Uᵀz_i)_j², (r, probes).
        shares: Their expectation, (r,).
    """

    values: Tensor
    squares: Tensor
    shares: Tensor

    @classmethod
    def of(cls, approximation: Approximation, Q: Tensor, seed: int, probes: int) -> Control:
        """The control of probes drawn from a seed, orthogonal to Q (n, k)."""
        (n, k), device = Q.shape, approximation.values.device
        Q = Q.to(device)
        squares = []
        for index in range(probes):
            z = orthogonal(sphere(n, seed, range(index, index + 1), device), Q)
            z = z * (math.sqrt(n - k) / float(z.norm()))
            squares.append(approximation.turn(z).square()[:, 0].cpu())
        taken = approximation.turn(Q).square().sum(1) if k else torch.zeros_like(squares[0])
        return cls(approximation.values.cpu(), torch.stack(squares, 1), 1.0 - taken.cpu())

    def steer(self, f: Function, values: Tensor) -> Estimate:
        """The mean of forms z_iᵀ f(F) z_i, (probes,), controlled by those with f(M)."""
        # Null directions of M are as many in every probe: a constant f(0) of them is none.
        f_of = f(self.values) - f(torch.zeros(1, dtype=torch.float64))
        return controlled(values, f_of @ self.squares, float(f_of @ self.shares))


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
