"""The spectral measure of a vector, as far as some Lanczos steps know it, and what bounds it.

For a unit vector v and F = Σ λ_k u_k u_kᵀ let μ = Σ ⟨u_k, v⟩² δ(λ_k), so that vᵀ f(F) v = ∫ f dμ.
Lanczos steps from v give a tridiagonal T_m whose eigenvalues are the nodes, and squared first
components of whose eigenvectors are the weights, of Gauss's rule for μ (Golub & Welsch 1969,
doi:10.2307/2004418; Golub & Meurant 2010, doi:10.1515/9781400833887). The rule errs by
f^(2m)(ξ)/(2m)! ∫ Π(λ − t_i)² dμ, the one with a further node prescribed at 0 (Radau) by
f^(2m+1)(ξ)/(2m+1)! ∫ λ Π(λ − t_i)² dμ. For a Bernstein function (f ≥ 0 whose derivatives alternate
in sign from f' ≥ 0 on) such as log(1 + cλ) or λ/(λ + τ), Gauss is therefore an upper bound and
Radau at 0 a lower one, whatever the largest eigenvalue: both are certain, up to rounding.

The mass beyond a bound x is enclosed by the rule with a node prescribed at x: at least the weights
of nodes beyond x, at most those and the weight at x (Chebyshev, Markov and Stieltjes; Akhiezer
1965, The Classical Moment Problem, ch. 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.spectrum.rounding import EPS

Function = Callable[[Tensor], Tensor]

# Rounding in a pivot or node, in units of precision · ‖T‖ · m.
NOISE = 16.0


@dataclass(frozen=True, eq=False)
class Rule:
    """Nodes and weights, both (m,): ∫ f dμ ≈ Σ w f(t)."""

    nodes: Tensor
    weights: Tensor

    def of(self, f: Function) -> float:
        """Σ w f(t)."""
        return float(self.weights @ f(self.nodes))


@dataclass(frozen=True, eq=False)
class Measure:
    """The spectral measure of one unit vector.

    Attributes:
        alphas: Diagonal of T_m, (m,).
        betas: (m,): off-diagonal of T_m, and last the norm of what the next step would start from;
            0 there if the steps know all of the measure.
        precision: Rounding unit of the products they come from.
        orthogonal: Whether the steps were orthogonalised against all earlier ones; if not, T_m
            has copies of eigenvalues.
    """

    alphas: Tensor
    betas: Tensor
    precision: float = EPS
    orthogonal: bool = True

    def __len__(self) -> int:
        return len(self.alphas)

    @property
    def exhausted(self) -> bool:
        """Whether Gauss's rule is the measure itself."""
        return float(self.betas[-1]) == 0.0

    @cached_property
    def noise(self) -> float:
        """What rounding may move a node by."""
        return NOISE * self.precision * len(self) * norm(self.alphas, self.betas)

    @cached_property
    def pivots(self) -> list[float]:
        """Those of T_m = L D Lᵀ, (m,); positive but for rounding."""
        return pivots(self.alphas, self.betas, 0.0, self.noise * 1e-3)

    @cached_property
    def gauss(self) -> Rule:
        """Gauss's rule, m nodes.

        Raises:
            EstimateError: if a node is negative beyond rounding.
        """
        found = rule(self.alphas, self.betas[:-1])
        if len(self) and float(found.nodes[0]) < -100 * max(self.noise, 1e-300):
            raise EstimateError(
                f"The matrix has an eigenvalue of {float(found.nodes[0]):.3g} or less.",
                "Bounds and determinants here are of positive semi-definite matrices.",
                "Shift it, or check where it comes from.",
            )
        return Rule(found.nodes.clamp_min(0.0), found.weights)

    @cached_property
    def radau(self) -> Rule:
        """The rule with a node at 0; Gauss's where the measure is known."""
        if self.exhausted:
            return self.gauss
        last = self.pivots[-1]
        if last > self.noise:
            alphas = torch.cat([self.alphas, self.betas[-1:] ** 2 / last])
            found = rule(alphas, self.betas)
        else:
            # T_m is singular but for rounding: the rule with one node fewer, of which β_m is no
            # part, is as good as Gauss's, and its last pivot is 0 by construction.
            alphas = self.alphas.clone()
            alphas[-1] -= max(last, 0.0)
            found = rule(alphas, self.betas[:-1])
        return Rule(found.nodes.clamp_min(0.0), found.weights)

    def bounds(self, f: Function) -> tuple[float, float]:
        """Radau's and Gauss's value of ∫ f dμ: bounds if f is a Bernstein function."""
        return self.radau.of(f), self.gauss.of(f)

    def variance(self, f: Function) -> float:
        """The variance of f under Gauss's rule."""
        values, weights = f(self.gauss.nodes), self.gauss.weights
        return max(0.0, float(weights @ values.square()) - float(weights @ values) ** 2)

    def above(self, x: float) -> tuple[float, float]:
        """Bounds on the mass beyond x ≥ 0."""
        if self.exhausted:
            found = self.gauss
            # Of a zero matrix there is no rounding.
            open_ = (found.nodes - x).abs() < self.noise
        else:
            last = pivots(self.alphas, self.betas, x, self.noise * 1e-3)[-1]
            found = rule(torch.cat([self.alphas, x + self.betas[-1:] ** 2 / last]), self.betas)
            distance = (found.nodes - x).abs()
            open_ = distance <= max(self.noise, float(distance.min()))
        beyond = min(1.0, float(found.weights[(found.nodes > x) & ~open_].sum()))
        return beyond, min(1.0, beyond + float(found.weights[open_].sum()))


def rule(diagonal: Tensor, off: Tensor) -> Rule:
    """Nodes ascending, and weights, of a tridiagonal matrix."""
    full = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    nodes, vectors = torch.linalg.eigh(full)
    return Rule(nodes, vectors[0].square())


def norm(alphas: Tensor, betas: Tensor) -> float:
    """A bound on ‖T‖ from its rows."""
    sides = torch.zeros_like(alphas)
    sides[1:] += betas[:-1]
    return float((alphas.abs() + betas + sides).max())


def pivots(alphas: Tensor, betas: Tensor, shift: float, least: float) -> list[float]:
    """Those of T − shift · I = L D Lᵀ; none is let closer to 0 than `least`."""
    found: list[float] = []
    before = 0.0
    for alpha, beta in zip(alphas.tolist(), betas.tolist(), strict=True):
        pivot = alpha - shift - (before / found[-1] if found else 0.0)
        if abs(pivot) < least:
            pivot = least if pivot >= 0 else -least
        found.append(pivot or least or 1e-300)
        before = beta * beta
    return found
