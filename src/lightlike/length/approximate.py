"""The Gaussian razor with a block-diagonal approximation of Î in its log-determinant alone.

½ log det(I + N Σ^½ M Σ^½) stands for the complexity. Where M is the diagonal of Î, or diagonal
blocks of it, in some orthonormal basis, it is an upper bound (Hadamard, Fischer), and so is the
length: fit and displacement are those of Î, the latter from exact products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lightlike.errors import PriorError
from lightlike.length.conjugate import Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength, KnownCounts
from lightlike.length.gaussian import Expansion
from lightlike.length.prior import Prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.kronecker.approximation import ApproximateFisher
from lightlike.spectrum.rounding import EPS


@dataclass(frozen=True, eq=False)
class ApproximateRazor:
    """A razor, and what it was made of.

    Attributes:
        length: The razor.
        approximation: M, in prior units unless all variances are equal.
        scale: c, so that the complexity is ½ log det(I + c M).
        displacement: From exact products; None without labels.
    """

    length: DescriptionLength
    approximation: ApproximateFisher
    scale: float
    displacement: Displacement | None


def approximate_razor(
    F: Fisher,
    prior: Prior,
    approximation: ApproximateFisher,
    approximate: Callable[[Fisher], ApproximateFisher],
    expansion: Expansion,
) -> ApproximateRazor:
    """The razor of an approximation.

    Args:
        F: Î.
        prior: With given variances.
        approximation: M ≈ Î.
        approximate: The same of Σ^½ Î Σ^½, for variances that are not all equal.
        expansion: NLL_total and its gradient at θ̂.

    Raises:
        PriorError: if the prior does not fit, or is to be fitted.
    """
    problem = F.problem
    if prior.by_evidence:
        raise PriorError(
            "Variances are not fitted to approximations of the Fisher matrix.",
            "The error of the approximation changes with the variance, and would be fitted too.",
            "Give the variance as a number, or use an exact method.",
        )
    resolved = prior.resolve(problem)
    n = problem.survey.observations
    scale = float(n)
    if resolved.isotropic:
        scale *= float(resolved.variance[0])
    else:
        approximation = approximate(Fisher(F.root.scaled(resolved.variance.sqrt())))
    displacement = displacement_by_products(problem, resolved, expansion)
    spectrum = approximation.spectrum
    bound = approximation.above and F.root.precision <= EPS
    length = DescriptionLength(
        fit=expansion.nll,
        displacement=None if displacement is None else displacement.value,
        complexity=0.5 * approximation.logdet(scale),
        counts=KnownCounts(
            # The directions of M, of which Î can have no more than rows and columns allow.
            dimension=min(len(spectrum), *F.root.shape),
            effective_dimension=spectrum.effective_dimension(1.0 / scale),
        ),
        tuning_cost=0.0,
        stderr=0.0,
        kind="approximate",
        observations=n,
        prior=resolved.description,
        displacement_error=0.0 if displacement is None else displacement.error,
        validity=f"complexity of {approximation.method}: "
        + ("an upper bound." if bound else "no bound on its error is known."),
    )
    return ApproximateRazor(length, approximation, scale, displacement)
