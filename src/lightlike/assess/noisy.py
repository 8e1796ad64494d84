"""A measurement under a Gaussian likelihood whose noise variance is fitted to the labels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lightlike.assess.measure import measure
from lightlike.assess.measurement import Measurement
from lightlike.length.description import UNITS
from lightlike.length.noise import noise_variance
from lightlike.length.priors import Prior
from lightlike.metric.fisher import fisher
from lightlike.problem.likelihoods import Gaussian
from lightlike.progress import Progress
from lightlike.store import check_place


def measure_with_noise(
    model: nn.Module,
    data: Any,
    *,
    parameters: str | Sequence[str] | None = None,
    prior: Prior | None = None,
    progress: str | bool | Progress = "auto",
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Measurement:
    """Measure under N(h, s² I) with the s² of the shortest Gaussian razor.

    Args:
        model: Any module that PyTorch can differentiate, in eval mode. It is not changed.
        data: With labels; see `lightlike.measure`.
        parameters: None (all that require grad), a regular expression on names, or a list.
        prior: From `lightlike.priors`; what is fitted in it is fitted together with s².
        progress: "auto", True or False.
        out: Where to save the result.
        options: As of `lightlike.measure`.

    Returns:
        The measurement at that s², which its length's `prior` names; `tuning_cost` counts
        ½ log N for it.

    Raises:
        EstimateError: if the razor falls all the way to s² → 0 or ∞.
        LightlikeError: as of `lightlike.lengths.noise_variance` and `lightlike.measure`.
    """
    if out is not None:
        check_place(out)
    F = fisher(model, data, Gaussian(), parameters)
    variance = noise_variance(F, prior=prior).variance
    likelihood, shown = Gaussian(variance), Progress.resolve(progress)
    found = measure(
        model, data, likelihood, parameters=parameters, prior=prior, progress=shown, **options
    )
    length = found.length
    cost = 0.5 * math.log(length.observations) * UNITS[length.units]
    described = {**length.prior, "noise_variance": variance, "noise_fitted_by": "evidence"}
    found = replace(
        found, length=replace(length, tuning_cost=length.tuning_cost + cost, prior=described)
    )
    if out is not None:
        found.save(out)
    return found
