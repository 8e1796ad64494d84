"""Traces and diagonals of a matrix that is only multiplied with, each with a standard error.

Three estimators of tr F, from the plainest to the best for spectra that fall off:

- "hutchinson": the mean of zᵀ F z (Hutchinson 1990, doi:10.1080/03610919008812866);
- "hutch++": tr(Qᵀ F Q) for Q spanning F S with S random, and probes for the rest (Meyer, Musco,
  Musco & Woodruff 2021, arXiv:2010.09649);
- "xtrace": the same with every probe in turn left out of Q and used for the rest, so that none is
  spent on one purpose alone (Epperly, Tropp & Webber 2024, arXiv:2301.07825).

The estimates that XTrace averages share probes: leaving out one uses all the others. Where they
depend on pairs of probes alone (a degenerate U-statistic of order two) the variance of the mean is
twice what their spread says; where F has no large eigenvalues to be taken out, once. The standard
error is √2 times the spread's, which covers both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, choice_error
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.probes import Operator, signs, sphere

LEAST = {"xtrace": 6, "hutch++": 6, "hutchinson": 2}
# Share of the largest column of a triangular factor below which its range is known in full.
SPENT = 1e-13


def trace(F: Any, probes: int = 30, *, method: str = "xtrace", seed: int = 0) -> Estimate:
    """An estimate of tr F for a symmetric matrix or operator with `shape` and `@`.

    Args:
        F: (n, n).
        probes: Products with F at most; a matrix of no more rows is taken whole.
        method: "xtrace", "hutch++" or "hutchinson".
        seed: Of the probes.

    Returns:
        The trace with its standard error; that of a matrix whose range the probes exhaust is exact,
        with an error of 0.

    Raises:
        ChoiceError: for an unknown method, or too few probes for it.
        EstimateError: if a product is not finite.
    """
    operator = _checked(F, probes, method)
    n = operator.size
    if probes >= n:
        eye = torch.eye(n, dtype=torch.float64, device=operator.device)
        return _exact(float((operator @ eye).diagonal().sum()))
    if method == "hutchinson":
        Z = sphere(n, seed, range(probes), operator.device)
        return Estimate.of((Z * (operator @ Z)).sum(0).tolist())
    if method == "hutch++":
        third = probes // 3
        Q, Z = _range(operator, sphere(n, seed, range(third), operator.device))
        taken = float((Q * Z).sum())
        W = sphere(n, seed, range(third, probes - third), operator.device)
        W = W - Q @ (Q.T @ W)
        W *= math.sqrt(n - Q.shape[1]) / W.norm(dim=0)
        rest = (W * (operator @ W)).sum(0)
        return Estimate.of((taken + rest).tolist())
    left = _leave_one_out(operator, sphere(n, seed, range(probes // 2), operator.device))
    if left is None:
        Q, Z = _range(operator, sphere(n, seed, range(probes // 2), operator.device))
        return _exact(float((Q * Z).sum()))
    scale = (n - left.Q.shape[1] + 1) / left.probes.square().sum(0)
    inside = left.H.trace() - (left.S * (left.H @ left.S)).sum(0)
    found = Estimate.of((inside + scale * (left.probes * left.images).sum(0)).tolist())
    return replace(found, stderr=math.sqrt(2.0) * found.stderr)


def diagonal(F: Any, probes: int = 30, *, method: str = "hutch++", seed: int = 0) -> Estimate:
    """An estimate of the diagonal of F, (n,), entry by entry with a standard error.

    "hutchinson" is the mean of z ∘ F z for z of ±1 (Bekas, Kokiopoulou & Saad 2007,
    doi:10.1016/j.apnum.2007.01.003), which errs by the other entries of each row. "hutch++" takes
    the diagonal of Q Qᵀ F + F Q Qᵀ − Q Qᵀ F Q Qᵀ exactly and leaves (I − Q Qᵀ) F (I − Q Qᵀ) to
    such probes.

    Args:
        F: (n, n).
        probes: Products with F at most; a matrix of no more rows is taken whole.
        method: "hutch++" or "hutchinson".
        seed: Of the probes.

    Raises:
        ChoiceError: for an unknown method, or too few probes for it.
        EstimateError: if a product is not finite.
    """
    operator = _checked(F, probes, method, ("hutch++", "hutchinson"))
    n = operator.size
    if probes >= n:
        eye = torch.eye(n, dtype=torch.float64, device=operator.device)
        return _exact((operator @ eye).diagonal().clone())
    if method == "hutchinson":
        Z = signs(n, seed, range(probes), operator.device)
        return Estimate.of(list((Z * (operator @ Z)).T))
    third = probes // 3
    Q, Z = _range(operator, signs(n, seed, range(third), operator.device))
    inside = 2 * (Q * Z).sum(1) - ((Q @ (Q.T @ Z)) * Q).sum(1)
    G = signs(n, seed, range(third, probes - third), operator.device)
    W = G - Q @ (Q.T @ G)
    image = operator @ W
    return Estimate.of(list((inside[:, None] + G * (image - Q @ (Q.T @ image))).T))


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """What leave-one-out estimates share.

    Attributes:
        Q: Orthonormal basis of the range of Y = F Ω, (n, m).
        Z: F Q.
        H: Qᵀ F Q.
        S: Unit columns s_i (m, m), each orthogonal to Qᵀ y_j for every j ≠ i: Q Qᵀ − Q s_i s_iᵀ Qᵀ
            projects on the range without y_i.
        probes: (I − P_i) ω_i with P_i that projection, (n, m).
        images: F times these.
    """

    Q: Tensor
    Z: Tensor
    H: Tensor
    S: Tensor
    probes: Tensor
    images: Tensor


def _leave_one_out(operator: Operator, omega: Tensor) -> _LeftOut | None:
    """None if F Ω has fewer than m dimensions: almost surely it then has all of F's."""
    Y = operator @ omega
    Q, R = torch.linalg.qr(Y)
    singular = torch.linalg.svdvals(R)
    if float(singular[-1]) <= SPENT * float(singular[0]):
        return None
    m = R.shape[0]
    eye = torch.eye(m, dtype=R.dtype, device=R.device)
    S = torch.linalg.solve_triangular(R.T, eye, upper=False)
    # Column i of R⁻ᵀ is orthogonal to every other column of R.
    S = S / S.norm(dim=0)
    Z = operator @ Q
    W = Q.T @ omega
    along = (S * W).sum(0)
    probes = omega - Q @ W + (Q @ S) * along
    images = Y - Z @ W + (Z @ S) * along
    return _LeftOut(Q, Z, Q.T @ Z, S, probes, images)


def _range(operator: Operator, omega: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis Q of the range of F Ω, and F Q."""
    U, s, _ = torch.linalg.svd(operator @ omega, full_matrices=False)
    Q = U[:, s > SPENT * s[0]]
    return Q, operator @ Q


def _exact(value: float | Tensor) -> Estimate:
    error = torch.zeros_like(value) if isinstance(value, Tensor) else 0.0
    return Estimate(value, error, 1)


def _checked(F: Any, probes: int, method: str, methods: Iterable[str] = LEAST) -> Operator:
    if method not in methods:
        raise choice_error("method", method, [*map(repr, methods)])
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < LEAST[method]:
        raise ChoiceError(
            f"probes={probes!r} gives {method!r} no standard error.",
            "An estimate without one cannot be told from a guess.",
            f"Use {LEAST[method]} or more.",
        )
    return Operator(F)
