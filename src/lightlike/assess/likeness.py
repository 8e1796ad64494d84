"""Whether two measurements may be compared: the same data, likelihood, prior and kind of length."""

from __future__ import annotations

from lightlike.assess.measurement import Measurement
from lightlike.errors import ComparisonError


def asked_prior(m: Measurement) -> dict[str, object]:
    """The prior as it was asked for, without what was fitted to the data."""
    prior = dict(m.length.prior)
    if "fitted_by" in prior:
        prior["variance"] = "evidence"
    settings = ("name", "variance", "mean", "constants", "source")
    return {k: v for k, v in prior.items() if k in settings}


def _unlike_numbers(first: Measurement, m: Measurement) -> bool:
    """Whether two networks of one architecture have priors of one kind with other numbers."""
    one, other = (x.record.get("prior_digest") for x in (first, m))
    fitted = "fitted_by" in first.length.prior or "fitted_by" in m.length.prior
    alike = first.record.get("architecture") == m.record.get("architecture")
    return alike and not fitted and one != other


def check_alike(name: str, first: Measurement, other: str, m: Measurement) -> None:
    """Refuse a measurement that is not like the first one.

    Raises:
        ComparisonError: for another number or kind of data, likelihood, prior or length.
    """
    if m.length.total is None or m.nll is None:
        raise ComparisonError(
            f"{other!r} was measured without labels.",
            "Its length has no fit term, so it is no code length of the same labels.",
            "Measure it with labels.",
        )
    for key, x in ((name, first), (other, m)):
        if "observations" not in x.record.get("reanalysed", {}):
            continue
        raise ComparisonError(
            f"{key!r} was re-analysed as if it had {x.observations:,} observations.",
            "Its length is of data that nobody has seen.",
            "Compare what was measured.",
        )
    prints = [x.record["fingerprint"]["data"] for x in (first, m)]
    if prints[0] != prints[1] or first.observations != m.observations:
        raise ComparisonError(
            f"{name!r} and {other!r} were measured on different data: fingerprints "
            f"{prints[0][:16]}… ({first.observations:,} observations) and {prints[1][:16]}… "
            f"({m.observations:,}).",
            "Lengths of different labels have nothing to do with one another.",
            "Measure both on the same observations, in the same order.",
        )
    if first.likelihood != m.likelihood:
        raise ComparisonError(
            f"{name!r} and {other!r} have different likelihoods: {first.likelihood} and "
            f"{m.likelihood}.",
            "They give code lengths for different kinds of labels, or under different noise.",
            "Measure both with the same likelihood.",
        )
    drawn = ["sketch" in x.record for x in (first, m)]
    if drawn[0] != drawn[1]:
        raise ComparisonError(
            f"One of {name!r} and {other!r} was measured by row sketches, the other was not.",
            "A sketch's length is a lower bound in expectation: the bias could make the whole "
            "difference.",
            "Measure both by the same method.",
        )
    forms = [x.record.get("approximation", {}).get("form", "exact") for x in (first, m)]
    if forms[0] != forms[1]:
        raise ComparisonError(
            f"The Fisher matrix of {name!r} is {forms[0]}, that of {other!r} {forms[1]}.",
            "The error of an approximation could make the whole difference.",
            "Measure both by the same method.",
        )
    if asked_prior(first) != asked_prior(m) or _unlike_numbers(first, m):
        raise ComparisonError(
            f"{name!r} and {other!r} were measured under different priors: {asked_prior(first)} "
            f"and {asked_prior(m)}.",
            "A difference could be one of priors, not of networks.",
            "Measure both with the same prior.",
        )
