"""Layer kinds whose rows of A have a form cheaper than the numbers; one file a kind.

Correctness never depends on this list: what is not in it takes the generic path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.linear import LinearCall, Outer, combine

CONTRACTIONS: dict[Callable[..., Any], type[LinearCall]] = {
    torch.nn.functional.linear: LinearCall,
}

__all__ = ["CONTRACTIONS", "Dense", "Factor", "LinearCall", "Outer", "combine"]
