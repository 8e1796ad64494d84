"""Log-determinants with an approximation as control variate.

For F and an approximation M, both symmetric positive semi-definite, and P = I + c M,

    log det(I + c F) = log det P + log det(P^{-½}(I + c F)P^{-½}),

exactly. The first is known. Of the second only what the approximation missed is left: it is the sum
of log μ over the eigenvalues μ of `Preconditioned`, near 1 where M is good. An unbiased estimate
of it, tr log by stochastic quadrature, has a variance of the order Σ (μ − 1)² in place of
Σ log²(1 + c λ).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lightlike.spectrum.conjugate import Operator


class Approximation(Protocol):
    """A matrix M of which functions can be had."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""

    def half_solve(self, v: Tensor, scale: float) -> Tensor:
        """(I + scale · M)^{-½} v."""

    def logdet(self, scale: float) -> float:
        """Log det(I + scale · M)."""


class Preconditioned:
    """S = P^{-½}(I + c F)P^{-½}, symmetric positive definite, P = I + c M.

    Args:
        op: F, anything with `@`.
        approximation: M.
        scale: c ≥ 0.

    Attributes:
        offset: log det P, so that log det(I + c F) = offset + log det S.
        least: A bound from below on the eigenvalues of S: 1/(1 + c λ_1(M)), if `largest` is given.
    """

    def __init__(
        self,
        op: Operator,
        approximation: Approximation,
        scale: float,
        largest: float | None = None,
    ) -> None:
        self.op, self.approximation, self.scale = op, approximation, scale
        self.shape = approximation.shape
        self.dtype = torch.float64
        self.least = None if largest is None else 1.0 / (1.0 + scale * largest)

    @property
    def offset(self) -> float:
        """Log det P."""
        return self.approximation.logdet(self.scale)

    def half_solve(self, v: Tensor) -> Tensor:
        """P^{-½} v for one vector (n,) or a block (n, c)."""
        return self.approximation.half_solve(v, self.scale)

    def __matmul__(self, v: Tensor) -> Tensor:
        """S v for one vector (n,) or a block (n, c)."""
        inner = self.half_solve(v)
        return self.half_solve(inner + self.scale * (self.op @ inner))


class Shifted:
    """A F + b I of an operator F, as the matrix of a system to solve.

    Args:
        op: F.
        scale: a.
        shift: b.
    """

    def __init__(self, op: Operator, scale: float, shift: float) -> None:
        self.op, self.scale, self.shift = op, scale, shift

    def __matmul__(self, v: Tensor) -> Tensor:
        """(a F + b I) v."""
        return self.scale * (self.op @ v) + self.shift * v
