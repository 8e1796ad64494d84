"""The pseudo-inverse of score roots, column by column in units of their own."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_roots(L: Tensor) -> Tensor:
    """L_i⁺ for L (n, m, r) of full column rank: (n, r, m).

    Columns are brought to one length first: those of improbable classes are tiny, not dependent.
    """
    scale = L.norm(dim=1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    found: Tensor = torch.linalg.pinv(L / scale)
    return found / scale.mT
