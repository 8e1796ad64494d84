"""What stochastic quadrature knows of a spectrum: sums of any function of the eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import UndefinedError, choice_error
from lightlike.numbers import check_not_negative, check_positive
from lightlike.results import Result
from lightlike.spectrum.control import Control
from lightlike.spectrum.distinct import Distinct, least_rank
from lightlike.spectrum.enclosed import Enclosed, Pair
from lightlike.spectrum.tridiagonal import Function, Measure


@dataclass(frozen=True, eq=False)
class Density(Result):
    """The eigenvalues of F (n, n), some of them taken out, the rest seen by random probes.

    tr f(F) = Σ_j q_jᵀ f(F) q_j + E[z_⊥ᵀ f(F) z_⊥] with Q = [q_j] orthonormal and z_⊥ uniform on the
    sphere of radius √(n − k) that is orthogonal to Q. That holds for any Q, so one that is not
    quite invariant under F biases nothing, and F is never replaced by a projection of itself. Both
    kinds of vectors have measures with rules that bound them (`lightlike.spectrum.tridiagonal`).

    Attributes:
        size: n.
        leading: Measures of the q_j, largest first.
        probes: Measures of the normalised z_⊥.
        vectors: Q (n, k).
        positive: Ritz values above 0, but for rounding, of the subspace that Q was found in.
        products: Products with F that were taken.
        seed: Of the probes.
        control: What an approximation of F says of the probes; None without one.
        distinct: The largest distinct eigenvalues, where the probes' steps kept no basis; None
            where they were orthogonalised.
    """

    size: int
    leading: Sequence[Measure]
    probes: Sequence[Measure]
    vectors: Tensor
    positive: int
    products: int
    seed: int
    control: Control | None = None
    distinct: Distinct | None = None

    @property
    def mass(self) -> int:
        """Dimensions that probes stand for, n − k."""
        return self.size - len(self.leading)

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Rayleigh quotients q_jᵀF q_j of the vectors taken out, (k,).

        Of leading eigenvectors, descending; each is within its residual of an eigenvalue. Where the
        probes' steps kept no basis, the largest distinct eigenvalues.
        """
        if self.distinct is not None:
            return self.distinct.values
        return torch.tensor([float(m.alphas[0]) for m in self.leading], dtype=torch.float64)

    @cached_property
    def residuals(self) -> Tensor:
        """The norms ‖F q_j − λ_j q_j‖, (k,), or bounds on the errors of distinct eigenvalues."""
        if self.distinct is not None:
            return self.distinct.errors
        return torch.tensor([float(m.betas[0]) for m in self.leading], dtype=torch.float64)

    @cached_property
    def least_rank(self) -> int:
        """A lower bound on the rank: the most Ritz values of one subspace that rounding leaves > 0.

        Those of VᵀFV with V orthonormal are at most the eigenvalues of F, in order (Cauchy).
        """
        if self.distinct is not None:  # others of the nodes may be copies
            return least_rank(self.probes)
        counts = [int((m.gauss.nodes > m.noise).sum()) for m in self.probes]
        return max([self.positive, *counts])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: what was taken out, the trace, and what it took."""
        return {
            "size": self.size,
            "eigenvalues": self.eigenvalues.tolist(),
            "residuals": self.residuals.tolist(),
            "trace": self.trace.to_dict(),
            "least_rank": self.least_rank,
            "probes": len(self.probes),
            "steps": list(self.steps),
            "products": self.products,
            "seed": self.seed,
            "distinct": self.distinct is not None,
        }

    @property
    def steps(self) -> tuple[int, int]:
        """Lanczos steps of a probe, the fewest and the most."""
        lengths = [len(m) for m in self.probes]
        return (min(lengths), max(lengths)) if lengths else (0, 0)

    def sum(
        self, f: Function, *, bernstein: bool = False, positive: bool | None = None
    ) -> Enclosed:
        """Σ_k f(λ_k) over all n eigenvalues, zeros included.

        Args:
            f: Of a tensor of eigenvalues, entry by entry.
            bernstein: Whether f ≥ 0 with f' ≥ 0, f'' ≤ 0, f''' ≥ 0, … on λ ≥ 0, as of log(1 + cλ),
                λ/(λ + τ), √λ, 1 − exp(−tλ). Then quadrature bounds it.
            positive: Whether f ≥ 0; as `bernstein` says unless given.

        Raises:
            ChoiceError: if f is no function.
        """
        if not callable(f):
            raise choice_error("f", f, ["a function of a tensor of eigenvalues"])

        def bounds(m: Measure) -> Pair:
            low, high = m.bounds(f)
            return (low, high) if bernstein else (min(low, high), max(low, high))

        return self._sum(
            bounds,
            lambda m: (m.gauss.of(f), m.gauss.of(lambda t: f(t).square())),
            certain=bernstein,
            positive=bernstein if positive is None else positive,
            f=f,
        )

    def logdet(self, scale: float) -> Enclosed:
        """Log det(I + scale · F).

        Raises:
            ChoiceError: if the scale is negative.
        """
        check_not_negative("scale", scale)
        return self.sum(lambda t: torch.log1p(scale * t), bernstein=True)

    def effective_dimension(self, tau: float) -> Enclosed:
        """MacKay's γ(τ) = Σ λ/(λ + τ), for τ > 0."""
        check_positive("tau", tau)
        return self.sum(lambda t: t / (t + tau), bernstein=True)

    @property
    def trace(self) -> Enclosed:
        """Σ λ, for which one step is exact."""
        return self._sum(
            lambda m: (float(m.alphas[0]), float(m.alphas[0])),
            lambda m: (float(m.alphas[0]), float(m.alphas[0] ** 2 + m.betas[0] ** 2)),
            certain=True,
            positive=True,
            f=lambda t: t,
        )

    @property
    def squared_norm(self) -> Enclosed:
        """‖F‖²_F = Σ λ², for which two steps are exact and one gives a bound."""
        return self._sum(
            lambda m: (float(m.alphas[0] ** 2 + m.betas[0] ** 2),) * 2,
            lambda m: (m.gauss.of(torch.square), m.gauss.of(lambda t: t**4)),
            certain=True,
            positive=True,
            f=torch.square,
        )

    def above(self, eps: float) -> Enclosed:
        """The number of eigenvalues above ε ≥ 0.

        A step is no smooth function: what lies near ε is open by quadrature (Chebyshev, Markov and
        Stieltjes), often more than by chance. `interval` includes it; it shrinks as 1/steps.
        """
        check_not_negative("eps", eps)

        def moments(m: Measure) -> Pair:
            middle = 0.5 * sum(m.above(eps))
            return middle, middle

        return self._sum(lambda m: m.above(eps), moments, certain=True, positive=True)

    def cumulative(self, t: float) -> Enclosed:
        """The share of eigenvalues at or below t ≥ 0, zeros included.

        Raises:
            ChoiceError: if t is negative or not a finite number.
            UndefinedError: if n = 0.
        """
        check_not_negative("t", t)
        if not self.size:
            raise UndefinedError(
                "A matrix without rows has no eigenvalues.",
                "There is nothing to take a share of.",
                "Ask for sums, which are 0.",
            )
        beyond = self.above(t).times(1.0 / self.size)
        whole = len(self.leading) / self.size
        rest = self.mass / self.size
        return Enclosed(
            (whole - beyond.taken[1], whole - beyond.taken[0]),
            (rest - beyond.seen[1], rest - beyond.seen[0]),
            beyond.stderr, certain=True, positive=True, probes=beyond.probes,
        )  # fmt: skip

    def _sum(
        self,
        bounds: Callable[[Measure], Pair],
        moments: Callable[[Measure], Pair],
        *,
        certain: bool,
        positive: bool,
        f: Function | None = None,
    ) -> Enclosed:
        """Bounds and the mean of f and f² of every measure, put together; steered by a control.

        On the sphere of n − k dimensions the variance of z_⊥ᵀ f(F) z_⊥ is
        2 (n − k)²/(n − k + 2) · (∫ f² dμ − (∫ f dμ)²) with μ the mean of a probe's measure.
        """
        taken = [bounds(m) for m in self.leading]
        low, high = (math.fsum(pair[i] for pair in taken) for i in (0, 1))
        count, mass = len(self.probes), self.mass
        if not count:
            return Enclosed((low, high), (0.0, 0.0), 0.0, certain, positive, 0)
        seen = [bounds(m) for m in self.probes]
        below, above = (mass * math.fsum(pair[i] for pair in seen) / count for i in (0, 1))
        if self.control is not None and f is not None:
            forms = 0.5 * mass * torch.tensor(seen, dtype=torch.float64).sum(1)
            steered = self.control.steer(f, forms)
            off = float(steered) - float(forms.mean())
            return Enclosed(
                (low, high), (below + off, above + off), float(steered.stderr), certain, positive,
                count, degrees=count - 1,
            )  # fmt: skip
        both = [moments(m) for m in self.probes]
        first, second = (math.fsum(pair[i] for pair in both) / count for i in (0, 1))
        variance = 2.0 * mass**2 / (mass + 2.0) * max(0.0, second - first**2)
        if positive:
            # Σ f² ≤ (Σ f)²: a probe has one degree of freedom at least.
            variance = min(variance, 2.0 * (mass * first) ** 2)
        stderr = math.sqrt(variance / count)
        return Enclosed((low, high), (below, above), stderr, certain, positive, count)
