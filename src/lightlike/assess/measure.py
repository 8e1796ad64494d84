"""One call: from a trained network and its data to dimension, spectrum and description length."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from lightlike.assess.accounts import account_for, check_accounts
from lightlike.assess.checks import examine
from lightlike.assess.measurement import Measurement
from lightlike.assess.parts import (
    Method,
    check_method,
    is_exact,
    is_iterative,
    is_resumed,
    parts_by,
)
from lightlike.assess.setting import Setting
from lightlike.assess.stages import kept, open_checkpoint
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
from lightlike.store import check_replaceable


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
    projections: bool | None = None,
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
            without bias, with a standard error, and with bounds on what quadrature leaves open;
            `Isotropic("evidence")` is fitted to the estimated evidence, and the error says so.
            "lanczos", or a `lightlike.Lanczos`, computes the largest eigenvalues and encloses it
            in certain bounds by them and the exact diagonal. "columns", or a `lightlike.Columns`,
            takes it from a share of the parameters, whole output units of every layer, with a
            standard error: for many parameters and rows.
        units: "nats" or "bits", for `length`.
        seed: Of sketches and probes, and recorded; nothing on the exact routes is random.
        progress: "auto", True or False; goes to stderr.
        out: Where to save the result. A long measurement also saves each of its stages, in
            a folder of that name and ".partial": after Ctrl-C, SIGTERM or a crash the same call
            goes on from there, with as many threads to the same bits. A Gram matrix goes on from
            within, "metric" and "svd" from their eigenvalues, "lanczos" from its basis, "slq" from
            its last block of probes, a sketch, "kronecker", `explain` and `saturation` from the
            start. The folder goes when the result is there.
        memory: What may be used, in bytes or as "8 GB".
        layers: Whether to measure the dimension of each layer; only if cheap unless given.
        dtype: "float64", whatever the model's own. "float32" takes less time and half the
            memory for gradients, for large eigenvalues: each has a bound on its error
            (`spectrum.errors`), and so has the length.
        explain: Whether to name the sources of null directions, as `lightlike.explain` does; they
            bound the dimension from above, so that it may be proven twice.
        saturation: Whether to follow the dimension against observations, as
            `lightlike.saturation` does.
        projections: Whether to keep what `lightlike.reanalyse` needs for other prior variances;
            only if cheap unless given. Takes eigenvectors; not in float32 and not of sketches.

    Returns:
        A `Measurement`: d̂ = rank Î(θ), the eigenvalues of Î(θ) = (1/N) Σ J_iᵀ Λ_i J_i and the
        Gaussian razor with all its terms (arXiv 1905.11027).

    Raises:
        LightlikeError: one of `lightlike.errors`; the message says what happened, why it matters
            and what to do.
    """
    check_units(units)
    check_method(method)
    if out is not None:
        check_replaceable(out)
    prior = resolve_prior(prior)
    resolve_memory(memory)
    start = time.perf_counter()
    problem = Problem(model, data, likelihood, parameters, Progress.resolve(progress), dtype)
    resolved = prior.resolve(problem)
    F = Fisher(Root(problem))
    check_accounts(F, exact=is_exact(method), explain=explain, saturation=saturation)
    asked = {
        "method": plain(method),
        "units": units,
        "dtype": name_of(problem.dtype),
        "parameters": plain(parameters),
        "layers": layers,
        "explain": explain,
        "saturation": saturation,
    }
    setting = Setting(F, prior, resolved, seed, memory, layers, projections)
    if out is None or not is_resumed(method):
        result = _measured(method, setting, asked, start)
        if out is not None:
            result.save(out)
        return result
    options = {"method": plain(method), "memory": memory}
    if is_iterative(method):
        options["seed"] = seed
    checkpoint = open_checkpoint(out, problem, options)
    with kept(checkpoint, problem) as states:
        result = _measured(method, replace(setting, checkpoint=states), asked, start)
        result.save(out)
        states.remove()
    return result


def _measured(method: Method, setting: Setting, asked: dict[str, Any], start: float) -> Measurement:
    """All of it, from the states of an earlier run if there are any."""
    F, problem, checkpoint = setting.F, setting.F.problem, setting.checkpoint
    parts = parts_by(method, setting)
    spectrum, length = parts.spectrum, parts.length
    accounts = account_for(
        F, parts.dimension, spectrum,
        explain=asked["explain"], saturation=asked["saturation"],
        seed=setting.seed, memory=parts.memory or setting.budget, checkpoint=checkpoint,
    )  # fmt: skip
    dimension = accounts.dimension
    seconds = time.perf_counter() - start
    seconds += 0.0 if checkpoint is None else checkpoint.seconds
    record = _record(F, spectrum, dimension, setting.seed, seconds)
    record["back_propagation"] = sorted(set(parts.ways))
    # What tells priors of one name and networks of one shape apart, when they are compared.
    record["prior_digest"] = digest(
        {"mean": setting.resolved.mean, "variance": setting.resolved.variance}
    )
    record["architecture"] = problem.selection.digest()
    record |= parts.record
    # To ask for it again.
    record["asked"] = asked
    checks = tuple(examine(F, spectrum, dimension, length, sketched=not parts.exact))
    criteria = criteria_of(problem.reference, int(dimension))
    if not parts.ranked:
        criteria["bic_dimension"] = None
    return Measurement(
        parameters=problem.parameters,
        observations=problem.survey.observations,
        rows=problem.survey.rows,
        dimension=dimension,
        spectrum=spectrum,
        length=length.to(asked["units"]),
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
        projections=parts.projections,
    )


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
