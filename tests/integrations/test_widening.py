import functools

import pytest
import torch
from torch import nn

from lightlike.integrations.widening import Widening, widened

X = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64) / 3

CASTS = {
    "to": lambda x: x.to(torch.float32),
    "to by name": lambda x: x.to(dtype=torch.float32),
    "float": lambda x: x.float(),
    "type": lambda x: x.type(torch.float32),
    "of integers": lambda x: torch.arange(3).float() + x,
    "softmax": lambda x: nn.functional.softmax(x, dim=-1, dtype=torch.float32),
    "sum": lambda x: x.sum(dtype=torch.float),
    "factory": lambda x: torch.ones(3, dtype=torch.float32) * x,
}
EXACT = {
    "softmax": lambda x: torch.softmax(x, -1),
    "sum": lambda x: x.sum(),
    "of integers": lambda x: torch.arange(3).double() + x,
}


@pytest.mark.parametrize("name", CASTS)
def test_what_is_asked_for_in_float32_is_float64(name):
    with Widening():
        found = CASTS[name](X)
    assert found.dtype == torch.float64
    assert torch.equal(found, EXACT.get(name, lambda x: x)(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_other_types_are_as_asked_for(dtype):
    with Widening():
        assert X.to(dtype).dtype == dtype
    assert X.float().dtype == torch.float32


class Casting(nn.Linear):
    def forward(self, x):
        return super().forward(x.float().to(x.dtype))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Casting(3, 2).double()


def test_the_twin_is_the_model_with_the_same_parameters(model):
    twin = widened(model)
    assert isinstance(twin, Casting)
    assert dict(twin.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert all(a is b for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    assert torch.equal(twin(X), nn.functional.linear(X, model.weight, model.bias))
    assert not torch.equal(model(X), twin(X))
    assert type(model) is Casting


def test_a_forward_put_on_the_instance_is_widened_too(model):
    original = model.forward
    model.forward = functools.wraps(original)(lambda x: original(x) * torch.ones(2).float())
    expected = nn.functional.linear(X, model.weight, model.bias)
    assert torch.equal(widened(model)(X), expected)
