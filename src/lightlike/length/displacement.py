"""What it costs that θ̂ is not the prior mean.

In prior units, z = Σ^{-½}(θ̂ − μ), b = Σ^½ ∇NLL, B = A Σ^½ and M = (I + N BᵀB)⁻¹, the two middle
terms of the razor are

    ½ δᵀΣ⁻¹δ − ½ (b + z)ᵀ M (b + z) = ½ zᵀ(I − M) z − bᵀM z − ½ bᵀM b.

The right-hand side never subtracts |z|² from itself: parts of θ̂ in the radical, where M is the
identity, cost nothing to the last bit, however far θ̂ lies from the mean along them.

If the root at hand is B̃ with ‖B̃ − B‖ ≤ δ, put η = √N δ. −½ (b + z)ᵀM(b + z) is the minimum of
½|x|² + ½N|Bx|² − (b + z)ᵀx, and √N|B̃x| differs from √N|Bx| by at most η|x|. At x̃ = M̃(b + z) the
two minima therefore differ by about η|x̃| √N|B̃x̃| while η is small, and by no more than
½((1 + η)² − 1)(|x̃|² + N|B̃x̃|²) whatever it is.
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

# Steps at most; each lowers the residual by the error of the matrix, which float32 makes up to
# SLIGHT instead of a few eps.
REFINEMENTS, MORE_REFINEMENTS = 3, 10

# η up to which the first order of the error, doubled, is a bound.
SLIGHT = 0.1


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
    root_error: float = 0.0,
) -> tuple[float, float]:
    """The displacement term from θ̂ and the gradient in prior units, and a bound on its error.

    The bound is on what lower precision makes, and 0 in float64.

    Args:
        root: B.
        shifted: I + N B Bᵀ (left) or I + N Bᵀ B.
        z: Σ^{-½}(θ̂ − μ), (D,).
        b: Σ^½ ∇NLL, (D,); in the row space of B, as scores lie in the range of their covariance.
        stiffness: N λ_1(BᵀB), or an upper bound of it.
        nll: What the term is added to, and may largely cancel.
        left: Which matrix was given.
        budget: Bytes that may be used.
        root_error: δ; 0 in float64.

    Raises:
        CapacityError: if the prior is so wide that only the singular vectors of B would do, and
            they do not fit; or so wide for products in float32.
    """
    n = root.problem.survey.observations
    rows, columns = root.shape
    need = 8.0 * (4 * rows * columns + 4 * min(rows, columns) ** 2)
    rounding = shifted.matrix.rounding
    open_by = 0.0 if rounding is None else shifted.scale * rounding.product
    rounded = open_by > SLIGHT
    if (stiffness > STIFF or rounded) and need <= budget:
        found, *sizes = by_singular_vectors(root, z, b, n)
        return found, error_bound(root_error, n, *sizes)
    if rounded:
        raise CapacityError(
            f"Products in float32 leave N λ, in units of the prior, open by {open_by:.2g}, and "
            f"singular vectors of the {rows:,} × {columns:,} root itself need "
            f"{format_bytes(need)} of {format_bytes(budget)}.",
            "The length would be made of rounding.",
            "Measure with dtype='float64', or give a smaller prior variance.",
        )
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
    solved = None
    if left:
        solved = shifted.solve(pushed)
        value, error = by_rows(shifted, both, pushed, solved, n)
        if error <= ACCURACY * min(abs(value), abs(nll + value)) and not root_error:
            return value, 0.0
    found, *sizes = by_solving(root, shifted, both, pushed, solved)
    return found, error_bound(root_error, n, *sizes)


def error_bound(root_error: float, n: int, size: float, image: float) -> float:
    """Bound on the error from δ, N, |x̃|² and N|B̃x̃|²."""
    eta = math.sqrt(n) * root_error
    always = 0.5 * ((1 + eta) ** 2 - 1) * (size + image)
    if eta > SLIGHT:
        return always
    return min(always, 2 * eta * math.sqrt(size * image) + eta**2 * size)


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
) -> tuple[float, float, float]:
    """The term, |x|² and N|Bx|² at x = M(b + z).

    From a Cholesky factorisation of I + N B Bᵀ or I + N Bᵀ B, refined against B itself.

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
        if shifted.matrix.rounding is not None:
            # Of a matrix that is not quite BᵀB they would not add up to v.
            kept = both - lost
    pushed = root.mv(kept)
    e = lost - pull(pushed)
    for _ in range(REFINEMENTS if shifted.matrix.rounding is None else MORE_REFINEMENTS):
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
    size, image = kept.sum(1).square().sum(), n * pushed.sum(1).square().sum()
    return float(0.5 * gain - cross - 0.5 * slope), float(size), float(image)


def by_singular_vectors(root: Root, z: Tensor, b: Tensor, n: int) -> tuple[float, float, float]:
    """The term, |x|² and N|Bx|² from the singular value decomposition of B written out."""
    _, s, V = torch.linalg.svd(root.dense(), full_matrices=False)
    p, q, h = V @ b, V @ z, n * s.square()
    found = 0.5 * float(((h * q.square() - 2 * p * q - p.square()) / (1 + h)).sum())
    seen, w = (p + q) / (1 + h), b + z
    size = float(w @ w - (p + q).square().sum() + seen.square().sum())
    return found, max(0.0, size), float((h * seen.square()).sum())
