"""Training functions of one name are told apart by what they hold."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import StoreError
from lightlike.length.likeness import digest_of_function


def made(value):
    def train(*_):
        model = nn.Linear(2, 2).double()
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(0.0)
            model.bias[0] = float(torch.as_tensor(value).sum())
        return model.eval()

    return train


class Trainer:
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, x, y, seed):
        return made(self.rate)(x, y, seed)

    def fit(self, x, y, seed):
        return self(x, y, seed)


class Plain:
    def __init__(self, rate):
        self.rate = rate

    def fit(self, x, y, seed):
        return made(self.rate)(x, y, seed)


def by_default(x, y, seed, rate=0.5):
    return made(rate)(x, y, seed)


MAKERS = {
    "closure": made,
    "partial": lambda v: functools.partial(by_default, rate=v),
    "object": Trainer,
    "method": lambda v: Trainer(v).fit,
    "method of a plain object": lambda v: Plain(v).fit,
    "nested": lambda v: made_around(made(v)),
    "tuple": lambda v: made((1.0, v)),
    "tensor": lambda v: made(torch.tensor([1.0, v])),
    "array": lambda v: made(np.array([1.0, v])),
}


def made_around(inner):
    return lambda x, y, seed: inner(x, y, seed)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_of_other_settings_is_refused(kind, tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    data, out = (x, torch.arange(20) % 2), tmp_path / "run"
    make = MAKERS[kind]
    first = ll.lengths.prequential(make(0.5), data, "categorical", out=out)
    again = ll.lengths.prequential(make(0.5), data, "categorical", out=out)
    assert torch.equal(first.blocks, again.blocks)
    with pytest.raises(StoreError, match="the settings differ"):
        ll.lengths.prequential(make(5.0), data, "categorical", out=out)
    other = ll.lengths.prequential(make(5.0), data, "categorical")
    assert other.total > first.total + 1


def test_code_counts_and_its_place_does_not():
    def compiled(text, name="a"):
        space = {}
        exec(compile(text, name, "exec"), space)
        return space["f"]

    f = compiled("def f(x):\n    return x + 1")
    same = compiled("\n\n\ndef f(x):\n    return x + 1", "b")
    assert digest_of_function(f) == digest_of_function(same)
    for text in (
        "def f(x):\n    return x + 2",
        "def f(x):\n    return x - 1",
        "def f(x):\n    return abs(x)",
        "def f(x, *, k=1):\n    return x + 1",
    ):
        assert digest_of_function(f) != digest_of_function(compiled(text))


def test_what_holds_itself_comes_to_an_end():
    def f(n):
        return f(n - 1) if n else 0

    assert digest_of_function(f) == digest_of_function(f)
