"""The Gaussian razor from row sketches of A: a lower bound in expectation, with its standard error.

For one sketch S, ½ log det(I + N Σ^½ SᵀS Σ^½) is concave in SᵀS; by Jensen's inequality and
E[SᵀS] = Î its expectation is at most the complexity, and rises to it as draws are added.

The displacement comes from exact products with Î, not from S, which would miss a part of the
gradient. Where the model's derivatives give none without writing out A, S has to serve: it is a
constant less ½ rᵀ(N Î + Σ⁻¹)⁻¹ r, concave in Î as the inverse is operator convex (Bhatia 1997,
doi:10.1007/978-1-4612-0653-8, ch. V), so that it too is then at most the exact one in expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightlike.errors import PriorError
from lightlike.length.conjugate import Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength, KnownCounts
from lightlike.length.gaussian import Expansion, gaussian_razor
from lightlike.length.priors import Isotropic, Prior
from lightlike.metric.products.operator import Products
from lightlike.metric.root import Root
from lightlike.metric.sketch import SketchedFisher
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.estimate import Estimate


@dataclass(frozen=True)
class SketchedRazor:
    """Razors of independent sketches.

    Attributes:
        razors: One a repetition.
        prior: What they were taken under; a variance that is fitted is fitted to the first.
        displacement: From exact products; None if there are no labels, or S had to serve.
    """

    razors: Sequence[DescriptionLength]
    prior: Prior
    displacement: Displacement | None

    @property
    def complexities(self) -> list[float]:
        """½ log det(I + N Σ^½ SᵀS Σ^½) of each sketch, in nats."""
        return [razor.complexity for razor in self.razors]

    @property
    def totals(self) -> list[float]:
        """The whole length of each sketch, in nats; empty without labels."""
        return [razor.total for razor in self.razors if razor.total is not None]

    @property
    def complexity(self) -> Estimate:
        """½ log det(I + N Σ^½ Î Σ^½), below it in expectation."""
        return Estimate.of(self.complexities, "below")

    @property
    def total(self) -> Estimate | None:
        """The whole length, below it in expectation; None without labels."""
        return Estimate.of(self.totals, "below") if self.totals else None

    @property
    def length(self) -> DescriptionLength:
        """The mean of each term, with the largest d, as of the averaged spectrum.

        The standard error is that of the total, or of the complexity without labels.
        """
        first, count = self.razors[0], len(self.razors)
        displacements = [r.displacement for r in self.razors if r.displacement is not None]
        error = (self.total or self.complexity).stderr
        return replace(
            first,
            displacement=sum(displacements) / count if displacements else None,
            complexity=sum(self.complexities) / count,
            counts=KnownCounts(
                dimension=max(
                    (r.dimension for r in self.razors if r.dimension is not None), default=None
                ),
                effective_dimension=sum(r.effective_dimension for r in self.razors) / count,
            ),
            stderr=float(error),
            complexity_error=max(r.complexity_error for r in self.razors),
            displacement_error=max(r.displacement_error for r in self.razors),
            kind="estimated",
        )


def sketched_razor(
    prior: Prior,
    sketched: SketchedFisher,
    expansion: Expansion,
    keep: Callable[[Root], None] | None = None,
    displacement: Displacement | None = None,
) -> SketchedRazor:
    """The razor of every sketch.

    Args:
        prior: See `lightlike.priors`.
        sketched: The sketches.
        expansion: NLL_total and its gradient at θ̂.
        keep: Called with each sketched root afterwards.
        displacement: The displacement under this prior, if it is known already.

    Raises:
        PriorError: if the prior does not fit, or its evidence has no maximum.
    """
    problem = sketched.root.problem
    exact = Products(Root(problem.reference))
    products = expansion.gradient is not None and exact.spares_rows()
    fixed = prior

    def razor(decomposition: Decomposition) -> DescriptionLength:
        nonlocal fixed
        root = decomposition.factor
        assert isinstance(root, Root)
        fitted = isinstance(fixed, Isotropic) and fixed.by_evidence
        needed = expansion if fitted or not products else Expansion(None, None)
        try:
            found = gaussian_razor(root.problem, fixed, decomposition, needed).settled()
        except PriorError as error:
            if not fitted or expansion.gradient is None:
                raise
            raise PriorError(
                error.what,
                "It is that of a sketch, which misses a part of the gradient: away from an optimum "
                "that makes wide priors look better than they are.",
                "Train on, take more draws, or give the variance as a number.",
            ) from error
        if isinstance(fixed, Isotropic) and fixed.by_evidence:
            fixed = Isotropic(float(found.prior["variance"]), fixed.mean)
        if keep is not None:
            keep(root)
        return found

    razors = sketched.visit(razor)
    if products and displacement is None:
        resolved = fixed.resolve(problem)
        displacement = displacement_by_products(problem, resolved, expansion, exact.__matmul__)
    exact.close()
    if displacement is not None:
        value, error = displacement.value, displacement.error
        razors = [
            replace(r, fit=expansion.nll, displacement=value, displacement_error=error)
            for r in razors
        ]
    return SketchedRazor(razors, fixed, displacement)
