"""The Gaussian razor from a sample of the columns of A: complexity with its standard error.

½ log det(I + N Σ^½ Î Σ^½) comes from sampled columns of A Σ^½, its bias removed to second order by
the jackknife (see `lightlike.metric.thinned`). Fit and displacement are exact, the latter by
conjugate gradients on products with Î itself to a stated bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightlike.errors import PriorError
from lightlike.length.conjugate import Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import Expansion
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.metric.fisher import Fisher
from lightlike.metric.product import differentiable_twice
from lightlike.metric.thinned import ThinnedFisher
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.estimate import Estimate


@dataclass(frozen=True, eq=False)
class ThinnedCounts:
    """Counts of a sample of columns; what takes inverses is computed when it is asked for.

    Attributes:
        thinned: The sample, in prior units or of A itself.
        scale: c, so that c λ are N times the eigenvalues in prior units.
    """

    thinned: ThinnedFisher
    scale: float

    @property
    def dimension(self) -> int | None:
        """None: a sample bounds the rank of A from below, unless all columns are kept."""
        return len(self.thinned.spectrum) if self.thinned.exact else None

    @property
    def effective_dimension(self) -> float:
        """MacKay's γ = Σ cλ / (1 + cλ), its bias removed to second order."""
        return float(self.thinned.effective_dimension(1.0 / self.scale))


@dataclass(frozen=True, eq=False)
class ThinnedRazor:
    """A razor by a sample of columns, and what it was made of.

    Attributes:
        length: The razor. Its standard error is that by chance of the complexity.
        thinned: The sample, of A if all variances are equal, of A Σ^½ otherwise.
        scale: c, so that the complexity is ½ log det(I + c ·).
        displacement: By conjugate gradients; None without labels.
    """

    length: DescriptionLength
    thinned: ThinnedFisher
    scale: float
    displacement: Displacement | None

    @property
    def complexity(self) -> Estimate:
        """½ log det(I + N Σ^½ Î Σ^½) in nats, its bias removed to second order."""
        found = self.thinned.logdet(self.scale)
        return replace(found, value=0.5 * found.value, stderr=0.5 * found.stderr)

    @property
    def plain(self) -> float:
        """The same of the sample as it is: at most the complexity in expectation."""
        return 0.5 * self.thinned.logdets(self.scale)[0]


def thinned_razor(
    F: Fisher,
    prior: Prior,
    expansion: Expansion,
    options: Columns | None = None,
    *,
    seed: int = 0,
    memory: int | float | str | None = None,
) -> ThinnedRazor:
    """The razor from a sample of columns.

    Args:
        F: Î.
        prior: With given variances.
        expansion: NLL_total and its gradient at θ̂.
        options: Of the sample.
        seed: Of the choice of columns.
        memory: What may be used.

    Raises:
        PriorError: if the prior does not fit, or is to be fitted.
        CapacityError: if the sample does not fit in memory.
        EstimateError: if the variance is too large for a factorisation in float64.
    """
    if prior.by_evidence:
        raise PriorError(
            "Variances are not fitted to a sample of columns.",
            "Chance would be fitted too, and the standard error would not say so.",
            "Give the variance as a number, or use an exact method.",
        )
    problem = F.problem
    resolved = prior.resolve(problem)
    n = problem.survey.observations
    root, scale = F.root, float(n)
    if resolved.isotropic:
        scale *= float(resolved.variance[0])
    else:
        root = root.scaled(resolved.variance.sqrt())
    thinned = ThinnedFisher(root, options or Columns(), seed, memory)
    displacement = _displacement(F, resolved, expansion)
    complexity = thinned.logdet(scale)
    length = DescriptionLength(
        fit=expansion.nll,
        displacement=None if displacement is None else displacement.value,
        complexity=0.5 * float(complexity),
        counts=ThinnedCounts(thinned, scale),
        tuning_cost=0.0,
        stderr=0.5 * float(complexity.stderr),
        kind="certified" if thinned.exact else "estimated",
        observations=n,
        prior=resolved.description,
        displacement_error=0.0 if displacement is None else displacement.error,
    )
    return ThinnedRazor(length, thinned, scale, displacement)


def _displacement(F: Fisher, prior: ResolvedPrior, expansion: Expansion) -> Displacement | None:
    """From exact products, through rows where the model cannot be differentiated twice."""
    if expansion.gradient is None:
        return None
    product = None if differentiable_twice(F.problem) else F.__matmul__
    return displacement_by_products(F.problem, prior, expansion, product)
