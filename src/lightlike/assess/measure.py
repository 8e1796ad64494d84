"""One call: from a trained network and its data to dimension, spectrum and description length."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from lightlike.assess.layers import summarise_layers
from lightlike.assess.measurement import Measurement
from lightlike.assess.sketching import measure_sketches, notes
from lightlike.errors import choice_error
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.criteria import criteria_of
from lightlike.length.description import UNITS, DescriptionLength
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.priors import Prior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.precision import name_of
from lightlike.problem.problem import Problem
from lightlike.progress import Progress
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.sketch import Sketch, as_sketch
from lightlike.spectrum.spectrum import Spectrum
from lightlike.store import check_place

# Share of the dimensions that must lie within a factor 10 of 1/(N σ²) for a warning.
CROWDED = 0.25
# Relative error of a directional derivative by differences; kinks of ReLU networks stay below.
HONEST = 0.01
# Nats, in units of the complexity, that the expansion may promise below θ without a warning.
FAR = 0.5
# Share of the complexity that rounding may leave open without a warning.
UNCERTAIN = 0.01
# Orders of magnitude between singular values around the cut that make a clear gap.
CLEAR_GAP = 2.0


def measure(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    *,
    parameters: str | Sequence[str] | None = None,
    prior: Prior | None = None,
    method: str | Sketch = "auto",
    units: str = "nats",
    seed: int = 0,
    progress: str | bool | Progress = "auto",
    out: str | os.PathLike[str] | None = None,
    memory: int | float | str | None = None,
    layers: bool | None = None,
    dtype: str | torch.dtype = "float64",
) -> Measurement:
    """Measure a network: local dimension, Fisher spectrum and description length of the labels.

    Args:
        model: Any module that PyTorch can differentiate, in eval mode. It is not changed.
        data: `(x, y)`, `(x,)`, a Dataset, a DataLoader or any re-iterable of batches; labels are
            optional, without them the fit term is None.
        likelihood: "categorical", "gaussian", "bernoulli", "poisson", or an object from
            `lightlike.likelihoods`.
        parameters: None (all that require grad), a regular expression on names, or a list.
        prior: From `lightlike.priors`; N(0, I) unless given.
        method: "auto", "gram", "metric" or "svd"; see `lightlike.plan`. "sketch", or a
            `lightlike.Sketch`, estimates from random rows where outputs are too wide for these; it
            is never taken unasked.
        units: "nats" or "bits", for `length`.
        seed: Of the sketch, and recorded; nothing on the exact routes is random.
        progress: "auto", True or False; goes to stderr.
        out: Where to save the result.
        memory: What may be used, in bytes or as "8 GB".
        layers: Whether to measure the dimension of each layer; only if cheap unless given.
        dtype: "float64", whatever the model's own. "float32" takes less time and half the
            memory for gradients, for large eigenvalues: each has a bound on its error
            (`spectrum.errors`), and so has the length.

    Returns:
        A `Measurement`: d̂ = rank Î(θ), the eigenvalues of Î(θ) = (1/N) Σ J_iᵀ Λ_i J_i and the
        Gaussian razor with all its terms (arXiv 1905.11027).

    Raises:
        LightlikeError: one of `lightlike.errors`; the message says what happened, why it matters
            and what to do.
    """
    if units not in UNITS:
        raise choice_error("units", units, [*map(repr, UNITS)])
    if out is not None:
        check_place(out)
    prior = resolve_prior(prior)
    budget = resolve_memory(memory)
    start = time.perf_counter()
    problem = Problem(model, data, likelihood, parameters, Progress.resolve(progress), dtype)
    prior.resolve(problem)
    F = Fisher(Root(problem))
    sketch = as_sketch(method)
    drawn: dict[str, Any] | None = None
    if sketch is not None:
        parts = measure_sketches(F, prior, sketch, seed=seed, memory=budget, layers=layers)
        spectrum, dimension, length = parts.spectrum, parts.dimension, parts.length
        summaries, ways, drawn = parts.layers, parts.ways, parts.record
    else:
        decomposition = F.decomposition(str(method), budget)
        spectrum = decomposition.spectrum
        dimension = dimension_of(spectrum)
        length = gaussian_razor(problem, prior, decomposition, expand(problem)).settled()
        operations = decomposition.route.operations
        summaries = summarise_layers(F.root, operations, ranks=layers, memory=budget)
        ways = F.root.sweep.ways
    record = _record(F, spectrum, dimension, seed, time.perf_counter() - start)
    record["back_propagation"] = sorted(set(ways))
    if drawn is not None:
        record["sketch"] = drawn
    result = Measurement(
        parameters=problem.parameters,
        observations=problem.survey.observations,
        rows=problem.survey.rows,
        dimension=dimension,
        spectrum=spectrum,
        length=length.to(units),
        layers=summaries,
        criteria=criteria_of(problem.reference, int(dimension)),
        likelihood=problem.likelihood.describe(),
        excluded=problem.selection.excluded,
        nll=problem.reference.survey.nll,
        record=record,
        warnings=tuple(_warnings(F, spectrum, dimension, length, drawn)),
    )
    if out is not None:
        result.save(out)
    return result


def _record(
    F: Fisher, spectrum: Spectrum, dimension: Dimension, seed: int, seconds: float
) -> dict[str, Any]:
    selection = F.problem.selection
    return {
        "method": spectrum.method,
        "reason": spectrum.reason,
        "dtype": name_of(F.problem.dtype),
        "precision": F.root.precision,
        "device": str(F.device),
        "tolerance": dimension.tolerance,
        "tolerance_from": (
            "max(K, D) eps, relative to the largest singular value of A"
            if spectrum.rounding is None
            else "the error of A and of its products, measured against float64"
        ),
        "seed": seed,
        "share_measured": selection.size / (selection.size + selection.excluded_size),
        "fingerprint": F.problem.fingerprint,
        "versions": {
            "lightlike": version("lightlike"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "seconds": round(seconds, 3),
        "peak_memory": _peak_memory(),
    }


def _warnings(
    F: Fisher,
    spectrum: Spectrum,
    dimension: Dimension,
    length: DescriptionLength,
    drawn: dict[str, Any] | None,
) -> list[str]:
    found = [] if drawn is None else notes(drawn, dimension)
    if F.problem.dtype != torch.float64:
        found += _rounded(spectrum, dimension, length)
    elif F.root.precision > EPS:
        found.append(
            f"The model computes in lower precision inside (rounding unit {F.root.precision:.1g}): "
            "the dimension is certain from below only."
        )
    elif dimension.lower != dimension.upper and drawn is None:
        found.append(
            f"Rounding hides whether the dimension is {dimension.lower:,} or up to "
            f"{dimension.upper:,}; method='svd' or more memory would decide it."
        )
    if dimension.lower == dimension.upper and 0 <= dimension.gap < CLEAR_GAP:
        found.append(
            f"No clear gap at the cut (a factor {10**dimension.gap:.1f} between singular values): "
            "the dimension depends on the tolerance, see .spectrum.rank(tolerance)."
        )
    if dimension.data_limited:
        found.append("Every row of A is independent: more observations would raise the dimension.")
    discrete = F.problem.likelihood.uniform_nll(F.problem.survey.width) is not None
    if length.total is not None and length.fit is not None and length.displacement is not None:
        if discrete and length.total < 0:
            found.append(
                "The length is negative, which no code for discrete labels can be: θ is so far "
                "from an optimum that the quadratic expansion fails. Train on, then measure."
            )
        elif -length.displacement > FAR * max(length.complexity, 1.0):
            found.append(
                f"θ is far from an optimum: the expansion counts on a fit "
                f"{-length.displacement:.1f} nats better nearby."
            )
    variance = length.prior.get("variance")
    if isinstance(variance, int | float) and len(spectrum):
        tau = 1.0 / (length.observations * variance)
        inside = spectrum.above(tau / 10) - spectrum.above(tau * 10)
        if inside > CROWDED * len(spectrum):
            found.append(
                f"{inside / len(spectrum):.0%} of the eigenvalues lie within a factor 10 of "
                "1/(N σ²), where the quadratic picture is least safe."
            )
    if F.root.sweep.reference_precision <= EPS and F.root.sweep.gradient_error > HONEST:
        found.append(
            "PyTorch's gradient is not the derivative of the outputs (straight-through estimator, "
            "detached part, padding vector?): the numbers describe the gradient."
        )
    if F.root.sweep.mixes:
        found.append(
            "An item alone gets another output than in its batch: if the first dimension is the "
            "batch, every number here depends on how the data are batched."
        )
    if F.problem.copies:
        found.append(
            "The labels are the input's tokens at their own places: for a model of the next token "
            "they must stand one place earlier (lightlike.integrations.huggingface.prepare)."
        )
    excluded = F.problem.selection.excluded
    if excluded:
        names = ", ".join(excluded[:4]) + (" …" if len(excluded) > 4 else "")
        found.append(f"Not measured (frozen or not selected): {names}.")
    return found


def _rounded(spectrum: Spectrum, dimension: Dimension, length: DescriptionLength) -> list[str]:
    """What float32 leaves open."""
    most = f", at {float(spectrum.errors[0]):.1g} at most" if len(spectrum) else ""
    found = [
        f"Computed in float32: the dimension is certain from below only, {dimension.lower:,} or "
        f"more, and eigenvalues are known to spectrum.errors{most}, below {spectrum.floor:.1g} "
        "not at all. dtype='float64' decides them."
    ]
    if length.error > UNCERTAIN * max(length.complexity, 1.0):
        found.append(
            f"float32 leaves the length open by {length.error:.2g} nats: N σ² is too large for "
            "it. Measure with dtype='float64', or give a smaller prior variance."
        )
    return found


def _peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes, where the system tells."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
