"""The user's things are sacred: run with gradients on and a dtype as default, leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

_WORKING: ContextVar[torch.dtype] = ContextVar("working", default=torch.float64)


def working_dtype() -> torch.dtype:
    """What the model is evaluated in at present: that of the innermost `isolated`, or float64."""
    return _WORKING.get()


@contextmanager
def isolated(working: torch.dtype = torch.float64) -> Iterator[None]:
    """Enable gradients and make a dtype the default; restore every random state and setting.

    New tensors that a model makes while it runs (initial states, masks) are then like its
    parameters. Python's, NumPy's and PyTorch's random states (CUDA's too, once in use) come back
    as they were, also after an error.
    """
    dtype = torch.get_default_dtype()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    products = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    token = _WORKING.set(working)
    try:
        torch.set_default_dtype(working)
        # float32 means its 24 bits, not the 11 or 8 that faster products keep of them.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        # It serves passes without gradients only, and treats padding in another way than training.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        _WORKING.reset(token)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(products[0])
        torch.backends.cudnn.allow_tf32 = products[1]
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
