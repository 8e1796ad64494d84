"""What one call does to features by means of parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightlike.geometry.symmetry.graph import Node

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# The feature that no generator may change.
FIXED = 0
# Coordinate of an entry of a frozen parameter or a buffer.
FROZEN = -1


@dataclass(frozen=True, eq=False)
class Use:
    """One call's linear map from features to features by parameters: y_o = Σ_i w_oi x_i + b_o.

    A convolution has several taps for each pair of features; a table of embeddings reads a feature
    that is fixed; a gain or a batch normalisation is diagonal.

    Attributes:
        node: The call.
        weight: Coordinates of w, (outs, ins, taps), or (outs, taps) if `diagonal`; None if there
            are none.
        values: w itself, in the same shape.
        outs: Features written, (outs,).
        ins: Features read, (ins,); FIXED where they are none that can change.
        offset: Coordinates (outs, s) which, all raised by 1, raise the feature by 1; None if there
            are none.
        base: b, (outs, s), at these coordinates, unless they are those of w itself (a table).
        slope: What a unit of w is worth at the output: 1, or γ ↦ γ/σ of batch normalisation.
        centre: What is subtracted from x first, (outs,); None for nothing.
        diagonal: Whether output o reads input o alone.
        uniform: Whether a shift of an input is the same shift of the output everywhere (a padded
            convolution's is not).
    """

    node: Node
    weight: Ints | None
    values: Floats | None
    outs: Ints
    ins: Ints
    offset: Ints | None
    base: Floats | None
    slope: Floats | None = None
    centre: Floats | None = None
    diagonal: bool = False
    uniform: bool = True


def broadcast(*tensors: Tensor) -> list[Tensor]:
    """All tensors in their common shape."""
    shape = np.broadcast_shapes(*(tuple(t.shape) for t in tensors))
    return [t.expand(shape) for t in tensors]
