import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor, nn

# One thread a worker: more would only wait for one another on small matrices.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are not folded, whoever runs the tests; xdist tells its workers a width."""
    monkeypatch.delenv("COLUMNS", raising=False)


class Untouched(Protocol):
    def __call__(self, model: nn.Module, *others: Tensor) -> AbstractContextManager[None]: ...


def _bits(tensor: Tensor | None) -> Any:
    if tensor is None:
        return None
    flags = tensor.dtype, tensor.requires_grad, tensor.device
    if tensor.is_meta:
        return flags
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    version = None if tensor.is_inference() else tensor._version
    return *flags, tensor.shape, tensor.data_ptr(), version, content


def _module(module: nn.Module) -> Any:
    hooks = {k: list(v) for k, v in vars(module).items() if "hooks" in k and hasattr(v, "keys")}
    return module.training, sorted(vars(module)), hooks


def _world() -> Any:
    state = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (state[0], state[1].tobytes(), *state[2:]),
        "torch": _bits(torch.get_rng_state())[-1],
        "default dtype": torch.get_default_dtype(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _picture(model: nn.Module, others: tuple[Tensor, ...]) -> Any:
    return {
        "modules": {name: _module(m) for name, m in model.named_modules()},
        "parameters": {n: (id(p), _bits(p)) for n, p in model.named_parameters()},
        "gradients": {n: (id(p.grad), _bits(p.grad)) for n, p in model.named_parameters()},
        "buffers": {n: (id(b), _bits(b)) for n, b in model.named_buffers()},
        "others": [_bits(t) for t in others],
        **_world(),
    }


@contextmanager
def _untouched(model: nn.Module, *others: Tensor) -> Iterator[None]:
    before = _picture(model, others)
    yield
    after = _picture(model, others)
    for part, value in before.items():
        assert after[part] == value, part


@pytest.fixture(scope="session")
def untouched() -> Untouched:
    """Context manager: model, tensors, random states and settings are the same bits afterwards."""
    return _untouched
