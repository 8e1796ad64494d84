"""Normalised maximum likelihood, the shortest code for the worst data, where it is exact.

The length is −log p(y | θ̂(y)) + log C with C the sum of p(y | θ̂(y)) over all data sets y of the
same size (Shtarkov 1987; Rissanen 1996, doi:10.1109/18.481776).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import gammaln, logsumexp, xlogy
from torch import Tensor

from lightlike.errors import DataError, UndefinedError, choice_error
from lightlike.length.codelength import CodeLength
from lightlike.numbers import check_positive, is_whole
from lightlike.problem.likelihoods import Bernoulli, Categorical
from lightlike.problem.problem import Problem

Counts = Sequence[int] | np.ndarray | Tensor

# Whole numbers that float64 holds, with room for their sums.
MOST = 10**9
LABELS = "Exact minimax code of labels that does not look at inputs."


def nml(counts: Counts) -> CodeLength:
    """NML of labels drawn from K categories without inputs, given how often each was seen.

    L = −Σ_k n_k log(n_k/n) + log C(n, K), the length of one sequence with these counts. K = 2 is
    the Bernoulli model. Zeros count as categories that could have been seen.

    Args:
        counts: n_k ≥ 0 of every category, (K,).

    Raises:
        DataError: if they are not whole numbers, negative, all zero or none.
    """
    n_k = _whole(counts)
    n, categories = int(n_k.sum()), len(n_k)
    fit = n * math.log(n) - float(xlogy(n_k, n_k).sum())
    complexity = log_multinomial_complexity(n, categories)
    return CodeLength(
        name="nml",
        total=fit + complexity,
        fit=fit,
        stderr=0.0,
        kind="exact",
        observations=n,
        note=LABELS,
        record={"complexity": complexity, "categories": categories},
    )


def log_multinomial_complexity(n: int, categories: int) -> float:
    """Log C(n, K), the log of the multinomial normaliser.

    C(n, 1) = 1, C(n, 2) = Σ_h binom(n, h) (h/n)^h ((n − h)/n)^(n − h) and
    C(n, K + 2) = C(n, K + 1) + (n/K) C(n, K) (Kontkanen & Myllymäki 2007,
    doi:10.1016/j.ipl.2007.04.003); all terms are positive, so that nothing cancels. O(n + K).

    Raises:
        ChoiceError: if n or K is not a whole number, 1 or more, or n is above 10⁹.
    """
    for name, value in (("n", n), ("categories", categories)):
        if not is_whole(value) or not 1 <= value <= MOST:
            raise choice_error(name, value, [f"a whole number from 1 to {MOST:,}"])
    if categories == 1:
        return 0.0
    # Ratios C(n, K + 1)/C(n, K), which never overflow.
    log_c = _log_binomial_complexity(n)
    ratio = math.exp(log_c)
    parts = [log_c]
    for k in range(1, categories - 1):
        ratio = 1.0 + n / (k * ratio)
        parts.append(math.log(ratio))
    return math.fsum(parts)


def _log_binomial_complexity(n: int) -> float:
    """Log C(n, 2) = log Σ_h exp(s(n) − s(h) − s(n − h)), s(h) = log h! − h log h + h.

    With s instead of the three large logarithms nothing cancels: s(h) = ½ log 2πh + O(1/h).
    The sum is symmetric in h and n − h and is taken in pieces, so that it needs little memory.
    """
    whole = float(_stirling(np.array([n]))[0])
    sums = []
    for start in range(0, n + 1, 1 << 20):
        h = np.arange(start, min(start + (1 << 20), n + 1))
        sums.append(logsumexp(whole - _stirling(h) - _stirling(n - h)))
    return float(logsumexp(sums))


def _stirling(h: np.ndarray) -> np.ndarray:
    """s(h) = log h! − h log h + h, to a few eps: Stirling's series from 32 on."""
    h = h.astype(np.float64)
    small = h < 32
    low = np.where(small, h, 0.0)
    high = np.where(small, 32.0, h)
    near = gammaln(low + 1.0) - xlogy(low, low) + low
    r = 1.0 / high
    q = r * r
    series = r * (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q * (1 / 1680 - q / 1188))))
    return np.where(small, near, 0.5 * np.log(2 * math.pi * high) + series)


def nml_of_labels(problem: Problem) -> CodeLength:
    """NML of a problem's labels as if drawn without regard to inputs; each bit of several apart.

    Raises:
        UndefinedError: without labels, or if they are not classes or coins.
    """
    problem = problem.reference
    likelihood, width = problem.likelihood, problem.survey.width
    fit = total = 0.0
    tables: list[Tensor] = []
    for batch in problem.batches():
        targets = batch.targets
        if targets is None:
            break
        with torch.no_grad():
            outputs = problem.evaluator.outputs(batch)
        labels = outputs.targets
        assert labels is not None
        labels = labels if outputs.observed is None else labels[outputs.observed]
        if isinstance(likelihood, Categorical):
            tables.append(torch.bincount(labels, minlength=width)[None])
        elif isinstance(likelihood, Bernoulli):
            ones = labels.sum(0).long()
            tables.append(torch.stack([len(labels) - ones, ones], 1))
    if not tables:
        raise UndefinedError(
            f"The labels are missing, or not those of a categorical or Bernoulli likelihood "
            f"({likelihood.name}).",
            "Only labels from a finite set have this code.",
            "Pass labels, or compare with the Gaussian razor.",
        )
    for counts in torch.stack(tables).sum(0):
        part = nml(counts)
        fit, total = fit + (part.fit or 0.0), total + part.total
    return CodeLength(
        name="nml",
        total=total,
        fit=fit,
        stderr=0.0,
        kind="exact",
        observations=problem.survey.observations,
        note=LABELS,
        record={"complexity": total - fit},
    )


