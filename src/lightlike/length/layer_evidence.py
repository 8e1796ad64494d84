"""Variances of layers by the evidence, from one Gram matrix a layer.

The quadratic model of the loss at θ̂ is ½|B(θ − θ̂) + e|² − ½|e|² with B = √N A and Bᵀe = ∇NLL, e in
the range of B. Under θ ~ N(μ, Σ), Σ = diag(σ_l²) by layers, the razor is therefore

    ½ cᵀS⁻¹c + ½ log det S + const,   S = I + Σ_l σ_l² B_l B_lᵀ,   c = e − B(θ̂ − μ),

with derivatives ½ (γ_l − |δ_l|²/σ_l²) in log σ_l², where γ_l = σ_l² tr(S⁻¹ B_l B_lᵀ) parameters of
the layer are determined by the data and δ_l = −σ_l² B_lᵀS⁻¹c is its posterior mean less μ. MacKay's
fixed point σ_l² ← |δ_l|²/γ_l (doi:10.1162/neco.1992.4.3.415) is taken as long as it lowers the
razor; L-BFGS (doi:10.1007/BF01589116) goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from lightlike.errors import CapacityError, PriorError
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
# Fixed-point steps before L-BFGS takes over, and by how much |δ_l|²/(γ_l σ_l²) may be off 1.
STEPS = 20
CLOSE, ENOUGH = 1e-8, 1e-4
# Largest σ_l² tr B_l B_lᵀ: eps times that is what rounding makes of the identity in S.
STIFF = 1e12


@dataclass(frozen=True)
class Point:
    """The razor at some variances, up to a constant.

    Attributes:
        value: ½ cᵀS⁻¹c + ½ log det S.
        gamma: γ_l of every layer.
        moved: |δ_l|²/σ_l² of every layer.
    """

    value: float
    gamma: np.ndarray
    moved: np.ndarray


class LayerEvidence:
    """The razor as a function of t_l = log σ_l².

    Args:
        grams: B_l B_lᵀ of every layer, (n, n).
        fixed: Σ σ² B Bᵀ of parameters with a given variance, (n, n).
        c: (n,).
    """

    def __init__(self, grams: Sequence[Tensor], fixed: Tensor | None, c: Tensor) -> None:
        self.grams, self.fixed, self.c = grams, fixed, c

    @property
    def limits(self) -> np.ndarray:
        """The largest t_l for which rounding of the layer's part does not swamp the identity."""
        sizes = [float(gram.diagonal().sum()) for gram in self.grams]
        return np.array([min(LOG_RANGE, math.log(STIFF / size)) for size in sizes])

    def __call__(self, t: np.ndarray) -> Point:
        """Value and parts of the gradient ½ (γ − |δ|²/σ²): one Cholesky factorisation."""
        variances = np.exp(t)
        system = torch.zeros_like(self.grams[0]) if self.fixed is None else self.fixed.clone()
        for variance, gram in zip(variances.tolist(), self.grams, strict=True):
            system.add_(gram, alpha=variance)
        system.diagonal().add_(1.0)
        factor = cholesky(system)
        w = torch.cholesky_solve(self.c[:, None], factor)[:, 0]
        inverse = torch.cholesky_inverse(factor)
        value = 0.5 * float(self.c @ w) + float(factor.diagonal().log().sum())
        gamma = np.array([float((inverse * gram).sum()) for gram in self.grams])
        moved = np.array([max(0.0, float(w @ (gram @ w))) for gram in self.grams])
        return Point(value, variances * gamma, variances * moved)


