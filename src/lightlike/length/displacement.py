"""What it costs that θ̂ is not the prior mean.

In prior units, z = Σ^{-½}(θ̂ − μ), b = Σ^½ ∇NLL, B = A Σ^½ and M = (I + N BᵀB)⁻¹, the two middle
terms of the razor are

    ½ δᵀΣ⁻¹δ − ½ (b + z)ᵀ M (b + z) = ½ zᵀ(I − M) z − bᵀM z − ½ bᵀM b.

The right-hand side never subtracts |z|² from itself: parts of θ̂ in the radical, where M is the
identity, cost nothing to the last bit, however far θ̂ lies from the mean along them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightlike.errors import CapacityError
from lightlike.metric.root import Root
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.symmetric import ACCURACY, Shifted

# With N λ_1 in prior units above STIFF, rounding of an explicit I + N B Bᵀ or I + N Bᵀ B begins to
# show, and singular vectors of B itself are taken if they fit; above HIDDEN nothing else will do.
STIFF = 1e9
HIDDEN = 1e12

REFINEMENTS = 3


def displacement_of(
    root: Root,
    shifted: Shifted,
    z: Tensor,
    b: Tensor,
    stiffness: float,
    *,
    nll: float,
    left: bool,
    budget: float,
) -> float:
    """The displacement term from θ̂ and the gradient in prior units.

    Args:
        root: B.
        shifted: I + N B Bᵀ (left) or I + N Bᵀ B.
        z: Σ^{-½}(θ̂ − μ), (D,).
        b: Σ^½ ∇NLL, (D,); in the row space of B, as scores lie in the range of their covariance.
        stiffness: N λ_1(BᵀB), or an upper bound of it.
        nll: What the term is added to, and may largely cancel.
        left: Which matrix was given.
        budget: Bytes that may be used.

    Raises:
        CapacityError: if the prior is so wide that only the singular vectors of B would do, and
            they do not fit.
    """
    n = root.problem.survey.observations
    rows, columns = root.shape
    need = 8.0 * (4 * rows * columns + 4 * min(rows, columns) ** 2)
    if stiffness > STIFF and need <= budget:
        return by_singular_vectors(root, z, b, n)
    if stiffness > HIDDEN:
        raise CapacityError(
            f"The prior is so wide that singular vectors of the {rows:,} × {columns:,} root are "
            f"needed: {format_bytes(need)}, and {format_bytes(budget)} may be used.",
            f"N λ_1 in units of the prior is {stiffness:.1g}; cheaper sums would lose to "
            "rounding what makes up the length.",
            "Give a smaller prior variance, measure fewer observations, or raise memory=....",
        )
    both = torch.stack([z, b], 1)
    pushed = root.mv(both)
    if not left:
        return by_solving(root, shifted, both, pushed, None)
    solved = shifted.solve(pushed)
    value, error = by_rows(shifted, both, pushed, solved, n)
    if error <= ACCURACY * min(abs(value), abs(nll + value)):
        return value
    return by_solving(root, shifted, both, pushed, solved)


def by_rows(
    shifted: Shifted, both: Tensor, pushed: Tensor, solved: Tensor, n: int
) -> tuple[float, float]:
    """From p = B z, q = B b and the solutions of (I + N B Bᵀ)(x, y) = (p, q) alone.

    zᵀ(I − M) z = N pᵀx, bᵀM z = bᵀz − N qᵀx and bᵀM b = |b|² − N qᵀy. A perturbation E of the
    matrix changes the first by N xᵀE x, and so on; besides there is cancellation where b lies along
    large eigenvalues.

    Args:
        shifted: I + N B Bᵀ.
        both: z and b, (D, 2).
        pushed: p and q, (K, 2).
        solved: x and y, (K, 2).
        n: N.

    Returns:
        The term, and a bound on its error.
    """
    z, b = both.T
    inner = n * pushed.T @ solved
    value = float(0.5 * inner[0, 0] - (b @ z - inner[1, 0]) - 0.5 * (b @ b - inner[1, 1]))
    size = math.sqrt(n) * float(solved.norm(dim=0).sum())
    moved = 0.5 * shifted.rounding * size**2
    # Rounding of p and q, and of what is subtracted.
    length = float(z.norm() + b.norm())
    rounded = 4 * EPS * (math.sqrt(shifted.condition) * size * length + float(b.norm()) * length)
    return value, moved + rounded


def by_solving(
    root: Root, shifted: Shifted, both: Tensor, pushed: Tensor, solved: Tensor | None
) -> float:
    """From a Cholesky factorisation of I + N B Bᵀ or I + N Bᵀ B, refined against B itself.

    Approximations to M v (kept) and to (I − M) v (lost) are held for v = z and v = b. With their
    residuals e = lost − N BᵀB kept, each of the three terms is taken up to e_iᵀ M e_j.

    Args:
        root: B.
        shifted: I + N B Bᵀ if `solved` is given, I + N Bᵀ B otherwise.
        both: z and b, (D, 2).
        pushed: B (z, b), (K, 2).
        solved: (I + N B Bᵀ)⁻¹ B (z, b), (K, 2), or None.
    """
    n, b = root.problem.survey.observations, both[:, 1]

    def pull(u: Tensor) -> Tensor:
        return n * torch.stack([root.rmv(column) for column in u.T], 1)

    def shrink(v: Tensor) -> Tensor:
        if solved is not None:
            return v - pull(shifted.solve(root.mv(v)))
        return shifted.solve(v)

    if solved is not None:
        lost = pull(solved)
        kept = both - lost
    else:
        lost, kept = shifted.solve(pull(pushed)), shrink(both)
    pushed = root.mv(kept)
    e = lost - pull(pushed)
    for _ in range(REFINEMENTS):
        gain = n * pushed[:, 0].square().sum() + lost[:, 0].square().sum()
        terms = torch.stack([gain, (b @ kept[:, 1]).abs()])
        if bool((e.square().sum(0) <= 1e-16 * terms).all()):
            break
        step = shrink(e)
        trial = kept + step, lost - step
        forward = root.mv(trial[0])
        remainder = trial[1] - pull(forward)
        better = remainder.square().sum(0) < e.square().sum(0)
        kept, lost = torch.where(better, trial[0], kept), torch.where(better, trial[1], lost)
        pushed, e = torch.where(better, forward, pushed), torch.where(better, remainder, e)
        if not bool(better.any()):
            break
    gain = n * pushed[:, 0].square().sum() + lost[:, 0].square().sum()
    cross = b @ kept[:, 0] + kept[:, 1] @ e[:, 0]
    slope = b @ kept[:, 1] + kept[:, 1] @ e[:, 1]
    return float(0.5 * gain - cross - 0.5 * slope)


def by_singular_vectors(root: Root, z: Tensor, b: Tensor, n: int) -> float:
    """From the singular value decomposition of B written out."""
    _, s, V = torch.linalg.svd(root.dense(), full_matrices=False)
    p, q, h = V @ b, V @ z, n * s.square()
    return 0.5 * float(((h * q.square() - 2 * p * q - p.square()) / (1 + h)).sum())
