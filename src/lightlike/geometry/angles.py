"""Principal angles between subspaces."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows that are taken at a time.
ROWS = 8192


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles between the spans of two orthonormal bases, (min(d, d'),) radians, ascending.

    Cosines are the singular values of Q₁ᵀ Q₂, which lose small angles below √eps; sines are those
    of (I − Q₁ Q₁ᵀ) Q₂, which do not. Angles up to 45° are taken from sines (Björck & Golub 1973,
    doi:10.1090/S0025-5718-1973-0348991-3). Beside the bases, no more than d × d' and some rows are
    held.

    Args:
        first: Q₁, (D, d).
        second: Q₂, (D, d').
    """
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    if not second.shape[1]:
        return second.new_zeros(0)
    inner = first.T @ second
    triangle = second.new_zeros(0, second.shape[1])
    for mine, other in zip(torch.split(first, ROWS), torch.split(second, ROWS), strict=True):
        triangle = torch.linalg.qr(torch.cat([triangle, other - mine @ inner]), mode="r").R
    cosines = torch.linalg.svdvals(inner).clamp_max(1.0)
    sines = second.new_zeros(second.shape[1])  # D may be smaller than d'
    found = torch.linalg.svdvals(triangle).clamp_max(1.0)
    sines[len(sines) - len(found) :] = found.flip(0)
    return torch.where(cosines.square() > 0.5, sines.asin(), cosines.acos())


def complementary_angles(angles: Tensor, count: int) -> Tensor:
    """Angles between the orthogonal complements: the same where they are not 0, and zeros.

    (Knyazev & Argentati 2006, doi:10.1137/06065460X.)

    Args:
        angles: Between the subspaces, ascending.
        count: How many there are between the complements.
    """
    kept = angles[max(0, len(angles) - count) :]
    return torch.cat([kept.new_zeros(count - len(kept)), kept])