def nml_location(
    y: Tensor | Sequence[float], *, radius: float, variance: float = 1.0, clipped: bool = False
) -> CodeLength:
    """NML of a Gaussian location model N(μ, s² I), s² known, |μ_j| ≤ R, closed form.

    With n observations in m dimensions, log C = m log(2R √(n / 2πs²)) over the data sets whose mean
    lies within bounds; there Rissanen's expansion is exact. If all data sets are coded, with μ̂ the
    mean clipped to the bounds, C = (1 + 2R √(n / 2πs²))^m (Rissanen 1996,
    doi:10.1109/18.481776; Grünwald 2007, The Minimum Description Length Principle, ch. 11).

    Args:
        y: Observations (n,) or (n, m).
        radius: R > 0.
        variance: s² > 0.
        clipped: Code all data sets, not only those whose mean is within bounds.

    Raises:
        DataError: if y is empty, ragged, complex, not made of numbers, or not finite.
        ChoiceError: if R or s² is not positive.
        UndefinedError: if the mean is out of bounds and `clipped` is false.
    """
    check_positive("radius", radius)
    check_positive("variance", variance)
    data = _observations(y)
    data = data.unsqueeze(-1) if data.ndim == 1 else data
    if data.ndim != 2 or not data.numel() or not bool(torch.isfinite(data).all()):
        raise DataError(
            f"The observations have shape {tuple(data.shape)}, or are not all finite.",
            "Each needs m finite numbers.",
            "Pass a tensor (n,) or (n, m) with n, m ≥ 1.",
        )
    n, m = data.shape
    mean = data.mean(0)
    if not clipped and bool((mean.abs() > radius).any()):
        raise UndefinedError(
            f"The mean reaches {float(mean.abs().max()):.6g}, outside the bounds ±{radius:g}.",
            "This code gives no probability to such data.",
            "Give wider bounds, or clipped=True, which codes all data.",
        )
    residual = data - mean.clamp(-radius, radius)
    fit = 0.5 * (
        float(residual.square().sum()) / variance + n * m * math.log(2 * math.pi * variance)
    )
    width = 2 * radius * math.sqrt(n / (2 * math.pi * variance))
    complexity = m * (math.log1p(width) if clipped else math.log(width))
    return CodeLength(
        name="nml",
        total=fit + complexity,
        fit=fit,
        stderr=0.0,
        kind="exact",
        observations=n,
        note="Exact minimax code of labels without inputs, their mean within bounds.",
        record={"complexity": complexity, "radius": float(radius), "clipped": clipped},
    )


def _observations(y: Tensor | Sequence[float]) -> Tensor:
    """Observations as a float64 tensor on the CPU."""
    why, remedy = "Each needs m real numbers.", "Pass a tensor (n,) or (n, m) of real numbers."
    try:
        data = torch.as_tensor(y).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"The observations are no array of numbers ({error}).", why, remedy
        ) from error
    if data.is_complex():
        raise DataError("The observations are complex.", why, remedy)
    # From the original, as a list of Python floats would be rounded to float32 by the way.
    return torch.as_tensor(y, dtype=torch.float64).detach().cpu()


def _whole(counts: Counts) -> np.ndarray:
    """Counts as float64 (K,), checked."""
    if isinstance(counts, Sequence) and any(isinstance(n, bool | np.bool_) for n in counts):
        raise DataError(
            f"The counts {counts!r} are truth values in part.",
            "They may be labels, not counts of them.",
            "Pass n_k of every category, as in nml([14, 6]).",
        )
    try:
        given = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
    except ValueError as error:
        raise DataError(
            f"The counts {counts!r} are not a list of numbers ({error}).",
            "Each category has one count.",
            "Pass n_k of every category, as in nml([14, 6]).",
        ) from error
    numbers = given.dtype.kind in "iuf" and given.ndim == 1 and given.size > 0
    if not numbers or not bool(
        (np.isfinite(given) & (given >= 0) & (given == given.round())).all()
    ):
        raise DataError(
            f"The counts {np.array2string(given, threshold=8)} are not whole numbers from 0 up.",
            "They say how often each category was seen.",
            "Pass one count a category, such as torch.bincount(labels, minlength=K).",
        )
    n_k = given.astype(np.float64)
    if not 1 <= n_k.sum() <= MOST:
        raise DataError(
            f"The counts add up to {n_k.sum():g}.",
            "An observation is needed, and more than 10⁹ are not counted exactly.",
            "Pass the counts of at least one observation.",
        )
    return n_k
