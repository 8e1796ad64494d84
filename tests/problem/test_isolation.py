import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from lightlike.problem.isolation import isolated


class StopHereError(Exception):
    pass


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand((), dtype=torch.float64))


def seed():
    random.seed(4)
    np.random.seed(4)
    torch.manual_seed(4)


@pytest.fixture(params=[torch.float16, torch.float32, torch.float64], ids=str)
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def test_new_tensors_are_double_inside_only(default_dtype):
    with isolated():
        assert torch.zeros(()).dtype == torch.float64
    assert torch.get_default_dtype() == default_dtype


def test_new_tensors_are_as_before_after_an_error(default_dtype):
    with pytest.raises(StopHereError), isolated():
        raise StopHereError
    assert torch.get_default_dtype() == default_dtype


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_come_back(fails):
    expected = []
    seed()
    for _ in range(3):
        expected.append(draw())
    seed()
    found = [draw()]
    with pytest.raises(StopHereError) if fails else nullcontext(), isolated():
        assert draw() == expected[1]
        seed()
        random.random()
        if fails:
            raise StopHereError
    found += [draw(), draw()]
    assert found == expected


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_on_inside_only(mode):
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with isolated():
            x = torch.ones(2, requires_grad=True)
            x.square().sum().backward()
            assert x.grad.tolist() == [2, 2]
            assert not (x * 1).is_inference()
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_isolation_may_be_nested(untouched):
    with untouched(nn.Linear(1, 1)), isolated():
        draw()
        with isolated():
            draw()
        assert torch.get_default_dtype() == torch.float64
        draw()


TRACES = {
    "value": lambda m: m.weight.data.add_(1),
    "rewritten": lambda m: m.weight.detach().mul_(1),
    "buffer": lambda m: m.running_mean.zero_(),
    "grad": lambda m: setattr(m.weight, "grad", torch.ones_like(m.weight)),
    "grad_value": lambda m: m.bias.grad.mul_(2),
    "requires_grad": lambda m: m.weight.requires_grad_(False),
    "mode": lambda m: m.eval(),
    "dtype": lambda m: m.double(),
    "new_parameter": lambda m: setattr(m, "weight", nn.Parameter(m.weight.detach().clone())),
    "hook": lambda m: m.register_forward_hook(lambda *_: None),
    "attribute": lambda m: setattr(m, "cache", 1),
    "random": lambda _: random.random(),
    "numpy": lambda _: np.random.rand(),
    "torch": lambda _: torch.rand(()),
}


@pytest.mark.parametrize("change", TRACES.values(), ids=TRACES)
def test_the_check_itself_sees_every_trace(untouched, change):
    model = nn.BatchNorm1d(2)
    model.running_mean += 1
    model.bias.grad = torch.ones(2)
    with untouched(model):
        pass
    with pytest.raises(AssertionError), untouched(model):
        change(model)