def fit_layers(
    problem: Problem,
    prior: ResolvedPrior,
    groups: Mapping[str, list[Entry]],
    decomposition: Decomposition,
    gradient: Tensor,
    start: float,
) -> ResolvedPrior:
    """The variances of layers at a minimum of the razor.

    It is the minimum that the descent from one common variance leads to; others may exist.

    Args:
        problem: Model, data and likelihood at θ̂.
        prior: With any variance where it is to be fitted.
        groups: The parameters that share a fitted variance, by layer.
        decomposition: Of A.
        gradient: ∇NLL_total(θ̂).
        start: The common variance to start from.

    Raises:
        PriorError: if the razor falls all the way to a variance of 0 or ∞, or does not depend on
            one; or in lower precision than float64.
        CapacityError: if the layers' Gram matrices do not fit in memory.
    """
    if decomposition.rounding is not None:
        raise PriorError(
            "Variances of layers are fitted in float64 only.",
            "The error of products in float32 is known for all layers together, not for each.",
            "Measure with dtype='float64', or give the variances as numbers.",
        )
    evidence = layer_evidence(problem, prior, groups, decomposition, gradient)
    for name, gram in zip(groups, evidence.grams, strict=True):
        if not float(gram.diagonal().sum()) > 0:
            raise PriorError(
                f"No output depends on layer {name!r}.",
                "The labels say nothing about the variance of its parameters.",
                f"Give it as a number: PerLayer({{{name!r}: 1.0, '.*': 'evidence'}}).",
            )
    t, _ = minimised(evidence, np.full(len(groups), math.log(start)), list(groups))
    variance = prior.variance.clone()
    for fitted, entries in zip(np.exp(t).tolist(), groups.values(), strict=True):
        for entry in entries:
            variance[entry.start : entry.stop] = fitted
    given = prior.description["variance"]
    known = given if isinstance(given, Mapping) else {}
    values = {name: v for name, v in known.items() if not isinstance(v, str)}
    values |= dict(zip(groups, np.exp(t).tolist(), strict=True))
    description = {**prior.description, "variance": values, "fitted_by": "evidence"}
    return replace(prior, variance=variance, tuned=len(groups), description=description)


def layer_evidence(
    problem: Problem,
    prior: ResolvedPrior,
    groups: Mapping[str, list[Entry]],
    decomposition: Decomposition,
    gradient: Tensor,
) -> LayerEvidence:
    """The layers' Gram matrices, (K, K), or (d, d) from eigenvectors where A Aᵀ is not at hand.

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
        c = basis.vectors @ c
        grams = [
            _gram(root, name, entries, decomposition.budget) for name, entries in groups.items()
        ]
        if bool((given > 0).any()):
            fixed = n * root.scaled(given.sqrt()).gram(decomposition.budget)
    else:
        rows = sizes[:, None] * basis.vectors.T
        grams = []
        for entries in groups.values():
            mine = torch.cat([rows[:, e.start : e.stop] for e in entries], 1)
            grams.append(mine @ mine.T)
        if bool((given > 0).any()):
            fixed = (rows * given) @ rows.T
    if decomposition.left:
        grams = [gram.mul_(n) for gram in grams]
    return LayerEvidence(grams, fixed, c)


def minimised(
    evidence: LayerEvidence, start: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, Point]:
    """The t where the derivatives vanish, and the razor there.

    Raises:
        PriorError: if there is none in the search range, naming the layer and the limit.
    """
    limits = evidence.limits
    t = np.minimum(start, limits)
    point = evidence(t)
    for _ in range(STEPS):
        with np.errstate(divide="ignore"):
            step = np.log(point.moved / point.gamma)
        if bool((abs(step) <= CLOSE).all()):
            return t, point
        trial = np.clip(t + step, -LOG_RANGE, limits)
        found = evidence(trial)
        if not found.value < point.value:
            break
        t, point = trial, found

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        found = evidence(at)
        return found.value, 0.5 * (found.gamma - found.moved)

    t = minimize(
        objective,
        t,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LOG_RANGE, limit) for limit in limits.tolist()],
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000},
    ).x
    point = evidence(t)
    for name, at, gamma, moved in zip(names, t, point.gamma, point.moved, strict=True):
        if at > 1 - LOG_RANGE and abs(moved / gamma - 1) <= ENOUGH:
            continue
        towards = "0" if moved < gamma else "infinity"
        raise PriorError(
            f"The evidence has no maximum: it grows as the variance of layer {name!r} goes to "
            f"{towards} (it was followed to {math.exp(at):.2g}).",
            "At this point the labels do not determine how far the layer's parameters lie from "
            "their prior mean.",
            f"Give this variance as a number, PerLayer({{{name!r}: ..., '.*': 'evidence'}}), or "
            "another prior mean.",
        )
    return t, point


def _gram(root: Root, layer: str, entries: list[Entry], budget: float) -> Tensor:
    """A_l A_lᵀ of those of a layer's parameters that are named."""
    part = root.of_layer(layer)
    own = root.problem.selection.layers()[layer]
    if len(entries) < len(own):
        named = {entry.name for entry in entries}
        shares = [torch.full((e.size,), float(e.name in named)) for e in own]
        part = part.scaled(torch.cat(shares).to(root.device, torch.float64))
    return part.gram(budget)
