"""The evidence of one variance a layer, from one Gram matrix a layer.

The quadratic model of the loss at θ̂ is ½|B(θ − θ̂) + e|² − ½|e|² with B = √N A and Bᵀe = ∇NLL, e in
the range of B. Under θ ~ N(μ, Σ), Σ = diag(σ_l²) by layers, the razor is therefore

    ½ cᵀS⁻¹c + ½ log det S + const,   S = I + Σ_l σ_l² B_l B_lᵀ,   c = e − B(θ̂ − μ),

with derivatives ½ (γ_l − |δ_l|²/σ_l²) in log σ_l², where γ_l = σ_l² tr(S⁻¹ B_l B_lᵀ) parameters of
the layer are determined by the data and δ_l = −σ_l² B_lᵀS⁻¹c is its posterior mean less μ.

Taking θ̂ itself for the posterior's mode gives Laplace's evidence, ½ Σ_l |θ̂_l − μ_l|²/σ_l² +
½ log det S, in which only the determinant rests on the quadratic model. It is never below the
razor, equal to it in value and derivative where θ̂ is the mode, and convex in log σ².
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import CapacityError
from lightlike.length.eigenbasis import eigenbasis
from lightlike.length.prior import ResolvedPrior
from lightlike.metric.root import Root
from lightlike.problem.parameters import Entry
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.symmetric import cholesky

# Search range of log σ² around 0: beyond it a variance is no longer a number that float64
# arithmetic of the evidence can tell from its limits.
LOG_RANGE = 30.0
# Largest σ_l² tr B_l B_lᵀ: eps times that is what rounding makes of the identity in S.
STIFF = 1e12


@dataclass(frozen=True)
class Point:
    """A criterion at some variances, up to a constant.

    Attributes:
        value: Its value.
        gamma: γ_l of every layer, the parameters that the data determine.
        moved: |δ_l|²/σ_l² of every layer, which γ_l equals where the derivative in log σ_l² is 0.
        slope: The derivatives in σ_l², which exist at σ_l² = 0 too.
    """

    value: float
    gamma: np.ndarray
    moved: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True)
class Layers:
    """What all criteria are made of.

    Attributes:
        grams: B_l B_lᵀ of every layer, (n, n).
        fixed: Σ σ² B Bᵀ of parameters with a given variance, (n, n).
        c: (n,).
        pull: y (n,) ↦ Bᵀy (D,).
    """

    grams: Sequence[Tensor]
    fixed: Tensor | None
    c: Tensor
    pull: Callable[[Tensor], Tensor]

    @property
    def limits(self) -> np.ndarray:
        """The largest log σ_l² at which rounding of a layer's part does not swamp the identity."""
        sizes = [float(gram.diagonal().sum()) for gram in self.grams]
        return np.array([min(LOG_RANGE, math.log(STIFF / size)) for size in sizes])

    def factor(self, t: np.ndarray) -> Tensor:
        """The Cholesky factor of S."""
        system = torch.zeros_like(self.grams[0]) if self.fixed is None else self.fixed.clone()
        for variance, gram in zip(np.exp(t).tolist(), self.grams, strict=True):
            system.add_(gram, alpha=variance)
        system.diagonal().add_(1.0)
        return cholesky(system)

    def traces(self, factor: Tensor) -> np.ndarray:
        """tr(S⁻¹ B_l B_lᵀ) of every layer."""
        inverse = torch.cholesky_inverse(factor)
        return np.array([float((inverse * gram).sum()) for gram in self.grams])


