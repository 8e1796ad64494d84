"""Which eigenvalues Lanczos steps without reorthogonalisation have found, each of them once.

An eigenvalue θ of T_m with eigenvector s has an eigenvalue of F within

    2.5 (β_m |s_m| + η),    η = Σ_j |s_j| · (rounding in a step),

although the steps are not orthogonal (Paige 1980,
doi:10.1016/0024-3795(80)90167-6): the vector V s that belongs to it may be short where T has
copies of an eigenvalue, but not all of them are. Values whose intervals overlap are taken to be one
eigenvalue, so that none is reported twice whatever rounding does: intervals that do not overlap
hold different eigenvalues.

What has not converged is either on its way to an eigenvalue that was not yet found, or a copy on
its way to one that was. The latter has nothing of the start in it: s_1 = 0 but for rounding. As

    s_1² = Π_j (θ − θ̂_j) / Π_{θ_j ≠ θ} (θ − θ_j)

with θ̂_j the eigenvalues of T_m without its first row and column, that is the test of Cullum and
Willoughby (1981, doi:10.1016/0021-9991(81)90056-5), a simple eigenvalue of both matrices being
spurious, with a threshold on a number instead of on a distance.

What cannot be seen: how often an eigenvalue is repeated, since the steps see one vector of each
eigenspace; eigenvalues that are closer to each other than their intervals; and one whose
eigenvector the start happens to be almost orthogonal to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightlike.spectrum.tridiagonal import Measure, norm

# Of Paige's bound, and rounding in a step, in units of precision · ‖T‖.
FACTOR, ROUNDING = 2.5, 8.0
# First components up to this many rounding units, times √m, are nothing.
NOTHING = 4.0


@dataclass(frozen=True, eq=False)
class Distinct:
    """The largest distinct eigenvalues that were found.

    Attributes:
        values: λ, (k,), descending; all of them positive.
        errors: (k,): within this of each value there is an eigenvalue, another one for each.
        copies: (k,): how many eigenvalues of the tridiagonal matrices stand for each.
        unsettled: Further eigenvalues of the first tridiagonal matrix that are neither spurious nor
            known well enough, if fewer were found than were asked for.
    """

    values: Tensor
    errors: Tensor
    copies: Tensor
    unsettled: int

    def __len__(self) -> int:
        return len(self.values)

    def same(self, other: Distinct) -> bool:
        """Whether these are the same eigenvalues, as far as both are known."""
        if len(self) != len(other):
            return False
        return bool(((self.values - other.values).abs() <= self.errors + other.errors).all())


@dataclass(frozen=True, eq=False)
class Sifted:
    """Eigenvalues of one tridiagonal matrix.

    Attributes:
        values: θ, (m,), descending.
        residuals: β_m |s_m|, (m,).
        reach: (m,): within this of each there is an eigenvalue of F.
        weights: s_1², (m,).
        spurious: (m,), whether nothing of the start is in them.
        vectors: s, in columns (m, m).
    """

    values: Tensor
    residuals: Tensor
    reach: Tensor
    weights: Tensor
    spurious: Tensor
    vectors: Tensor


def sifted(measure: Measure) -> Sifted:
    """What the tridiagonal matrix of one start tells."""
    off = measure.betas[:-1]
    T = torch.diag(measure.alphas) + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(T)
    values, vectors = values.flip(0), vectors.flip(1)
    residuals = measure.betas[-1] * vectors[-1].abs()
    # Each step is in error by rounding of ‖F‖, and V s by the sum of that over |s_j|.
    unit = ROUNDING * measure.precision * norm(measure.alphas, measure.betas)
    rounding = unit * vectors.abs().sum(0)
    root = math.sqrt(len(measure))
    weights = vectors[0].square()
    return Sifted(
        values=values,
        residuals=residuals,
        reach=FACTOR * (residuals + rounding),
        weights=weights,
        spurious=weights <= (NOTHING * measure.precision * root) ** 2,
        vectors=vectors,
    )


def distinct(
    measures: Sequence[Measure],
    count: int | None,
    tolerance: float,
    locked: Tensor | None = None,
    coupling: float = 0.0,
) -> Distinct:
    """The largest distinct eigenvalues, from steps from one or more starts.

    Args:
        measures: What is known of each start's measure; the first start took most steps.
        count: How many at most; None for all.
        tolerance: A value counts if its error is at most this share of the largest one.
        locked: Eigenvalues of X F Xᵀ with vectors X that the first start's steps were beside, see
            `lightlike.spectrum.locking`.
        coupling: R, within which of those F has eigenvalues.
    """
    all_of_them = [sifted(m) for m in measures if len(m)]
    if not all_of_them:
        none = torch.zeros(0, dtype=torch.float64)
        return Distinct(none, none, none.long(), 0)
    taken = all_of_them[0].values.new_zeros(0) if locked is None else locked
    if len(taken):
        all_of_them[0] = replace(all_of_them[0], reach=all_of_them[0].reach + coupling)
    values = torch.cat([*(s.values for s in all_of_them), taken])
    reach = torch.cat([*(s.reach for s in all_of_them), torch.full_like(taken, coupling)])
    allowed = tolerance * float(values.max())
    known = (reach <= allowed) & (values > reach)
    groups = _overlapping(values[known], reach[known])
    size = int(groups.max()) + 1 if len(groups) else 0
    best = values.new_full((size,), math.inf).scatter_reduce(0, groups, reach[known], "amin")
    # Of the members of a group the one that is known best; the largest if there are several.
    chosen = values.new_zeros(size).scatter_reduce(
        0, groups, torch.where(reach[known] == best[groups], values[known], 0.0), "amax"
    )
    copies = torch.bincount(groups, minlength=size)
    order = torch.argsort(chosen, descending=True)
    # The list ends ahead of the first that is not known: without holes.
    first = all_of_them[0]
    unknown = ~((first.reach <= allowed) & (first.values > first.reach)) & ~first.spurious
    reaches = (first.values + first.residuals)[unknown]
    highest = float(reaches.max()) if len(reaches) else 0.0
    kept = order[:count]
    kept = kept[chosen[kept] > highest]
    # What may be zero, to the tolerance, is looked for no longer.
    open_ = unknown & (first.reach > allowed)
    unsettled = 0 if len(kept) == count else int(open_.sum())
    return Distinct(chosen[kept], best[kept], copies[kept], unsettled)


def originals(measure: Measure, count: int, tolerance: float) -> Tensor:
    """Eigenvectors s of T_m, (m, k), of the largest distinct eigenvalues, not those of copies.

    Of all that stand for one eigenvalue that which has most of the start in it: V s is a vector of
    about unit length there.
    """
    told = sifted(measure)
    sharp = (told.reach <= tolerance * float(told.values[0])) & (told.values > told.reach)
    known = torch.nonzero(sharp & ~told.spurious)[:, 0]
    groups = _overlapping(told.values[known], told.reach[known])
    chosen: list[int] = []
    for group in sorted(set(groups.tolist()), reverse=True):
        members = known[groups == group]
        chosen.append(int(members[told.weights[members].argmax()]))
    return told.vectors[:, chosen[:count]]


def least_rank(measures: Sequence[Measure]) -> int:
    """How many positive eigenvalues there are at least: intervals that do not meet hold others."""
    ends: list[tuple[float, float]] = []
    for told in (sifted(m) for m in measures if len(m)):
        upper, lower = told.values + told.reach, told.values - told.reach
        ends += zip(upper.tolist(), lower.tolist(), strict=True)
    found, last = 0, 0.0
    # By their upper ends, each that is clear of those taken before: as many as can be.
    for high, low in sorted(ends):
        if low > last:
            found, last = found + 1, high
    return found


def _overlapping(values: Tensor, reach: Tensor) -> Tensor:
    """For each interval the number of the group, of those that hang together, it belongs to."""
    order = torch.argsort(values - reach)
    highest = (values + reach)[order].cummax(0).values
    fresh = torch.ones_like(order)
    if len(order):
        fresh[0] = 0
        fresh[1:] = ((values - reach)[order][1:] > highest[:-1]).long()
    groups = torch.empty_like(order)
    groups[order] = fresh.cumsum(0)
    return groups
