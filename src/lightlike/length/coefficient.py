"""What is reported of a learning coefficient, and the length that it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lightlike.errors import choice_error
from lightlike.length.description import UNITS, check_units
from lightlike.length.limits import Limit, extrapolate
from lightlike.numbers import check_positive, check_whole
from lightlike.results import Result, fields_of, plain


@dataclass(frozen=True)
class Diagnostics:
    """What the chains at one temperature were worth.

    Attributes:
        temperature: β.
        localisation: γ.
        loss: n E_β[L_n] in nats.
        loss_stderr: Its standard error.
        lowest: The lowest n L_n that was seen (of "sgld": at the last points).
        rhat: R̂ of n L_n, split and by ranks.
        effective_draws: Effective sample size of its mean.
        acceptance: Mean acceptance probability of each chain; empty for "sgld".
        chain_means: n β (E[L_n] − L_n(θ̂)) of each chain.
        step_size: Largest leapfrog step, in units of each coordinate's spread.
        divergences: Trajectories that left the region where the step size serves; rejected.
        together: Whether all chains went through the model in one pass.
        controls: Control variates that took noise off the mean.
        virial: Mean of D − w·∇U for w = θ − θ̂ and the density e^{−U}, 0 in equilibrium; None of
            "sgld".
        virial_stderr: Its standard error.
        swaps: Share of exchanges with the next temperature that were taken; None at the last.
    """

    temperature: float
    localisation: float
    loss: float
    loss_stderr: float
    lowest: float
    rhat: float
    effective_draws: float
    acceptance: tuple[float, ...]
    chain_means: tuple[float, ...]
    step_size: float
    divergences: int
    together: bool
    controls: int = 0
    virial: float | None = None
    virial_stderr: float | None = None
    swaps: float | None = None


@dataclass(frozen=True)
class SingularLength(Result):
    """The free energy n L_n(θ̂) + λ log n − (m − 1) log log n as a code length, up to O(1).

    Attributes:
        fit: n L_n(θ̂).
        penalty: λ log n.
        multiplicity_term: −(m − 1) log log n, 0 or negative.
        stderr: Standard error of the total.
        multiplicity: m that was assumed.
        observations: n.
        units: "nats" or "bits".
        kind: Always "estimated".
    """

    fit: float
    penalty: float
    multiplicity_term: float
    stderr: float
    multiplicity: int
    observations: int
    units: str = "nats"
    kind: str = "estimated"

    @property
    def total(self) -> float:
        """The whole length."""
        return self.fit + self.penalty + self.multiplicity_term

    def to(self, units: str) -> SingularLength:
        """The same length in "nats" or "bits".

        Raises:
            ChoiceError: for other units.
        """
        check_units(units)
        factor = UNITS[units] / UNITS[self.units]
        terms = ("fit", "penalty", "multiplicity_term", "stderr")
        changed: dict[str, Any] = {name: getattr(self, name) * factor for name in terms}
        return replace(self, units=units, **changed)

    def to_dict(self) -> dict[str, Any]:
        """All terms by name."""
        return {"total": plain(self.total), **fields_of(self)}


@dataclass(frozen=True)
class LearningCoefficient(Result):
    """λ̂ with its standard error; at finite n it is the slope of the free energy in log n there.

    Attributes:
        value: λ̂.
        stderr: Standard error, from autocorrelation and from the spread between chains.
        observations: n.
        nll: n L_n(θ̂), in nats.
        rank_bound: Half the largest rank of the Fisher matrix seen at θ̂ and at a draw, which λ does
            not exceed; None if it was not asked for.
        method: "reference", "difference" or "limit".
        diagnostics: One entry a temperature.
        bias: "none" of exact samplers at this n and β; "unknown" of "sgld", whose step size and
            batches change the distribution by more than the standard error tells.
        kind: Always "estimated".
        rank: Half the rank at θ̂ itself; None if it was not asked for or is not certain.
        limit: Of "limit", what `value` comes from: the laws that λ̂(t) may follow.
        covariance: Of "limit", that of `slopes`.
    """

    value: float
    stderr: float
    observations: int
    nll: float
    rank_bound: float | None
    method: str
    diagnostics: tuple[Diagnostics, ...]
    bias: str = "none"
    kind: str = "estimated"
    rank: float | None = None
    limit: Limit | None = None
    covariance: tuple[tuple[float, ...], ...] = ()

    def __float__(self) -> float:
        return self.value

    @property
    def slopes(self) -> tuple[float, ...]:
        """N β (E_β[L_n] − L_n(θ̂)) at each temperature: the slopes of the free energy in log n."""
        return tuple(d.temperature * (d.loss - self.nll) for d in self.diagnostics)

    @property
    def regular(self) -> bool | None:
        """Whether the rank at θ̂ is that at a draw nearby; None if it is not known.

        It is then constant all around, and so are the network's outputs along a manifold of
        dimension D − d: if the loss has no zero curvature across it, λ = d/2 and m = 1.
        """
        if self.rank is None or self.rank_bound is None:
            return None
        return self.rank == self.rank_bound

    def at_limit(self) -> LearningCoefficient:
        """The value extrapolated to t → ∞, see `lightlike.length.limits`; of "limit" alone.

        Raises:
            ChoiceError: for other methods.
        """
        if not self.covariance:
            raise choice_error("method", self.method, ["'limit'"])
        samples = [self.observations * d.temperature for d in self.diagnostics]
        limit = extrapolate(
            samples, self.slopes, self.covariance, regular=bool(self.regular), bound=self.rank_bound
        )
        return replace(self, value=limit.value, stderr=limit.stderr, limit=limit)

    def __str__(self) -> str:
        rank = "" if self.rank_bound is None else f", at most {self.rank_bound:g} by the rank"
        bias = "" if self.bias == "none" else f", {self.bias} bias"
        rhat = max(d.rhat for d in self.diagnostics)
        draws = min(d.effective_draws for d in self.diagnostics)
        return (
            f"λ̂ = {self.value:.4g} ± {self.stderr:.2g} (estimated{rank}{bias}; "
            f"R̂ = {rhat:.3f}, {draws:,.0f} effective draws)"
        )

    @property
    def wbic(self) -> float | None:
        """Watanabe's WBIC n E_β[L_n], in nats; None at temperatures other than β = 1/log n."""
        found = self._at_wbic()
        return None if found is None else found.loss

    @property
    def wbic_stderr(self) -> float | None:
        """Its standard error."""
        found = self._at_wbic()
        return None if found is None else found.loss_stderr

    def interval(self, *, multiplicity: int = 1, errors: float = 2.0) -> tuple[float, float]:
        """Where λ lies, if its multiplicity is at most m: sampling error and finite n β together.

        From λ̂ − k s up to λ̂ + k s + (m − 1)/log(n β), and no further than `rank_bound`: at finite
        n β the slope of the free energy is λ − (m − 1)/log(n β) to leading order (Watanabe 2009,
        doi:10.1017/CBO9780511800474). A second temperature sees of m only how that share changes:
        by 0.016 (m − 1) between n β = 5,000 and 20,000, which drowns in the errors of both. So m is
        not estimated but assumed. A value of method "limit" has that share in it, and in its
        standard error: it takes λ̂ ± k s for every m.

        Args:
            multiplicity: The largest m that is thought possible; 1 is that of regular models.
            errors: k, the standard errors to either side.

        Returns:
            Its lower and upper end.

        Raises:
            ChoiceError: if m is not a whole number from 1 up, k is not positive, or n β ≤ 1.
        """
        check_whole("multiplicity", multiplicity, 1)
        check_positive("errors", errors)
        upper = self.value + errors * self.stderr
        if multiplicity > 1 and self.limit is None:
            samples = self.observations * min(d.temperature for d in self.diagnostics)
            if samples <= 1.0:
                raise choice_error("multiplicity", multiplicity, ["1, as log(n β) ≤ 0"])
            upper += (multiplicity - 1) / math.log(samples)
        if self.rank_bound is not None:
            upper = min(upper, max(self.rank_bound, self.value))
        return max(0.0, self.value - errors * self.stderr), upper

    def length(self, multiplicity: int = 1) -> SingularLength:
        """The length n L_n(θ̂) + λ̂ log n − (m − 1) log log n, with its standard error.

        Args:
            multiplicity: m. It is not estimated, for the reason that `interval` gives.

        Raises:
            ChoiceError: if m is not a whole number from 1 up.
        """
        check_whole("multiplicity", multiplicity, 1)
        log = math.log(self.observations)
        term = 0.0
        if multiplicity > 1:
            if log <= 1.0:
                raise choice_error("multiplicity", multiplicity, ["1, as log log n ≤ 0"])
            term = -(multiplicity - 1) * math.log(log)
        return SingularLength(
            self.nll, self.value * log, term, self.stderr * log, multiplicity, self.observations
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything by name, in plain Python types."""
        wbic = {"wbic": plain(self.wbic), "wbic_stderr": plain(self.wbic_stderr)}
        return {**fields_of(self), **wbic}

    def _at_wbic(self) -> Diagnostics | None:
        inverse = math.log(self.observations)
        same = [d for d in self.diagnostics if math.isclose(d.temperature * inverse, 1.0)]
        return same[0] if same else None
