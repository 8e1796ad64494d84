"""The Gaussian razor from a sample of the columns of A: complexity with its standard error.

½ log det(I + N Σ^½ Î Σ^½) comes from sampled columns of A Σ^½, its bias removed to second order by
the jackknife (see `lightlike.metric.thinned`). Fit and displacement are exact, the latter by
conjugate gradients on products with A and Aᵀ to a stated bound. The sample serves these as a
preconditioner, so that they take some ten products however stiff the matrix is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightlike.errors import PriorError
from lightlike.length.conjugate import TOLERANCE, Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import Expansion, in_prior_units
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.metric.thinned import ThinnedFisher
from lightlike.metric.twice import differentiable_twice, root_product
from lightlike.spectrum.cholesky import solve
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.estimate import Estimate

Product = Callable[[Tensor], Tensor]

# Products after which the search ends whatever is left; some ten suffice unless rounding stands
# in the way.
MOST = 100


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
    displacement = _displacement(F, resolved, expansion, thinned, scale)
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


def _displacement(
    F: Fisher,
    prior: ResolvedPrior,
    expansion: Expansion,
    thinned: ThinnedFisher,
    scale: float,
) -> Displacement | None:
    """From exact products, helped by the sample; None without labels.

    Through rows where the model cannot be differentiated twice, and as elsewhere where the prior
    has parameters without variance away from their mean.
    """
    g = expansion.gradient
    if g is None:
        return None
    problem = F.problem
    if not differentiable_twice(problem):
        return displacement_by_products(problem, prior, expansion, F.__matmul__)
    if bool(((prior.variance == 0) & (prior.mean != problem.theta)).any()):
        return displacement_by_products(problem, prior, expansion)
    z, b = in_prior_units(problem, prior, g)
    sigma, root = prior.variance.sqrt(), Root(problem)
    n = problem.survey.observations
    factor = thinned.factor(scale)
    found = preconditioned(
        root_product(problem, sigma * (b + z)),
        lambda w: n * root_product(problem, prior.variance * root.rmv(w)),
        lambda w: solve(factor, w),
        n,
    )
    return Displacement(
        found.value - float(b @ z) - 0.5 * float(b @ b), found.error, found.products
    )


def preconditioned(y: Tensor, product: Product, precondition: Product, n: int) -> Displacement:
    """½ N yᵀ P⁻¹ y for P = I + N B Bᵀ, by conjugate gradients preconditioned by a matrix near P.

    With it the displacement is ½ zᵀz − ½ (b + z)ᵀ(I + N BᵀB)⁻¹(b + z) for y = B (b + z), less
    bᵀz + ½ bᵀb. Any w bounds it from below by ½ N (2 yᵀw − wᵀP w), which is off by at most
    ½ N |y − P w|², as P is at least I.

    Args:
        y: B (b + z), (K,).
        product: w ↦ N B Bᵀ w.
        precondition: w ↦ P̃⁻¹ w.
        n: N.
    """
    w, image = torch.zeros_like(y), torch.zeros_like(y)
    residual, taken = y.clone(), 1
    direction = precondition(residual)
    slope = float(residual @ direction)
    while 0.5 * n * float(residual.square().sum()) > TOLERANCE and taken < MOST:
        pushed = direction + product(direction)
        taken += 1
        step = slope / float(direction @ pushed)
        w += step * direction
        image += step * pushed
        residual = y - image
        turned = precondition(residual)
        before, slope = slope, float(residual @ turned)
        direction = turned + slope / before * direction
    value = 0.5 * n * float(y @ w + residual @ w)
    return Displacement(value, 0.5 * n * float(residual.square().sum()), taken)
