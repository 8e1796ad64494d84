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

from lightlike.assess.accounts import account_for, check_accounts
from lightlike.assess.checks import examine
from lightlike.assess.measurement import Measurement
from lightlike.assess.parts import Method, Setting, is_exact, parts_by
from lightlike.geometry.dimension import Dimension
from lightlike.length.criteria import criteria_of
from lightlike.length.description import check_units
from lightlike.length.priors import Prior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.problem.data import digest
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.precision import name_of
from lightlike.problem.problem import Problem
from lightlike.progress import Progress
from lightlike.results import plain
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.spectrum import Spectrum
from lightlike.store import check_place


def measure(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    *,
    parameters: str | Sequence[str] | None = None,
    prior: Prior | None = None,
    method: Method = "auto",
    units: str = "nats",
    seed: int = 0,
    progress: str | bool | Progress = "auto",
    out: str | os.PathLike[str] | None = None,
    memory: int | float | str | None = None,
    layers: bool | None = None,
    dtype: str | torch.dtype = "float64",
    explain: bool = False,
    saturation: bool = False,
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
            is never taken unasked. "kronecker", or a `lightlike.Kronecker`, takes complexity from
            a block-diagonal approximation, as an upper bound, and measures its error where that
            is cheap. "slq", or a `lightlike.Quadrature`, estimates it from products with Î alone:
            without bias, with a standard error, and with bounds on what quadrature leaves open.
        units: "nats" or "bits", for `length`.
        seed: Of sketches and probes, and recorded; nothing on the exact routes is random.
        progress: "auto", True or False; goes to stderr.
        out: Where to save the result.
        memory: What may be used, in bytes or as "8 GB".
        layers: Whether to measure the dimension of each layer; only if cheap unless given.
        dtype: "float64", whatever the model's own. "float32" takes less time and half the
            memory for gradients, for large eigenvalues: each has a bound on its error
            (`spectrum.errors`), and so has the length.
        explain: Whether to name the sources of null directions, as `lightlike.explain` does; they
            bound the dimension from above, so that it may be proven twice.
        saturation: Whether to follow the dimension against observations, as
            `lightlike.saturation` does.

    Returns:
        A `Measurement`: d̂ = rank Î(θ), the eigenvalues of Î(θ) = (1/N) Σ J_iᵀ Λ_i J_i and the
        Gaussian razor with all its terms (arXiv 1905.11027).

    Raises:
        LightlikeError: one of `lightlike.errors`; the message says what happened, why it matters
            and what to do.
    """
    check_units(units)
    if out is not None:
        check_place(out)
    prior = resolve_prior(prior)
    budget = resolve_memory(memory)
    start = time.perf_counter()
    problem = Problem(model, data, likelihood, parameters, Progress.resolve(progress), dtype)
    resolved = prior.resolve(problem)
    F = Fisher(Root(problem))
    check_accounts(F, exact=is_exact(method), explain=explain, saturation=saturation)
    parts = parts_by(method, Setting(F, prior, seed, budget, layers))
    spectrum, length = parts.spectrum, parts.length
    accounts = account_for(
        F,
        parts.dimension,
        spectrum,
        explain=explain,
        saturation=saturation,
        seed=seed,
        memory=budget,
    )
    dimension = accounts.dimension
    record = _record(F, spectrum, dimension, seed, time.perf_counter() - start)
    record["back_propagation"] = sorted(set(parts.ways))
    # What tells priors of one name and networks of one shape apart, when they are compared.
    record["prior_digest"] = digest({"mean": resolved.mean, "variance": resolved.variance})
    record["architecture"] = problem.selection.digest()
    record |= parts.record
    # What was asked for, to ask for it again.
    record["asked"] = {
        "method": plain(method),
        "units": units,
        "dtype": name_of(problem.dtype),
        "parameters": plain(parameters),
        "layers": layers,
        "explain": explain,
        "saturation": saturation,
    }
    checks = tuple(examine(F, spectrum, dimension, length, sketched=not parts.exact))
    criteria = criteria_of(problem.reference, int(dimension))
    if not parts.ranked:
        criteria["bic_dimension"] = None
    result = Measurement(
        parameters=problem.parameters,
        observations=problem.survey.observations,
        rows=problem.survey.rows,
        dimension=dimension,
        spectrum=spectrum,
        length=length.to(units),
        layers=parts.layers,
        criteria=criteria,
        likelihood=problem.likelihood.describe(),
        excluded=problem.selection.excluded,
        nll=problem.reference.survey.nll,
        record=record,
        checks=checks,
        warnings=(*parts.notes, *(check.text for check in checks if check.status != "passed")),
        explanation=accounts.explanation,
        saturation=accounts.saturation,
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


def _peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes, where the system tells."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
