"""A saved measurement, asked again: another tolerance, prior variance, unit or number of labels.

Neither the model nor the data are needed. What is not among the numbers that a measurement keeps is
not guessed at: the error says what to keep when measuring.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from lightlike.assess.checks import check_data, check_gap, check_optimum, check_prior
from lightlike.assess.diagnosis import Check
from lightlike.assess.measurement import Measurement
from lightlike.errors import MissingError, PriorError, choice_error
from lightlike.geometry.dimension import Dimension
from lightlike.length.criteria import Criteria
from lightlike.length.description import DescriptionLength, KnownCounts, check_units
from lightlike.length.evidence import best_variance
from lightlike.length.priors import Isotropic, Prior
from lightlike.length.projections import Projections
from lightlike.numbers import is_finite
from lightlike.problem.data import digest


def reanalyse(
    m: Measurement,
    *,
    tolerance: float | None = None,
    prior: Prior | float | str | None = None,
    units: str | None = None,
    observations: float | None = None,
) -> Measurement:
    """The same measurement under other settings, without the model or the data.

    Args:
        m: From `lightlike.measure` or `lightlike.load`.
        tolerance: Singular values s_k of A above this share of the largest count towards the
            dimension, and towards d in the split of the complexity; at least the measured one.
            Layers' ranks, sources and saturation, counted at another one, are left out.
        prior: A variance σ², "evidence" for the one under which the labels are shortest, or
            `Isotropic` around the mean that was measured with. The displacement under it is
            ½ Σ_k (N λ_k q_k² − 2 p_k q_k − σ² p_k²) / (1 + N σ² λ_k), with q and p the projections
            of θ̂ − μ and ∇NLL on the eigenvectors (`projections=True` keeps them); the complexity
            ½ Σ log(1 + N σ² λ_k) needs eigenvalues alone.
        units: "nats" or "bits".
        observations: N′: the length as if every observation counted N′/N times, so that NLL, ∇NLL
            and N Î all grow by that share; what more data of the same kind would cost.

    Returns:
        A new measurement. Its record says what was changed, under "reanalysed"; checks that do not
        depend on the settings are those of the measurement.

    Raises:
        MissingError: if an answer needs more than was kept; it says what to keep when measuring.
        EstimateError: if rounding hides the displacement under such a prior.
        PriorError: if the prior is none, or the evidence has no maximum.
        ChoiceError: if a setting is not one.
    """
    if units is not None:
        check_units(units)
    changed: dict[str, Any] = dict(m.record.get("reanalysed", {}))
    dimension, length = m.dimension, m.length
    target = length.units if units is None else units
    if units is not None and units != length.units:
        changed["units"] = units
    if tolerance is not None:
        dimension = _cut(m, tolerance)
        changed["tolerance"] = float(tolerance)
    if prior is not None or observations is not None:
        length, notes = _again(m, prior, observations)
        changed |= notes
    length = length.to(target)
    if tolerance is not None:
        counts = KnownCounts(dimension.value, length.effective_dimension)
        length = replace(length, counts=counts)
    if changed == m.record.get("reanalysed", {}):
        return m
    checks = tuple(_checks(m, dimension, length.to("nats")))
    record = {**m.record, "tolerance": dimension.tolerance, "reanalysed": changed}
    layers, explanation, saturation = m.layers, m.explanation, m.saturation
    if tolerance is not None:
        record["tolerance_from"] = "given"
        # What was counted at the other tolerance would contradict the new dimension.
        layers = [replace(layer, dimension=None) for layer in layers]
        explanation, saturation = None, None
    if prior is not None:
        record["prior_digest"] = _digest(m, length)
    count = length.observations
    return replace(
        m,
        observations=count,
        dimension=dimension,
        length=length,
        layers=layers,
        explanation=explanation,
        saturation=saturation,
        criteria=_criteria(m, dimension, count),
        record=record,
        checks=checks,
        warnings=_warnings(m, checks),
    )


def _cut(m: Measurement, tolerance: float) -> Dimension:
    """The dimension at another tolerance."""
    if not is_finite(tolerance) or not 0 <= tolerance < 1:
        raise choice_error("tolerance", tolerance, ["None", "a number from 0 to 1"])
    _require_exact(m, "dimension at another tolerance")
    values = m.spectrum.values
    if tolerance < values.tolerance:
        raise MissingError(
            f"Singular values below {values.tolerance:.2g} of the largest were not kept; the "
            f"tolerance is {tolerance:.2g}.",
            "Rounding hides whether they are zero.",
            f"Give {values.tolerance:.2g} or more.",
        )
    rows, columns = values.shape
    bound = tolerance**2 * values.largest
    count = values.count(bound)
    d, kept = count.value, values.eigenvalues
    following = float(kept[d]) if d < len(kept) else values.residue
    gap = math.inf
    if d and following > 0.0:
        gap = 0.5 * math.log10(float(kept[d - 1]) / following)
    upper = min(count.upper, m.dimension.upper)
    exact = count.lower == upper and values.rounding is None
    return Dimension(
        value=d,
        lower=count.lower,
        upper=upper,
        kind="exact" if exact else "certified",
        gap=gap,
        tolerance=float(tolerance),
        data_limited=d == rows < columns,
        bound="data" if rows < columns else "parameters",
    )


@dataclass(frozen=True)
class _Asked:
    """A prior variance to take, or to find, and what it is called."""

    variance: float | None
    description: dict[str, Any]


def _again(
    m: Measurement, prior: Prior | float | str | None, observations: float | None
) -> tuple[DescriptionLength, dict[str, Any]]:
    """The razor under another prior, or of another number of observations, in nats."""
    _require_exact(m, "length under another prior or of other data")
    old = m.length.to("nats")
    count = old.observations if observations is None else observations
    if not is_finite(count) or isinstance(count, bool) or count < 1 or int(count) != count:
        raise choice_error("observations", observations, ["None", "a whole number, 1 or more"])
    share, asked = count / old.observations, _asked(m, prior)
    changed: dict[str, Any] = {}
    term = None
    if old.displacement is not None and old.fit is not None:
        term = _projections(m)
    variance = asked.variance
    tuning = old.tuning_cost
    if variance is None:
        if term is None:
            raise PriorError(
                "The evidence needs labels.",
                "It is the probability of the labels.",
                "Give the variance as a number.",
            )
        variance = best_variance(term.curve(count))
        tuning = 0.5 * math.log(count)
        asked.description["variance"] = variance
    elif prior is not None:
        tuning = 0.0
    if prior is not None:
        changed["prior"] = {"name": "isotropic", "variance": variance}
    if observations is not None:
        changed["observations"] = int(count)
    scale = count * variance
    return replace(
        old,
        fit=None if old.fit is None else share * old.fit,
        displacement=None if term is None else term.term(variance, count),
        complexity=0.5 * m.spectrum.logdet(scale),
        counts=KnownCounts(old.dimension, m.spectrum.effective_dimension(1.0 / scale)),
        tuning_cost=tuning,
        observations=int(count),
        prior=asked.description,
        complexity_error=0.5 * m.spectrum.logdet_error(scale),
        validity="",
    ), changed


def _asked(m: Measurement, prior: Prior | float | str | None) -> _Asked:
    """The variance asked for; that of the measurement if none is."""
    old = dict(m.length.prior)
    mean = old.get("mean", "given")
    if prior is None:
        variance = old.get("variance")
        if old.get("name") != "isotropic" or not isinstance(variance, int | float):
            raise MissingError(
                f"The length was measured under a {old.get('name')} prior, whose variances are not "
                "equal.",
                "It rests on eigenvalues in units of that prior, which are not kept.",
                "Give a variance as prior=..., or measure again.",
            )
        return _Asked(float(variance), old)
    if isinstance(prior, Isotropic):
        asked = prior.describe()["mean"]
        if asked != mean or asked == "given":
            raise MissingError(
                f"The prior's mean is {asked}, that of the measurement {mean}.",
                "Distances of θ from another mean are not kept.",
                "Give the variance alone to keep the mean, or measure again.",
            )
        prior = prior.variance
    elif isinstance(prior, Prior):
        raise MissingError(
            f"A {type(prior).__name__} prior has variances of its own for every parameter.",
            "Eigenvalues in its units are not kept.",
            "Measure again under it; a saved result knows isotropic priors.",
        )
    description = {"name": "isotropic", "mean": mean}
    made = Isotropic(prior)  # which refuses what is no variance
    if isinstance(made.variance, str):
        return _Asked(None, {**description, "fitted_by": "evidence"})
    return _Asked(float(made.variance), {**description, "variance": float(made.variance)})


def _projections(m: Measurement) -> Projections:
    if m.projections is None:
        raise MissingError(
            "The projections of θ̂ − μ and of ∇NLL on the eigenvectors were not kept.",
            "The displacement under another prior, or with other data, is made of them.",
            "Measure with projections=True, in float64.",
        )
    return m.projections


def _require_exact(m: Measurement, what: str) -> None:
    if not m.spectrum.whole:
        raise MissingError(
            f"A {what} is not to be had from the {len(m.spectrum):,} largest eigenvalues.",
            "All others are known by sums only, under the settings that were measured.",
            "Measure again with these settings, or by an exact route.",
        )
    if m.spectrum.kind == "estimated" or m.length.name != "gaussian" or "sketch" in m.record:
        raise MissingError(
            f"A {what} is not to be had from estimates by {m.spectrum.method!r}.",
            "Their eigenvalues are not those that the lengths were made of.",
            "Measure again with these settings, or by an exact route.",
        )


def _checks(m: Measurement, dimension: Dimension, length: DescriptionLength) -> Iterator[Check]:
    """The checks, those that depend on the settings made again."""
    discrete = m.criteria.get("uniform") is not None
    shape = m.spectrum.shape
    again = [check_gap(dimension), check_data((shape[0], shape[1]), dimension)]
    again += [*check_optimum(length, discrete=discrete), *check_prior(m.spectrum, length)]
    by_name = {check.name: check for check in again}
    prior = {"quadratic picture", "data outweigh prior"}
    for check in m.checks:
        if check.name in by_name:
            yield by_name.pop(check.name)
        elif check.name not in prior:
            yield check
    yield from by_name.values()


def _warnings(m: Measurement, checks: tuple[Check, ...]) -> tuple[str, ...]:
    """What is to be kept in mind: what the checks did not say before, and what they say now."""
    before = {check.text for check in m.checks}
    told = [text for text in m.warnings if text not in before]
    return (*told, *(check.text for check in checks if check.status != "passed"))


def _criteria(m: Measurement, dimension: Dimension, count: int) -> Criteria:
    """AIC, BIC and the codes beside them, at another dimension or number of observations."""
    share = count / m.observations
    fit = m.length.to("nats").fit
    found = Criteria({k: None if v is None else share * v for k, v in m.criteria.items()})
    if fit is None:
        return found
    half = 0.5 * math.log(count)
    found["aic"] = share * fit + m.parameters
    found["bic"] = share * fit + m.parameters * half
    found["bic_dimension"] = share * fit + dimension.value * half
    return found


def _digest(m: Measurement, length: DescriptionLength) -> str:
    """What tells the numbers of this prior from others, as `measure` would have it if it can."""
    mean, variance = length.prior["mean"], length.prior["variance"]
    if isinstance(mean, int | float):
        vectors = {
            name: torch.full((m.parameters,), float(value), dtype=torch.float64)
            for name, value in (("mean", mean), ("variance", variance))
        }
        return digest(vectors)
    return f"{m.record.get('prior_digest')} {variance!r}"
