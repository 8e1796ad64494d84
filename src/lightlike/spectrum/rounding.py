"""What float64 rounding, or a forward pass in lower precision, hides of a spectrum."""

from __future__ import annotations

import math

import torch

EPS = torch.finfo(torch.float64).eps

# Eigenvalues below this share of the largest are taken to a refinement where rounding hides
# something. The mixture of their eigenvectors with others is then of the order eps / √share, and
# what is left of it after its removal of the order eps.
SMALL = 1e-8


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
