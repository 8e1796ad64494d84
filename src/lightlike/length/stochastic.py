"""The Gaussian razor where only products with Î can be had: complexity by stochastic quadrature.

½ log det(I + N Σ^½ Î Σ^½) is half the sum of a Bernstein function of the eigenvalues, so that
quadrature bounds it and only the probes leave it to chance; fit and displacement are exact, the
latter by conjugate gradients to a stated bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lightlike.errors import PriorError
from lightlike.length.conjugate import Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength, KnownCounts
from lightlike.length.gaussian import Expansion
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.metric.operator import FisherOperator, ScaledOperator
from lightlike.spectrum.beginning import State
from lightlike.spectrum.density import Density, Enclosed
from lightlike.spectrum.quadrature import Quadrature, quadrature


@dataclass(frozen=True, eq=False)
class StochasticRazor:
    """A razor by stochastic quadrature, and what it was made of.

    Attributes:
        length: The razor. Its standard error is that by chance of the complexity; its `error` what
            quadrature and conjugate gradients leave open.
        density: Of Î if all variances are equal, of Σ^½ Î Σ^½ otherwise.
        scale: c, so that the complexity is ½ log det(I + c ·).
        displacement: By conjugate gradients; None without labels.
        prior: Means and variances.
    """

    length: DescriptionLength
    density: Density
    scale: float
    displacement: Displacement | None
    prior: ResolvedPrior

    @property
    def complexity(self) -> Enclosed:
        """½ log det(I + N Σ^½ Î Σ^½) in nats, with its bounds and the share of leading pairs."""
        return self.density.logdet(self.scale).times(0.5)

    @property
    def effective_dimension(self) -> Enclosed:
        """MacKay's γ = Σ cλ/(1 + cλ)."""
        return self.density.effective_dimension(1.0 / self.scale)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """An interval in nats at a level of confidence, what is open by other means included.

        Of the total, or without labels of the complexity.
        """
        low, high = self.complexity.interval(level)
        if self.displacement is None or self.length.fit is None:
            return low, high
        rest = self.length.fit + self.displacement.value
        return rest + low, rest + high + self.displacement.error


def stochastic_razor(
    operator: FisherOperator,
    prior: Prior,
    expansion: Expansion,
    options: Quadrature | None = None,
    *,
    seed: int = 0,
    memory: int | float | str | None = None,
    state: Mapping[str, Tensor] | None = None,
    keep: Callable[[State], None] | None = None,
) -> StochasticRazor:
    """The razor from products with Î.

    Args:
        operator: Î.
        prior: With given variances.
        expansion: NLL_total and its gradient at θ̂.
        options: Of the quadrature.
        seed: Of its probes.
        memory: For vectors side by side.
        state: Of an interrupted call, see `lightlike.spectrum.quadrature`.
        keep: Called with such states.

    Raises:
        PriorError: if the prior does not fit, or is to be fitted.
        EstimateError: if a product is not finite.
    """
    problem = operator.problem
    if prior.by_evidence:
        raise PriorError(
            "Variances are not fitted by stochastic quadrature.",
            "Chance would be fitted too, and the standard error would not say so.",
            "Give the variance as a number, or use an exact method.",
        )
    resolved = prior.resolve(problem)
    n = problem.survey.observations
    matrix: FisherOperator | ScaledOperator = operator
    scale = float(n)
    if resolved.isotropic:
        scale *= float(resolved.variance[0])
    else:
        matrix = ScaledOperator(operator, resolved.variance.sqrt())
    density = quadrature(
        matrix, options, scale=scale, seed=seed, memory=memory, state=state, keep=keep
    )
    displacement = displacement_by_products(problem, resolved, expansion, operator.__matmul__)
    complexity = density.logdet(scale).times(0.5)
    length = DescriptionLength(
        fit=expansion.nll,
        displacement=None if displacement is None else displacement.value,
        complexity=complexity.value,
        counts=KnownCounts(None, density.effective_dimension(1.0 / scale).value),
        tuning_cost=0.0,
        stderr=complexity.stderr,
        kind="estimated",
        observations=n,
        prior=resolved.description,
        complexity_error=complexity.bracket,
        displacement_error=0.0 if displacement is None else displacement.error,
    )
    return StochasticRazor(length, density, scale, displacement, resolved)
