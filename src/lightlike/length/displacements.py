"""The displacement term under N(μ, σ²I) at every σ² at once, from products with the Fisher matrix.

With δ = θ̂ − μ, H = N Î, g = ∇NLL_total, ρ = g − Hδ and τ = 1/σ² the term of the razor is

    ½ δᵀHδ − gᵀδ − ½ ρᵀ(H + τI)⁻¹ρ,

of which σ² touches the last part alone. Lanczos steps from ρ, those of conjugate gradients (Golub &
Meurant 2010, doi:10.1515/9781400833887, ch. 4), give the spectral measure of ρ, and with it that
part for all τ. 1/(h + τ) is completely monotone in h, so that Gauss's rule is a lower bound and
Radau's with a node at 0 an upper one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightlike.length.conjugate import MOST, Displacement
from lightlike.metric.operator import FisherOperator
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.probes import Operator
from lightlike.spectrum.recurrence import Recurrence
from lightlike.spectrum.tridiagonal import Measure, Rule

# Steps are taken until what they leave open is looked at; then as many times more.
FIRST, GROWTH = 4, 1.3


class Displacements:
    """The displacement as a function of t = log σ².

    Args:
        operator: Î.
        mean: μ, (D,).
        gradient: ∇NLL_total(θ̂), (D,).
        memory: For the Krylov space, half of it.

    Attributes:
        products: That were taken.
    """

    def __init__(
        self,
        operator: FisherOperator,
        mean: Tensor,
        gradient: Tensor,
        memory: int | float | str | None = None,
    ) -> None:
        problem = operator.problem
        self._n = problem.survey.observations
        self._matrix = Operator(operator)
        delta = problem.theta - mean
        image = torch.zeros_like(delta)
        if bool(delta.any()):
            image = self._n * (self._matrix @ delta[:, None])[:, 0]
        self._constant = 0.5 * float(delta @ image) - float(gradient @ delta)
        rho = gradient - image
        self._square = float(rho @ rho)
        self._run = Recurrence(self._matrix, rho[:, None]) if self._square else None
        self._most = max(FIRST, min(MOST, int(resolve_memory(memory) / (16.0 * len(rho)))))
        self._rules: tuple[Rule, Rule] | None = None
        self._look = FIRST
        self.advance()

    @property
    def products(self) -> int:
        """Products with Î that were taken."""
        return self._matrix.products

    @property
    def finished(self) -> bool:
        """Whether more steps would tell nothing, or are more than are taken."""
        return self._run is None or self._run.finished or self._run.steps >= self._most

    def advance(self) -> None:
        """More steps, up to the next look."""
        run = self._run
        if run is None or self.finished:
            return
        while run.steps < min(self._look, self._most) and not run.finished:
            run.advance()
        self._look = max(self._look + 1, int(GROWTH * self._look))
        (measure,) = run.measures()
        self._rules = _positive(measure), measure.radau

    def bounds(self, t: float) -> tuple[float, float]:
        """Certain bounds on the term at log σ² = t, in nats."""
        tau = math.exp(-t)
        low, high = self._both(lambda h: 1.0 / (h + tau))
        return self._constant - 0.5 * high, self._constant - 0.5 * low

    def curvature(self, t: float) -> float:
        """The second derivative in t, by Gauss's rule."""
        tau = math.exp(-t)
        return self._both(lambda h: (0.5 * tau * h - 0.5 * tau**2) / (h + tau) ** 3)[0]

    def at(self, t: float) -> Displacement:
        """The term at log σ² = t."""
        low, high = self.bounds(t)
        return Displacement(low, high - low, self.products)

    def _both(self, f: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        if self._rules is None:
            return 0.0, 0.0
        gauss, radau = (self._square * r.of(lambda x: f(self._n * x)) for r in self._rules)
        return gauss, radau


def _positive(measure: Measure) -> Rule:
    """Gauss's rule without nodes that are 0 but for rounding: scores lie in the range of Î."""
    rule = measure.gauss
    kept = rule.nodes > measure.noise
    return Rule(rule.nodes[kept], rule.weights[kept])
