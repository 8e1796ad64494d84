"""What rounding to lower precision leaves of a spectrum: bounds on eigenvalues and determinants.

Let Ã be a root computed in lower precision, ‖Ã − A‖ ≤ δ, and M̃ = ÃÃᵀ + E its rounded Gram matrix,
‖E‖ ≤ e. With s_k, s̃_k the singular values of A and Ã, λ_k = s_k² and λ̃_k the eigenvalues of M̃,

- |λ̃_k − s̃_k²| ≤ e and |s̃_k − s_k| ≤ δ (Weyl 1912, doi:10.1007/BF01456804), so
  |λ̃_k − λ_k| ≤ 2 δ √(λ̃_k + e) + δ² + e, and λ̃_k > δ² + e is proof of λ_k > 0;
- Σ |λ̃_k − s̃_k²|² ≤ ‖E‖²_F (Hoffman & Wielandt 1953, doi:10.1215/S0012-7094-53-02004-3) and
  Σ |s̃_k − s_k|² ≤ ‖Ã − A‖²_F (Mirsky 1960, doi:10.1093/qmath/11.1.50), so that by the mean value
  theorem and the inequality of Cauchy and Schwarz the error of Σ f(s_k) is at most
  ‖Ã − A‖_F √(Σ sup f'²), each supremum taken where s_k can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps

# Eigenvalues below this share of the largest are taken to a refinement where rounding hides
# something. The mixture of their eigenvectors with others is then of the order eps / √share, and
# what is left of it after its removal of the order eps.
SMALL = 1e-8


@dataclass(frozen=True)
class Rounding:
    """How far a root and its products in lower precision are from float64.

    Attributes:
        root: δ, a bound on the largest singular value of Ã − A.
        product: e, the same of E.
        root_sum: A bound on ‖Ã − A‖_F, the root of the sum of their squares.
        product_sum: A bound on ‖E‖_F.
        hidden: Σ of the positive computed eigenvalues that are not above the floor.
        reference: Rounding unit of what Ã was held against: above 2.2e-16 if the model casts down
            inside even when it runs in float64.
    """

    root: float
    product: float
    root_sum: float
    product_sum: float
    hidden: float = 0.0
    reference: float = EPS

    @property
    def floor(self) -> float:
        """δ² + e: eigenvalues below it may be nothing but rounding."""
        return self.root**2 + self.product


def eigenvalue_floor(size: int, largest: float, precision: float = EPS) -> float:
    """Absolute error of the eigenvalues of an explicit n × n matrix: about √n eps λ_1, doubled.

    Rounding of the entries and of the decomposition are both of the order eps λ_1; over random
    and trained networks the largest error seen stays below this.
    """
    return 10.0 * math.sqrt(size) * precision * largest


def rank_tolerance(shape: tuple[int, int], precision: float = EPS) -> float:
    """max(K, D) · eps: singular values below this share of the largest count as zero."""
    return max(shape) * precision


def worth(precision: float) -> str:
    """Kind of an eigenvalue: exact in float64, certified up to its floor in lower precision."""
    return "exact" if precision <= EPS else "certified"


def eigenvalue_error(value: float, rounding: Rounding, base: float) -> float:
    """Bound on the error of an eigenvalue, base being that of the decomposition itself."""
    apart = rounding.product + base
    return 2 * rounding.root * math.sqrt(max(value, 0.0) + apart) + rounding.root**2 + apart


def logdet_error(
    values: Tensor, missing: int, scale: float, rounding: Rounding, base: float, floor: float
) -> float:
    """Bound on the error of Σ log(1 + scale λ_k) over the eigenvalues above a floor.

    Args:
        values: Those.
        missing: How many eigenvalues are not above the floor.
        scale: c.
        rounding: The bounds, and what is hidden.
        base: Error of each eigenvalue by the decomposition itself.
        floor: Below which eigenvalues were dropped.
    """
    apart, delta = rounding.product + base, rounding.root
    low = torch.cat([values - apart, values.new_zeros(1)]).clamp_min(0.0)
    high = torch.cat([values, values.new_full((1,), floor)]) + apart
    count = torch.ones_like(low)
    count[-1] = missing
    # Of log(1 + c λ) in λ: largest at the low end.
    slopes = scale / (1 + scale * low)
    found = rounding.product_sum * math.sqrt(float((count * slopes.square()).sum()))
    found += base * float((count * slopes).sum())
    # Of log(1 + c s²) in s: 2 c s / (1 + c s²), which rises to √c at s = 1/√c and falls from there.
    left, right = (low.sqrt() - delta).clamp_min(0.0), high.sqrt() + delta
    top = 1.0 / math.sqrt(scale) if scale > 0 else math.inf
    at = torch.where(right < top, right, torch.where(left > top, left, top))
    steep = 2 * scale * at / (1 + scale * at.square()) if scale > 0 else torch.zeros_like(at)
    found += rounding.root_sum * math.sqrt(float((count * steep.square()).sum()))
    return found + scale * rounding.hidden
