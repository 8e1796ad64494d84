"""Values whose mean under p ∝ e^{−U} is known: they check chains, and take noise off a mean.

For a vector field v that grows slower than e^U, integration by parts gives E[div v − v·∇U] = 0.
With w = θ − θ̂ and linear fields these are, of zero mean each,

    virial      D − w·∇U
    diagonal    1 − w_i ∂_i U, and ∂_i U
    full        δ_ij − ½ (w_i ∂_j U + w_j ∂_i U), and ∂_i U

The second-order "zero-variance" control variates of Assaraf & Caffarel 1999
(doi:10.1103/PhysRevLett.83.4682; Mira, Solgi & Imparato 2013, arXiv 1012.2983): where the loss is
quadratic, the full ones leave no noise at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.length.convergence import effective_sample_size, mean_error
from lightlike.length.sampling import Controls

# Effective draws that each coefficient of a regression needs, and the numbers kept at most.
DRAWS_EACH, KEPT = 20, 2**25
# Largest standard error, over the plain one, at which controls are used.
WORTH = 0.5
# Rounding of a mean from which all noise has been taken, relative to the mean and to the noise.
ROUNDING = 1e-12


def controls_for(centre: Tensor, values: int) -> Controls:
    """The controls to record beside this many draws of all chains; the first is the virial's."""
    size = len(centre)
    upper = torch.triu_indices(size, size, device=centre.device)
    full = len(upper[0]) + size
    known: Callable[[Tensor, Tensor], list[Tensor]]
    if values >= DRAWS_EACH * 2 * full and values * full <= KEPT:

        def known(away: Tensor, gradient: Tensor) -> list[Tensor]:
            product = away[:, :, None] * gradient[:, None, :]
            both = 0.5 * (product + product.transpose(1, 2))
            return [(upper[0] == upper[1]).double() - both[:, upper[0], upper[1]], gradient]

    elif values >= DRAWS_EACH * 2 * 2 * size and values * 2 * size <= KEPT:

        def known(away: Tensor, gradient: Tensor) -> list[Tensor]:
            return [1.0 - away * gradient, gradient]

    else:

        def known(away: Tensor, gradient: Tensor) -> list[Tensor]:  # noqa: ARG001
            return []

    def controls(points: Tensor, gradient: Tensor) -> Tensor:
        away = points - centre
        virial = size - (away * gradient).sum(1, keepdim=True)
        return torch.cat([virial, *known(away, gradient)], 1)

    return controls


@dataclass(frozen=True)
class Mean:
    """A mean of chains.

    Attributes:
        records: Values (C, draws) of the same mean that have less noise.
        value: Their mean.
        stderr: Its standard error.
        controls: How many control variates were used.
    """

    records: Tensor
    value: float
    stderr: float
    controls: int


def reduce_noise(records: Tensor, controls: Tensor | None) -> Mean:
    """The mean of chains (C, draws) by regression on controls (C, draws, P), the virial's first.

    The coefficients come from every other chain and serve the others, so that the mean has no bias
    of its own fit. The virial's alone or all of them are used where they take away half the
    standard error or more: to choose among nearly equal ones by their estimates would be to choose
    the one that happens to be too small.
    """
    plain = Mean(records, float(records.mean()), mean_error(records), 0)
    if controls is None or not math.isfinite(plain.stderr):
        return plain
    draws = effective_sample_size(records)
    means = [plain]
    for chosen in {1, controls.shape[2]}:
        if draws >= DRAWS_EACH * 2 * chosen:
            left = _regress(records, controls[:, :, :chosen])
            error = mean_error(left)
            floor = ROUNDING * (abs(plain.value) + float(records.std()))
            error = floor if math.isinf(error) else max(error, floor)
            means.append(Mean(left, float(left.mean()), error, chosen))
    best = min(means, key=lambda mean: mean.stderr)
    return best if best.stderr <= WORTH * plain.stderr else plain


def _regress(records: Tensor, controls: Tensor) -> Tensor:
    left = torch.empty_like(records)
    unit = controls.flatten(0, 1).std(0).clamp_min(torch.finfo(controls.dtype).tiny)
    controls = controls / unit
    for own in (0, 1):
        x, y = controls[1 - own :: 2].flatten(0, 1), records[1 - own :: 2].flatten()
        # Null directions of the loss make columns alike: the smallest coefficients that fit.
        solved = torch.linalg.lstsq(x - x.mean(0), (y - y.mean())[:, None], driver="gelsd")
        left[own::2] = records[own::2] - controls[own::2] @ solved.solution[:, 0]
    return left


def virial(controls: Tensor) -> tuple[float, float]:
    """The mean of D − w·∇U over chains, which is 0 in equilibrium, and its standard error."""
    values = controls[:, :, 0]
    return float(values.mean()), mean_error(values)
