"""From slopes of the free energy at several temperatures to the learning coefficient they tend to.

λ̂(t) = t E_t[K], the slope of the free energy in log t at t = n β, tends to λ as t → ∞; what is
missing at finite t falls off by a law that depends on the poles of ζ(z) = ∫ K^z φ (Watanabe 2009,
doi:10.1017/CBO9780511800474, chapters 4 and 6), and the poles are not known:

    m = 1:  λ − λ̂(t) ∝ t^{−ρ}                ρ: how far the next pole lies beyond the largest, −λ
    m > 1:  λ − λ̂(t) = (m − 1)/(log t + c)    for every ρ, as it falls off most slowly

Where the rank of the Fisher matrix is the same at θ̂ and at generic points around it, the minima are
a manifold across which K is quadratic (constant rank theorem): m = 1, λ is half the rank, and
Laplace's expansion goes in powers of 1/t, ρ = 1. The Gaussian of precision γ that holds chains
θ̂ is part of it: with curvatures f_k and flat minima λ̂(t) = ½ Σ t f_k/(t f_k + γ), so that γ takes
½ Σ γ/(t f_k + γ) away. By the virial identity E[w·∇U] = D for w = θ − θ̂ and the whole exponent U
that is ½ D − ½ γ E|w|², and for K homogeneous of degree 2k it is D/2k − γ E|w|²/2k, exactly, at
every t. But γ E|w|² contains the dimension of the set of minima, which only the fall-off in t
tells apart: hence an extrapolation, and no subtraction.

Elsewhere each law counts by how well it fits at its best, and each m alike at first: not by the
share of its deficits that fit, as that would decide between laws that slopes cannot tell apart. The
value is the mean over laws; its standard error has the noise, and what laws that fit differ by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from lightlike.errors import choice_error

Array = NDArray[np.float64]

# Exponents ρ that are tried where the minima are singular, and the largest multiplicity.
EXPONENTS, MULTIPLICITY = (0.25, 0.375, 0.5, 0.75, 1.0), 2
# Largest deficit at the hottest temperature, to either side, and points at which one is tried.
LARGEST, POINTS = 1.0, 4001
# What the next term of a law is, at most, in shares of the first.
NEXT = 0.1
# Rounding of an estimate without noise, relative to it.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Law:
    """What one law of the fall-off makes of the slopes.

    Attributes:
        exponent: ρ, or None for the law of multiplicity m > 1.
        multiplicity: m.
        value: λ.
        stderr: Its standard error if the law holds.
        misfit: χ² of the slopes, and of the bounds of λ, at its best.
        weight: Its share of the mean, in [0, 1].
    """

    exponent: float | None
    multiplicity: int
    value: float
    stderr: float
    misfit: float
    weight: float


@dataclass(frozen=True)
class Limit:
    """The learning coefficient as the limit of slopes at several temperatures.

    Attributes:
        value: λ.
        stderr: Its standard error: of the noise, and of the laws that fit.
        laws: What it is the mean of.
    """

    value: float
    stderr: float
    laws: tuple[Law, ...]


def extrapolate(
    samples: Sequence[float],
    slopes: Sequence[float],
    covariance: Sequence[Sequence[float]],
    *,
    regular: bool = False,
    bound: float | None = None,
) -> Limit:
    """λ from slopes of the free energy at three temperatures or more.

    Args:
        samples: t = n β of each.
        slopes: λ̂(t).
        covariance: Of their errors.
        regular: Whether the rank is constant around θ̂, which decides the law.
        bound: Of λ: half the generic rank.

    Raises:
        ChoiceError: if there are fewer than three temperatures.
    """
    if len(set(samples)) < 3:
        raise choice_error("temperature", len(set(samples)), ["three temperatures or more"])
    order = np.argsort(samples)
    t, values = np.asarray(samples)[order], np.asarray(slopes)[order]
    noise = np.asarray(covariance)[np.ix_(order, order)]
    noise = noise + np.diag(np.square(ROUNDING * values))
    if regular:
        return _regular(t, values, noise)
    scans = [_scan(t, values, noise, rho, 1, bound) for rho in EXPONENTS]
    scans += [_scan(t, values, noise, None, m, bound) for m in range(2, MULTIPLICITY + 1)]
    # Each multiplicity is as likely as the others at first, and so is each exponent.
    alike = [sum(s.multiplicity == scan.multiplicity for s in scans) for scan in scans]
    # As no law holds exactly, all temperatures together count as one.
    logs = [-0.5 * s.misfit / len(t) - math.log(n) for s, n in zip(scans, alike, strict=True)]
    total = float(logsumexp(logs))
    laws = tuple(s.law(math.exp(log - total)) for s, log in zip(scans, logs, strict=True))
    value = sum(law.weight * law.value for law in laws)
    variance = sum(law.weight * (law.stderr**2 + (law.value - value) ** 2) for law in laws)
    return Limit(value, math.sqrt(variance), laws)


def _regular(t: Array, values: Array, noise: Array) -> Limit:
    """The law 1/t, by least squares; what the hottest slope changes tells what 1/t² would."""
    value, variance, misfit = _line(t, values, noise)
    shift = value - _line(t[1:], values[1:], noise[1:, 1:])[0]
    stderr = math.hypot(math.sqrt(variance), shift)
    return Limit(value, stderr, (Law(1.0, 1, value, stderr, misfit, 1.0),))


def _line(t: Array, values: Array, noise: Array) -> tuple[float, float, float]:
    """λ, its variance and χ² of λ̂ = λ − a/t."""
    root = np.linalg.cholesky(noise)
    design = np.linalg.solve(root, np.stack([np.ones_like(t), -t[0] / t], 1))
    given = np.linalg.solve(root, values)
    covariance = np.linalg.inv(design.T @ design)
    found = covariance @ (design.T @ given)
    return float(found[0]), float(covariance[0, 0]), float(np.square(design @ found - given).sum())


@dataclass(frozen=True)
class _Scan:
    """One law over its possible deficits: log weights, λ at each, and the noise of λ."""

    exponent: float | None
    multiplicity: int
    weights: Array
    values: Array
    variances: Array
    misfit: float

    def law(self, weight: float) -> Law:
        share = np.exp(self.weights - logsumexp(self.weights))
        value = float(share @ self.values)
        spread = float(share @ np.square(self.values - value))
        stderr = math.sqrt(float(share @ self.variances) + spread)
        return Law(self.exponent, self.multiplicity, value, stderr, self.misfit, weight)


def _scan(
    t: Array,
    values: Array,
    noise: Array,
    exponent: float | None,
    multiplicity: int,
    bound: float | None,
) -> _Scan:
    away = np.log(t / t[0])
    if exponent is None:
        # (m − 1)/(log t + c), by its value u at the hottest temperature.
        u = np.linspace(0.0, LARGEST, POINTS)[1:, None]
        deficits = (multiplicity - 1) * u / (multiplicity - 1 + u * away)
    else:
        u = np.linspace(-LARGEST, LARGEST, POINTS)[:, None]
        deficits = u * np.exp(-exponent * away)
    # A law is but the leading term: what comes next is a share of each deficit.
    next_terms = np.square(NEXT * deficits)[:, :, None] * np.eye(len(t))
    precision = np.linalg.inv(noise + next_terms)
    variance = 1.0 / precision.sum((1, 2))
    corrected = values + deficits
    mean = np.einsum("pjk,pk->p", precision, corrected) * variance
    left = corrected - mean[:, None]
    # λ is positive and at most half the generic rank.
    misfits = np.einsum("pj,pjk,pk->p", left, precision, left)
    misfits = misfits - 2.0 * log_ndtr(mean / np.sqrt(variance))
    if bound is not None:
        misfits = misfits - 2.0 * log_ndtr((bound - mean) / np.sqrt(variance))
    weights = 0.5 * (np.linalg.slogdet(precision)[1] + np.log(variance) - misfits)
    return _Scan(exponent, multiplicity, weights, mean, variance, float(misfits.min()))
