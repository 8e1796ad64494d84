"""The Kronecker factors of a weight from all its uses.

A use of a weight contributes rows Σ_p g_p x_pᵀ: the input x_p at position p is the same for all
rows of a sample, the back-propagated g_p is each row's own, and carries a column of the output
covariance's root, so that sums over rows are exact expectations over outputs. With M positions that
some row reaches,

- *expand* (Eschenhagen et al. 2023, arXiv 2311.00636; Martens & Grosse 2015, arXiv 1503.05671;
  Grosse & Martens 2016, arXiv 1602.01407) takes positions for observations of their own,
  S = (1/M) Σ x_p x_pᵀ and T = Σ g_p g_pᵀ;
- *reduce* (the same) takes the mean x̄ over a sample's positions and the sum of g over them.

Positions and samples that no row reaches are not counted. Several calls alike with one weight are
positions of one use. Unlike ones (a table that is an output layer too, a layer and its transpose)
have factors S_u, T_u each, on the side where they belong: L_u ⊗ R_u. Of their sum, which is no
Kronecker product, the product with the same trace and the same partial traces is taken,

    L ∝ Σ_u τ_u L_u / tr L_u,   R ∝ Σ_u τ_u R_u / tr R_u,   tr (L ⊗ R) = Σ_u τ_u,

with τ_u = tr L_u tr R_u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightlike.metric.contractions import Factor, Lookup, Outer
from lightlike.metric.kronecker.arrangement import arranged
from lightlike.metric.kronecker.forms import Kronecker, Side


@dataclass
class Use:
    """Moments of one kind of use.

    Attributes:
        still: Σ x xᵀ, or its diagonal.
        moving: Σ g gᵀ, or its diagonal.
        count: M.
        left: Whether the input is on the left side.
    """

    still: Tensor
    moving: Tensor
    left: bool
    count: int = 0

    def add(self, factor: Factor, sharing: str) -> None:
        """Add the rows of one block."""
        assert isinstance(factor, Outer | Lookup)
        g = factor.g
        touched = (g != 0).any(-1).any(0)  # (s, P)
        if isinstance(factor, Lookup):
            tokens = factor.tokens[touched]
            self.still += torch.bincount(tokens, minlength=factor.size)
            self.count += len(tokens)
        elif sharing == "reduce" and factor.positions > 1:
            weights = touched.to(factor.x)
            weights = weights / weights.sum(1, keepdim=True).clamp_min(1.0)
            means = torch.einsum("sp,spi->si", weights, factor.x)
            self.still += _square(means, self.still.ndim)
            self.count += int(touched.any(1).sum())
            g = g.sum(2)
        else:
            self.still += _square(factor.x[touched], self.still.ndim)
            self.count += int(touched.sum())
        self.moving += _square(g.flatten(0, -2), self.moving.ndim)

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """L_u and R_u."""
        mean = self.still / max(1, self.count)
        return (mean, self.moving) if self.left else (self.moving, mean)


@dataclass
class Uses:
    """All uses of the columns that a block has.

    Args:
        sharing: "expand" or "reduce".
        largest: Sides longer than this are kept diagonal.
    """

    sharing: str
    largest: int
    found: dict[tuple[str, bool], Use] = field(default_factory=dict)

    def add(self, parts: Sequence[Factor]) -> None:
        """Add the rows of one block, given as the sum of these."""
        for part in parts:
            key = type(part).__name__, isinstance(part, Outer) and part.transposed
            if key not in self.found:
                self.found[key] = self._fresh(part)
            self.found[key].add(part, self.sharing)

    def form(self, like: Factor) -> Kronecker:
        """L ⊗ R."""
        arrangement = arranged(like)
        assert arrangement is not None
        pairs = [use.sides for use in self.found.values()]
        if len(pairs) == 1:
            left, right = pairs[0]
        else:
            left, right = _combined(pairs)
        return Kronecker(arrangement, Side.of(left), Side.of(right))

    def _fresh(self, part: Factor) -> Use:
        assert isinstance(part, Outer | Lookup)
        if isinstance(part, Lookup):
            # Inputs are one-hot: the diagonal is all there is.
            still, depth = part.g.new_zeros(part.size), part.depth
            return Use(still, self._zeros(part.g, depth), left=True)
        still = self._zeros(part.g, part.ins)
        return Use(still, self._zeros(part.g, part.outs), left=part.transposed)

    def _zeros(self, like: Tensor, size: int) -> Tensor:
        return like.new_zeros((size,) if size > self.largest else (size, size))


def _square(rows: Tensor, dims: int) -> Tensor:
    """RᵀR, or its diagonal."""
    return rows.square().sum(0) if dims == 1 else rows.T @ rows


def _combined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The factors of the product with the partial traces of a sum of products."""
    sizes = [(_trace(left), _trace(right)) for left, right in pairs]
    total = sum(a * b for a, b in sizes)
    lefts, rights = [], []
    for (left, right), (a, b) in zip(pairs, sizes, strict=True):
        if a * b > 0:
            lefts.append(left * b)  # τ_u L_u / tr L_u
            rights.append(right * (a / total))
    if not lefts:
        return pairs[0]
    return _sum(lefts), _sum(rights)


def _trace(matrix: Tensor) -> float:
    return float(matrix.sum() if matrix.ndim == 1 else matrix.diagonal().sum())


def _sum(matrices: Sequence[Tensor]) -> Tensor:
    """Of matrices and diagonals, a diagonal if all are."""
    whole = any(m.ndim == 2 for m in matrices)
    return torch.stack([m.diag() if whole and m.ndim == 1 else m for m in matrices]).sum(0)