class Criterion(ABC):
    """A function of t_l = log σ_l², −∞ for a variance of 0, at the price of a factorisation."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    @abstractmethod
    def __call__(self, t: np.ndarray) -> Point:
        """Value and parts of the derivatives."""


class LayerEvidence(Criterion):
    """The razor: ½ cᵀS⁻¹c + ½ log det S."""

    def __call__(self, t: np.ndarray) -> Point:
        """Value and parts of the derivatives ½ (γ − |δ|²/σ²)."""
        layers, variances = self.layers, np.exp(t)
        factor = layers.factor(t)
        w = torch.cholesky_solve(layers.c[:, None], factor)[:, 0]
        value = 0.5 * float(layers.c @ w) + float(factor.diagonal().log().sum())
        traces = layers.traces(factor)
        pulls = np.array([max(0.0, float(w @ (gram @ w))) for gram in layers.grams])
        return Point(value, variances * traces, variances * pulls, 0.5 * (traces - pulls))

    def displacement(self, t: np.ndarray, variance: Tensor) -> Tensor:
        """The posterior mean less μ, −Σ Bᵀ S⁻¹ c, (D,).

        Args:
            t: Of the fitted layers.
            variance: All variances, these among them, (D,).
        """
        w = torch.cholesky_solve(self.layers.c[:, None], self.layers.factor(t))[:, 0]
        return -variance * self.layers.pull(w)


class ModeEvidence(Criterion):
    """Laplace's evidence with θ̂ for the mode: ½ Σ |θ̂_l − μ_l|²/σ_l² + ½ log det S.

    Args:
        layers: See `Layers`.
        squares: |θ̂_l − μ_l|² of every layer, all above 0.
    """

    def __init__(self, layers: Layers, squares: np.ndarray) -> None:
        super().__init__(layers)
        self.squares = squares

    def __call__(self, t: np.ndarray) -> Point:
        """Value and parts of the derivatives ½ (γ − |θ̂ − μ|²/σ²)."""
        factor, variances = self.layers.factor(t), np.exp(t)
        moved, traces = self.squares / variances, self.layers.traces(factor)
        value = 0.5 * float(moved.sum()) + float(factor.diagonal().log().sum())
        slope = 0.5 * (traces - moved / variances)
        return Point(value, variances * traces, moved, slope)


def layers_of(
    problem: Problem,
    prior: ResolvedPrior,
    groups: Mapping[str, list[Entry]],
    decomposition: Decomposition,
    gradient: Tensor,
) -> Layers:
    """The layers' Gram matrices, (K, K), or (d, d) from eigenvectors where A Aᵀ is not at hand.

    Args:
        problem: Model, data and likelihood at θ̂.
        prior: With any variance where it is to be fitted.
        groups: The parameters that share a fitted variance, by layer.
        decomposition: Of A.
        gradient: ∇NLL_total(θ̂).

    Raises:
        CapacityError: if they do not fit in memory.
    """
    root, n = decomposition.factor, problem.survey.observations
    assert isinstance(root, Root)
    basis = eigenbasis(decomposition, root)
    size = root.shape[0] if decomposition.left else len(basis.values)
    need = 8.0 * (len(groups) + 5) * size**2
    if need > decomposition.budget:
        raise CapacityError(
            f"The Gram matrices of {len(groups)} layers, {size:,} × {size:,} each, need "
            f"{format_bytes(need)} of {format_bytes(decomposition.budget)}.",
            "The evidence of each layer's variance is a function of all of them.",
            "Measure fewer observations, fit fewer layers, raise memory=..., or use "
            "Isotropic('evidence').",
        )
    both = torch.stack([gradient, problem.theta - prior.mean], 1)
    sizes = (n * basis.values).sqrt()
    p, q = basis.parts(both).T
    c = p / sizes - sizes * q
    tuned = torch.zeros_like(prior.variance, dtype=torch.bool)
    for entries in groups.values():
        for entry in entries:
            tuned[entry.start : entry.stop] = True
    given = torch.where(tuned, 0.0, prior.variance)
    fixed = None
    if decomposition.left:
        grams = [
            _gram(root, name, entries, decomposition.budget).mul_(n)
            for name, entries in groups.items()
        ]
        if bool((given > 0).any()):
            fixed = n * root.scaled(given.sqrt()).gram(decomposition.budget)
        return Layers(grams, fixed, basis.vectors @ c, lambda y: math.sqrt(n) * root.rmv(y))
    rows = sizes[:, None] * basis.vectors.T
    grams = []
    for entries in groups.values():
        mine = torch.cat([rows[:, e.start : e.stop] for e in entries], 1)
        grams.append(mine @ mine.T)
    if bool((given > 0).any()):
        fixed = (rows * given) @ rows.T
    return Layers(grams, fixed, c, lambda y: rows.T @ y)


def _gram(root: Root, layer: str, entries: list[Entry], budget: float) -> Tensor:
    """A_l A_lᵀ of those of a layer's parameters that are named."""
    part = root.of_layer(layer)
    own = root.problem.selection.layers()[layer]
    if len(entries) < len(own):
        named = {entry.name for entry in entries}
        shares = [torch.full((e.size,), float(e.name in named)) for e in own]
        part = part.scaled(torch.cat(shares).to(root.device, torch.float64))
    return part.gram(budget)
