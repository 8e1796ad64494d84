"""The Gaussian razor from leading eigenvalues and the exact diagonal: certain bounds, no chance.

½ log det(I + N Σ^½ Î Σ^½) is half the sum of a concave function of the eigenvalues, so that those
which were computed and the trace of the others enclose it; fit and displacement are exact, the
latter by conjugate gradients to a stated bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from lightlike.errors import PriorError
from lightlike.length.conjugate import Displacement, displacement_by_products
from lightlike.length.description import DescriptionLength, KnownCounts
from lightlike.length.gaussian import Expansion
from lightlike.length.prior import Prior, ResolvedPrior
from lightlike.metric.operator import FisherOperator, ScaledOperator
from lightlike.spectrum.enclosure import Enclosing, Enclosure
from lightlike.spectrum.lanczos import lanczos
from lightlike.spectrum.partial import Lanczos
from lightlike.spectrum.search import State


@dataclass(frozen=True, eq=False)
class LeadingRazor:
    """A razor with certain bounds, and what it was made of.

    Attributes:
        length: The razor; its complexity is half way between the bounds, and `error` what they and
            conjugate gradients leave open.
        enclosing: What is known of Î if all variances are equal, of Σ^½ Î Σ^½ otherwise.
        scale: c, so that the complexity is ½ log det(I + c ·).
        displacement: By conjugate gradients; None without labels.
        prior: Means and variances.
    """

    length: DescriptionLength
    enclosing: Enclosing
    scale: float
    displacement: Displacement | None
    prior: ResolvedPrior

    @property
    def complexity(self) -> Enclosure:
        """½ log det(I + N Σ^½ Î Σ^½) in nats."""
        return self.enclosing.logdet(self.scale).times(0.5)

    @property
    def effective_dimension(self) -> Enclosure:
        """MacKay's γ = Σ cλ/(1 + cλ)."""
        return self.enclosing.effective_dimension(1.0 / self.scale)

    @property
    def leading_share(self) -> float:
        """Share of the trace that the leading eigenvalues make up; 1 for a zero matrix."""
        total = self.enclosing.trace
        return float(self.enclosing.leading.eigenvalues.sum()) / total if total else 1.0


def leading_razor(
    operator: FisherOperator,
    prior: Prior,
    expansion: Expansion,
    diagonal: Tensor,
    options: Lanczos | None = None,
    *,
    most: int | None = None,
    seed: int = 0,
    memory: int | float | str | None = None,
    state: Mapping[str, Tensor] | None = None,
    keep: Callable[[State], None] | None = None,
) -> LeadingRazor:
    """The razor from products with Î and its diagonal.

    Args:
        operator: Î.
        prior: With given variances.
        expansion: NLL_total and its gradient at θ̂.
        diagonal: Of Î, exact, (D,).
        options: Of the search for eigenvalues.
        most: An upper bound on the rank of Î, such as min(K, D); D unless given.
        seed: Of its random vectors.
        memory: For its basis.
        state: Of an interrupted call, see `lightlike.lanczos`.
        keep: Called with such states.

    Raises:
        PriorError: if the prior does not fit, or is to be fitted.
        CapacityError, EstimateError: if the eigenvalues do not fit in memory or do not settle.
    """
    problem, options = operator.problem, options or Lanczos()
    if prior.by_evidence:
        raise PriorError(
            "Variances are not fitted to bounds on the complexity.",
            "The maximum of a bound is not that of the evidence.",
            "Give the variance as a number, or use an exact method.",
        )
    resolved = prior.resolve(problem)
    n = problem.survey.observations
    matrix: FisherOperator | ScaledOperator = operator
    scale, entries = float(n), diagonal
    if resolved.isotropic:
        scale *= float(resolved.variance[0])
    else:
        matrix = ScaledOperator(operator, resolved.variance.sqrt())
        entries = resolved.variance * diagonal
    found = lanczos(
        matrix,
        **asdict(options),
        seed=seed,
        memory=memory,
        state=None if state is None else dict(state),
        keep=keep,
    )
    rank = operator.shape[0] if most is None else most
    enclosing = Enclosing.of(matrix, found, entries, rank, operator.precision)
    displacement = displacement_by_products(problem, resolved, expansion, operator.__matmul__)
    complexity = enclosing.logdet(scale).times(0.5)
    length = DescriptionLength(
        fit=expansion.nll,
        displacement=None if displacement is None else displacement.value,
        complexity=complexity.value,
        counts=KnownCounts(None, enclosing.effective_dimension(1.0 / scale).value),
        tuning_cost=0.0,
        stderr=0.0,
        kind="certified",
        observations=n,
        prior=resolved.description,
        complexity_error=complexity.error,
        displacement_error=0.0 if displacement is None else displacement.error,
    )
    return LeadingRazor(length, enclosing, scale, displacement, resolved)
