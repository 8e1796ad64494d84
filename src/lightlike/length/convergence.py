"""Whether chains agree, and what their mean is worth.

Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, arXiv 1903.08008: each chain is split in halves;
R̂ compares the spread between them with that within, after ranks have replaced the values; the
effective sample size of the mean sums autocorrelations over pairs of lags while these sums are
positive, and falling (Geyer 1992, doi:10.1214/ss/1177011137).
"""

from __future__ import annotations

import math

import torch
from scipy.stats import rankdata
from torch import Tensor


def potential_scale_reduction(records: Tensor) -> float:
    """R̂ of chains (C, draws): the larger of that of the ranks and of the ranks of distances.

    1 if they agree; the second sees chains with one centre but different spreads. It is infinite if
    no chain moves while they differ, and 1 if all values are the same.
    """
    halves = _split(records)
    folded = (halves - halves.quantile(0.5)).abs()
    return max(_reduction(_normal_scores(halves)), _reduction(_normal_scores(folded)))


def effective_sample_size(records: Tensor) -> float:
    """Independent draws that would give the mean of chains (C, draws) the same variance.

    At most S log₁₀ S for S draws in all, and 0 if no value ever changes.
    """
    halves = _split(records)
    chains, draws = halves.shape
    covariance = _autocovariance(halves)
    within = float(covariance[:, 0].mean()) * draws / (draws - 1)
    total = within * (draws - 1) / draws + float(halves.mean(1).var())
    if not total > 0.0 or not within > 0.0:
        return 0.0
    rho = 1.0 - (within - covariance.mean(0)) / total
    rho[0] = 1.0
    pairs = (rho[0 : draws - draws % 2 : 2] + rho[1:draws:2]).tolist()
    time, last, previous = -1.0, 0, math.inf
    for last, pair in enumerate(pairs):  # noqa: B007 — how far it went is used below
        if pair <= 0.0:
            break
        previous = min(previous, pair)
        time += 2.0 * previous
    # The first lag of the pair at which it ended still counts, if positive.
    time += max(float(rho[2 * last]), 0.0) if pairs[last] <= 0.0 else 0.0
    size = chains * draws
    return min(size / max(time, 1.0 / math.log10(size)), size * math.log10(size))


def mean_error(records: Tensor) -> float:
    """Standard error of the mean of chains (C, draws).

    The larger of the deviation over the root of the effective sample size, and of what the means of
    the chains differ by: each can miss what the other sees.
    """
    chains, size = len(records), effective_sample_size(records)
    if not size:
        return math.inf
    within = float(records.std()) / math.sqrt(size)
    between = float(records.mean(1).std()) / math.sqrt(chains) if chains > 1 else 0.0
    return max(within, between)


def _split(records: Tensor) -> Tensor:
    half = records.shape[1] // 2
    return torch.cat([records[:, :half], records[:, -half:]])


def _normal_scores(values: Tensor) -> Tensor:
    ranks = torch.from_numpy(rankdata(values.cpu().numpy(), method="average", axis=None))
    scores: Tensor = torch.special.ndtri((ranks - 0.375) / (values.numel() + 0.25))
    return scores.reshape(values.shape)


def _reduction(values: Tensor) -> float:
    draws = values.shape[1]
    within, between = float(values.var(1).mean()), float(values.mean(1).var())
    if not within > 0.0:
        return math.inf if between > 0.0 else 1.0
    return math.sqrt((draws - 1) / draws + between / within)


def _autocovariance(values: Tensor) -> Tensor:
    """(1/draws) Σ_i x_i x_{i+lag} of centred chains, for all lags, by the Fourier transform."""
    draws = values.shape[1]
    centred = values - values.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * draws, dim=1)
    sums: Tensor = torch.fft.irfft(spectrum.abs().square(), 2 * draws, dim=1)
    return sums[:, :draws] / draws
