"""What it costs that θ̂ is not the prior mean.

In prior units, z = Σ^{-½}(θ̂ − μ), b = Σ^½ ∇NLL, B = A Σ^½ and M = (I + N BᵀB)⁻¹, the two middle
terms of the razor are

    ½ δᵀΣ⁻¹δ − ½ (b + z)ᵀ M (b + z) = ½ zᵀ(I − M) z − bᵀM z − ½ bᵀM b.

The right-hand side never subtracts |z|² from itself: parts of θ̂ in the radical, where M is the
identity, cost nothing to the last bit, however far θ̂ lies from the mean along them.

If the root at hand is B̃ with ‖B̃ − B‖ ≤ δ, put η = √N δ. What is subtracted is twice the minimum of
φ(x) = ½|x|² + ½N|Bx|² − (b + z)ᵀx with the sign turned, and √N|B̃x| differs from √N|Bx| by at most
η|x|. At x̃ = M̃(b + z) the two minima therefore differ by about η|x̃| √N|B̃x̃| while η is small, and
by no more than ½((1 + η)² − 1)(|x̃|² + N|B̃x̃|²) whatever it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightlike.errors import CapacityError
from lightlike.metric.root import Root
from lightlike.spectrum.memory import format_bytes

# With N λ_1 in prior units above STIFF, rounding of an explicit I + N B Bᵀ or I + N Bᵀ B begins to
# show, and singular vectors of B itself are taken if they fit; above HIDDEN nothing else will do.
STIFF = 1e9
HIDDEN = 1e12

REFINEMENTS = 3

# η up to which the first order of the error, doubled, is a bound.
SLIGHT = 0.1


def displacement_of(
    root: Root,
    matrix: Tensor,
    z: Tensor,
    b: Tensor,
    largest: float,
    *,
    left: bool,
    budget: float,
    root_error: float = 0.0,
    product_error: float = 0.0,
) -> tuple[float, float]:
    """The displacement term from θ̂ and the gradient in prior units, and a bound on its error.

    Args:
        root: B.
        matrix: B Bᵀ (left) or Bᵀ B.
        z: Σ^{-½}(θ̂ − μ), (D,).
        b: Σ^½ ∇NLL, (D,); in the row space of B, as scores lie in the range of their covariance.
        largest: λ_1 of Bᵀ B.
        left: Which matrix was given.
        budget: Bytes that may be used.
        root_error: δ; 0 in float64.
        product_error: The same of the eigenvalues of `matrix`, beyond what δ makes.

    Raises:
        CapacityError: if the prior is so wide that only the singular vectors of B would do, and
            they do not fit; or so wide for products in float32.
    """
    n = root.problem.survey.observations
    rows, columns = root.shape
    need = 8.0 * (4 * rows * columns + 4 * min(rows, columns) ** 2)
    rounded = n * product_error > SLIGHT
    if (n * largest > STIFF or rounded) and need <= budget:
        found, *sizes = by_singular_vectors(root, z, b, n)
        return found, error_bound(root_error, n, *sizes)
    if rounded:
        raise CapacityError(
            f"Products in float32 leave N λ, in units of the prior, open by "
            f"{n * product_error:.2g}, and singular vectors of the {rows:,} × {columns:,} root "
            f"itself need {format_bytes(need)} of {format_bytes(budget)}.",
            "The length would be made of rounding.",
            "Measure with dtype='float64', or give a smaller prior variance.",
        )
    if n * largest > HIDDEN:
        raise CapacityError(
            f"The prior is so wide that singular vectors of the {rows:,} × {columns:,} root are "
            f"needed: {format_bytes(need)}, and {format_bytes(budget)} may be used.",
            f"N λ_1 in units of the prior is {n * largest:.1g}; cheaper sums would lose to "
            "rounding what makes up the length.",
            "Give a smaller prior variance, measure fewer observations, or raise memory=....",
        )
    found, *sizes = by_solving(root, matrix, z, b, n, left=left)
    return found, error_bound(root_error, n, *sizes)


def error_bound(root_error: float, n: int, size: float, image: float) -> float:
    """Bound on the error from δ, N, |x̃|² and N|B̃x̃|²."""
    eta = math.sqrt(n) * root_error
    always = 0.5 * ((1 + eta) ** 2 - 1) * (size + image)
    if eta > SLIGHT:
        return always
    return min(always, 2 * eta * math.sqrt(size * image) + eta**2 * size)


def by_solving(
    root: Root, matrix: Tensor, z: Tensor, b: Tensor, n: int, *, left: bool
) -> tuple[float, float, float]:
    """The term, |x|² and N|Bx|² at x = M(b + z).

    From a Cholesky factorisation of I + N B Bᵀ (left) or I + N Bᵀ B, refined against B itself.

    Approximations to M v (kept) and to (I − M) v (lost) are held for v = z and v = b. With their
    residuals e = lost − N BᵀB kept, each of the three terms is taken up to e_iᵀ M e_j.
    """
    system = n * matrix
    system.diagonal().add_(1.0)
    cholesky = torch.linalg.cholesky(system)

    def pull(u: Tensor) -> Tensor:
        return n * torch.stack([root.rmv(column) for column in u.T], 1)

    def shrink(v: Tensor) -> Tensor:
        if left:
            return v - pull(torch.cholesky_solve(root.mv(v), cholesky))
        return torch.cholesky_solve(v, cholesky)

    both = torch.stack([z, b], 1)
    pushed = root.mv(both)
    if left:
        lost = pull(torch.cholesky_solve(pushed, cholesky))
        kept = both - lost
    else:
        lost, kept = torch.cholesky_solve(pull(pushed), cholesky), shrink(both)
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
