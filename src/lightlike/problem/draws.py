"""Random vectors that belong to an observation's place in the data, however they are batched."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Draws:
    """Ξ_i with r columns for each observation i, E[Ξ_i Ξ_iᵀ] = I.

    The generator is counter-based (Philox, Salmon et al. 2011, doi:10.1145/2063384.2063405): the
    key is (seed, repetition) and the counter starts at (item, position in the item), so that the
    numbers of one observation depend on nothing else. Draws are nested: the first columns for a
    larger r are those for a smaller one, up to the scale 1/√r.

    Attributes:
        count: r, draws an observation.
        seed: Any integer.
        repetition: Number of the independent repetition.
        distribution: "normal" or "rademacher" (±1).
    """

    count: int
    seed: int = 0
    repetition: int = 0
    distribution: str = "normal"

    def vectors(self, places: Iterable[tuple[int, int]], size: int) -> Tensor:
        """Ξ_i of the observations at some places (item, position): (n, size, r), float64."""
        key = np.array([self.seed & _WORD, self.repetition & _WORD], dtype=np.uint64)
        found: list[NDArray[Any]] = []
        for item, position in places:
            counter = np.array([0, 0, position, item], dtype=np.uint64)
            random = np.random.Generator(np.random.Philox(key=key, counter=counter))
            if self.distribution == "normal":
                found.append(random.standard_normal((self.count, size)))
            else:
                found.append(2.0 * random.integers(0, 2, (self.count, size)) - 1.0)
        stacked = torch.from_numpy(np.array(found).reshape(-1, self.count, size))
        return stacked.transpose(1, 2) / math.sqrt(self.count)
