"""The Gaussian razor where only products with Î can be had: complexity by stochastic quadrature.

½ log det(I + N Σ^½ Î Σ^½) is half the sum of a Bernstein function of the eigenvalues, so that
quadrature bounds it and only the probes leave it to chance; fit and displacement are exact, the
latter by conjugate gradients to a stated bound. A variance may be fitted to the labels: then all of
it moves with the probes, and the errors are those of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from lightlike.length.conjugate import Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength, KnownCounts
from lightlike.length.displacements import Displacements
from lightlike.length.gaussian import Expansion
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.length.probed_evidence import (
    ProbedVariance,
    check_fitted,
    fit_probed_variance,
)
from lightlike.metric.kronecker.control import control_of
from lightlike.metric.operator import FisherOperator, ScaledOperator
from lightlike.spectrum.beginning import State
from lightlike.spectrum.density import Density
from lightlike.spectrum.enclosed import Enclosed
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
        complexity: ½ log det(I + N Σ^½ Î Σ^½) in nats, with its bounds and the share of leading
            pairs. Of a fitted variance its error is that as an estimate under the best one.
        fitted: The variance, if it was fitted to the labels.
    """

    length: DescriptionLength
    density: Density
    scale: float
    displacement: Displacement | None
    prior: ResolvedPrior
    complexity: Enclosed
    fitted: ProbedVariance | None = None

    @property
    def effective_dimension(self) -> Enclosed:
        """MacKay's γ = Σ cλ/(1 + cλ)."""
        if self.fitted is not None:
            return self.fitted.effective_dimension
        return self.density.effective_dimension(1.0 / self.scale)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """An interval in nats at a level of confidence, what is open by other means included.

        Of the total, or without labels of the complexity.
        """
        complexity = self.complexity
        if self.fitted is not None:
            complexity = replace(complexity, stderr=self.length.stderr)
        low, high = complexity.interval(level)
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
        prior: With given variances, or `Isotropic("evidence")`.
        expansion: NLL_total and its gradient at θ̂.
        options: Of the quadrature.
        seed: Of its probes.
        memory: For vectors side by side.
        state: Of an interrupted call, see `lightlike.spectrum.quadrature`.
        keep: Called with such states.

    Raises:
        PriorError: if the prior does not fit, if more than one variance is to be fitted, or its
            evidence has no maximum.
        EstimateError: if a product is not finite, or a fitted variance is left to chance.
        CapacityError: if the control does not fit in memory.
    """
    problem, options = operator.problem, options or Quadrature()
    resolved, n = prior.resolve(problem), problem.survey.observations

    def probe(scale: float, state: Mapping[str, Tensor] | None) -> Density:
        matrix: FisherOperator | ScaledOperator = operator
        root = operator.root
        if not resolved.isotropic:
            sigma = resolved.variance.sqrt()
            matrix, root = ScaledOperator(operator, sigma), root.scaled(sigma)
        return quadrature(
            matrix, options, scale=scale, seed=seed, memory=memory, state=state, keep=keep,
            approximation=control_of(root, options, memory),
        )  # fmt: skip

    if prior.by_evidence:
        gradient = check_fitted(prior, problem, expansion.gradient)
        displacements = Displacements(operator, resolved.mean, gradient, memory)
        density, fitted = _fitted(probe, displacements, n, options, state)
        resolved = fitted.under(resolved)
        scale = n * fitted.value
        displacement: Displacement | None = displacements.at(math.log(fitted.value))
        complexity, stderr = fitted.complexity, fitted.total_stderr
    else:
        fitted = None
        scale = n * float(resolved.variance[0]) if resolved.isotropic else float(n)
        density = probe(scale, state)
        displacement = displacement_by_products(problem, resolved, expansion, operator.__matmul__)
        complexity = density.logdet(scale).times(0.5)
        stderr = complexity.stderr
    length = DescriptionLength(
        fit=expansion.nll,
        displacement=None if displacement is None else displacement.value,
        complexity=complexity.value,
        counts=KnownCounts(None, density.effective_dimension(1.0 / scale).value),
        tuning_cost=0.5 * resolved.tuned * math.log(n),
        stderr=stderr,
        kind="estimated",
        observations=n,
        prior=resolved.description,
        complexity_error=complexity.bracket,
        displacement_error=0.0 if displacement is None else displacement.error,
    )
    return StochasticRazor(length, density, scale, displacement, resolved, complexity, fitted)


def _fitted(
    probe: Callable[[float, Mapping[str, Tensor] | None], Density],
    displacements: Displacements,
    observations: int,
    options: Quadrature,
    state: Mapping[str, Tensor] | None,
) -> tuple[Density, ProbedVariance]:
    """Probes and the variance fitted to them.

    Steps that suffice for a variance of 1 do for smaller ones. If a larger one is found and they do
    not, probes are taken again for that; a state knows which of the two it is of.
    """
    scale = float(observations) if state is None else float(state["targets"][1])
    density = probe(scale, state)
    fitted = fit_probed_variance(density, displacements, observations)
    wanted = observations * fitted.value
    enough = fitted.complexity.bracket <= options.share * fitted.total_stderr
    if scale == observations < wanted and not enough and density.steps[1] < options.steps:
        density = probe(wanted, None)
        fitted = fit_probed_variance(density, displacements, observations)
    return density, fitted
