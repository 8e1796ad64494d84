"""The checks that are made of every measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from lightlike.assess.diagnosis import Check
from lightlike.geometry.dimension import Dimension
from lightlike.length.description import DescriptionLength
from lightlike.length.optimum import REMEDY, far, impossible, is_discrete, told_of_limits
from lightlike.metric.fisher import Fisher
from lightlike.metric.jacobian import HONEST
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.spectrum import Spectrum

# Share of the dimensions that must lie within a factor 10 of 1/(N σ²) for a warning.
CROWDED = 0.25
# Share of the complexity that rounding may leave open without a warning.
UNCERTAIN = 0.01
# Orders of magnitude between singular values around the cut that make a clear gap.
CLEAR_GAP = 2.0
# Nats below which a label was predicted with certainty.
CERTAIN = 1e-6
# Share of the labels that may be so, and share of the dimensions that the data must outweigh the
# prior in, without a warning.
SATURATED, DOMINATED = 0.5, 0.1


def examine(
    F: Fisher,
    spectrum: Spectrum,
    dimension: Dimension,
    length: DescriptionLength,
    *,
    sketched: bool,
) -> Iterator[Check]:
    """All checks.

    Args:
        F: What was measured.
        spectrum: Its spectrum.
        dimension: Its rank.
        length: Of its labels.
        sketched: Whether spectrum and length are of a sketch.
    """
    yield _arithmetic(F, spectrum, dimension, length, sketched)
    yield check_gap(dimension)
    yield check_data(F.root.shape, dimension)
    yield from check_optimum(length, discrete=is_discrete(F.problem))
    yield from check_prior(spectrum, length)
    yield from _saturation(F)
    yield Check(
        "agreement",
        "passed",
        "Every product of A agrees with plain differentiation of the untouched model.",
    )
    yield _derivative(F)
    yield _batches(F)
    yield _labels(F)
    yield _selection(F)


def _arithmetic(
    F: Fisher,
    spectrum: Spectrum,
    dimension: Dimension,
    length: DescriptionLength,
    sketched: bool,
) -> Check:
    name = "arithmetic"
    if F.problem.dtype != torch.float64:
        return Check(name, "warning", *_rounded(spectrum, dimension, length))
    if F.root.precision > EPS:
        return Check(
            name,
            "warning",
            f"The model computes in lower precision inside (rounding unit {F.root.precision:.1g}): "
            "the dimension is certain from below only.",
            "Remove the casts inside the model to decide it.",
        )
    if dimension.lower != dimension.upper and not sketched:
        return Check(
            name,
            "warning",
            f"Rounding hides whether the dimension is {dimension.lower:,} or up to "
            f"{dimension.upper:,};",
            "method='svd' or more memory would decide it.",
        )
    return Check(name, "passed", "Forward pass and products are in float64.")


def _rounded(
    spectrum: Spectrum, dimension: Dimension, length: DescriptionLength
) -> tuple[str, str]:
    """What float32 leaves open, and what to do."""
    most = f", at {float(spectrum.errors[0]):.1g} at most" if len(spectrum) else ""
    evidence = (
        f"Computed in float32: the dimension is certain from below only, {dimension.lower:,} or "
        f"more, and eigenvalues are known to spectrum.errors{most}, below {spectrum.floor:.1g} "
        "not at all."
    )
    remedy = "dtype='float64' decides them."
    if length.error > UNCERTAIN * max(length.complexity, 1.0):
        evidence += (
            f" float32 leaves the length open by {length.error:.2g} nats: N σ² is too large for it."
        )
        remedy = "Measure with dtype='float64', or give a smaller prior variance."
    return evidence, remedy


def check_gap(dimension: Dimension) -> Check:
    """Whether the cut falls into a gap."""
    name = "gap at the cut"
    if dimension.lower == dimension.upper and 0 <= dimension.gap < CLEAR_GAP:
        return Check(
            name,
            "warning",
            f"No clear gap at the cut (a factor {10**dimension.gap:.1f} between singular values):",
            "the dimension depends on the tolerance, see .spectrum.rank(tolerance).",
        )
    if math.isinf(dimension.gap):
        return Check(name, "passed", "Nothing was computed below the cut.")
    return Check(name, "passed", f"10^{dimension.gap:.1f} between singular values at the cut.")


def check_data(shape: tuple[int, int], dimension: Dimension) -> Check:
    """Whether more observations would raise the dimension of A (K, D)."""
    name = "enough data"
    if dimension.data_limited:
        return Check(
            name,
            "warning",
            "Every row of A is independent:",
            "more observations would raise the dimension.",
        )
    rows, columns = shape
    return Check(name, "passed", f"{rows:,} rows, {columns:,} parameters.")


def check_optimum(length: DescriptionLength, *, discrete: bool) -> Iterator[Check]:
    """Whether the expansion can be believed; nothing without labels, discrete or not."""
    if length.total is None or length.displacement is None:
        return
    name = "at an optimum"
    if wrong := impossible(length, discrete=discrete):
        yield Check(name, "failed", wrong, REMEDY)
    elif wrong := far(-length.displacement, length.complexity):
        yield Check(name, "warning", wrong, REMEDY)
    else:
        yield Check(
            name, "passed", f"The expansion moves the fit by {length.displacement:+.1f} nats."
        )


def check_prior(spectrum: Spectrum, length: DescriptionLength) -> Iterator[Check]:
    """Where the eigenvalues lie beside 1/(N σ²); nothing more for unequal variances."""
    if told := told_of_limits(length.prior):
        yield Check("fitted variances", "warning", told, "Or give the variances as numbers.")
    variance = length.prior.get("variance")
    if not isinstance(variance, int | float) or not len(spectrum) or not spectrum.whole:
        return
    tau = 1.0 / (length.observations * variance)
    share = (spectrum.above(tau / 10) - spectrum.above(tau * 10)) / len(spectrum)
    name = "quadratic picture"
    evidence = (
        f"{share:.0%} of the eigenvalues lie within a factor 10 of 1/(N σ²), where the quadratic "
        "picture is least safe."
    )
    yield Check(name, "warning" if share > CROWDED else "passed", evidence)
    name = "data outweigh prior"
    outweighed = spectrum.above(tau) / len(spectrum)
    evidence = f"In {outweighed:.0%} of the dimensions the data say more than the prior."
    if outweighed < DOMINATED:
        yield Check(
            name,
            "warning",
            evidence,
            "The length is mostly the prior's: take more data, or justify its variance.",
        )
    else:
        yield Check(name, "passed", evidence)


def _saturation(F: Fisher) -> Iterator[Check]:
    """Labels that the network is certain of: they carry no information, however many there are."""
    nll = F.problem.reference.survey.nll
    if nll is None or F.problem.likelihood.uniform_nll(F.problem.survey.width) is None:
        return
    share = float((nll <= CERTAIN).double().mean())
    evidence = f"{share:.0%} of the labels are predicted with certainty ({CERTAIN:g} nats or less)."
    if share > SATURATED:
        yield Check(
            "saturated outputs",
            "warning",
            evidence,
            "There the metric is all but zero: train with less zeal, or measure before.",
        )
    else:
        yield Check("saturated outputs", "passed", evidence)


def _derivative(F: Fisher) -> Check:
    name = "true derivatives"
    sweep = F.root.sweep
    if sweep.reference_precision <= EPS and sweep.gradient_error > HONEST:
        return Check(
            name,
            "failed",
            "PyTorch's gradient is not the derivative of the outputs (straight-through estimator, "
            "detached part, padding vector?):",
            "the numbers describe the gradient.",
        )
    return Check(name, "passed", "Gradients agree with differences of the outputs.")


def _batches(F: Fisher) -> Check:
    name = "independent items"
    if F.root.sweep.mixes:
        return Check(
            name,
            "failed",
            "An item alone gets another output than in its batch:",
            "if the first dimension is the batch, every number here depends on how the data are "
            "batched.",
        )
    return Check(name, "passed", "An item alone gets the same output as in its batch.")


def _labels(F: Fisher) -> Check:
    name = "labels"
    if F.problem.copies:
        return Check(
            name,
            "failed",
            "The labels are the input's tokens at their own places:",
            "for a model of the next token they must stand one place earlier "
            "(lightlike.integrations.huggingface.prepare).",
        )
    return Check(name, "passed", "The labels are not the input itself.")


def _selection(F: Fisher) -> Check:
    name = "all parameters"
    excluded = F.problem.selection.excluded
    if excluded:
        names = ", ".join(excluded[:4]) + (" …" if len(excluded) > 4 else "")
        return Check(name, "warning", f"Not measured (frozen or not selected): {names}.")
    return Check(name, "passed", "Every parameter is measured.")
