"""Memory for large results."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Bytes at whose multiples PyTorch's own memory begins. Sums in vector registers begin at them, so
# that the last bits of a result elsewhere would depend on where its memory happens to lie.
ALIGNED = 64


def zeros(*shape: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of zeros, which on a CPU take no memory where nothing else is written."""
    if device.type == "cpu":
        return torch.from_numpy(
            np.zeros(shape, np.float32 if dtype == torch.float32 else np.float64)
        )
    return torch.zeros(shape, dtype=dtype, device=device)


def empty(*shape: int, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
    """An uninitialised tensor.

    On a CPU it is NumPy's memory, for which huge pages are asked: the first touch of a large array
    then costs a quarter.
    """
    if device.type == "cpu":
        kind = np.dtype(np.float32 if dtype == torch.float32 else np.float64)
        size = math.prod(shape) * kind.itemsize
        memory = np.empty(size + ALIGNED, np.uint8)
        start = -memory.ctypes.data % ALIGNED
        return torch.from_numpy(memory[start : start + size].view(kind).reshape(shape))
    return torch.empty(shape, dtype=dtype, device=device)
