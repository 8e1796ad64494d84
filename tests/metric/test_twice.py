"""Whether a model can be differentiated twice, and what follows where it cannot."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

import lightlike as ll
from lightlike.metric.twice import differentiable_twice
from lightlike.problem.likelihoods import (
    Likelihood,
)
from oracles import networks as nets
from oracles.products import LIKELIHOODS, TOKENS, Detached, Once, X, custom
from oracles.reference import score_root


@pytest.mark.parametrize("make", [
    lambda: (nets.mlp([3, 4, 4], "gelu"), X),
    lambda: (nets.raw(3, 4, 2), X),
    lambda: (nets.language_model(5, 4, 3, 2, nets.Attention, True), TOKENS),
    lambda: (nn.Sequential(nn.Embedding(5, 2), nets.Recurrent(nn.GRU, 2, 3, 5, True)), TOKENS),
    lambda: (nn.Sequential(nn.Embedding(5, 2), nets.Recurrent(nn.LSTM, 2, 3, 5, True)), TOKENS),
])  # fmt: skip
def test_what_can_be_differentiated_twice(make):
    model, x = make()
    assert differentiable_twice(ll.fisher(nets.fill(model, 2), (x,), "categorical").problem)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_weights_are_the_covariance_of_the_score(name):
    h, x = nets.normal(3, 6, seed=2), nets.normal(3, 6, seed=3)
    found = LIKELIHOODS[name].weigh(h, x)
    general = Likelihood.weigh(LIKELIHOODS[name], h, x)
    for o, i, y, z in zip(h, x, found, general, strict=True):
        R = score_root(name, o.numpy(), 0.3)
        np.testing.assert_allclose(y.numpy(), R.T @ R @ i.numpy(), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(z.numpy(), R.T @ R @ i.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("function", [Once, Detached])
def test_what_cannot_be_differentiated_twice_is_noticed(function):
    model = custom(function)
    F = ll.fisher(model, (X, torch.arange(7) % 4), "categorical")
    assert not differentiable_twice(F.problem)
    m = ll.measure(model, (X, torch.arange(7) % 4), "categorical", progress=False,
                   method=ll.Sketch(draws=2, repetitions=30))  # fmt: skip
    assert m.record["sketch"]["displacement_error"] is None
    assert any("double backward" in w for w in m.warnings)
    truth = ll.measure(model, (X, torch.arange(7) % 4), "categorical", progress=False).length
    total = m.record["sketch"]["estimates"]["total"]
    assert m.length.displacement < truth.displacement
    assert total["value"] + 3 * total["stderr"] < truth.total
    assert m.record["sketch"]["estimates"]["total_missing"]["value"] > 0


def test_an_operation_without_a_double_backward():
    bag = nets.fill(nn.Sequential(nn.EmbeddingBag(5, 3, mode="sum"), nn.Linear(3, 4)), 0)
    F = ll.fisher(bag, (TOKENS,), "categorical")
    assert not differentiable_twice(F.problem)


def test_the_model_and_random_states_are_left_alone(untouched):
    model = nets.fill(nets.mlp([3, 4, 5], "tanh"), 0)
    with untouched(model, X):
        F = ll.fisher(model, (X,), "categorical")
        assert differentiable_twice(F.problem)


class Plain:
    """tanh as it is."""

    apply = staticmethod(torch.tanh)


class Forward(torch.autograd.Function):
    """tanh with forward mode, whose backward pass refuses to be differentiated."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        ctx.save_for_forward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y**2)

    @staticmethod
    def jvp(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y**2)


@pytest.mark.parametrize(("function", "spared"), [
    (Plain, True), (Forward, True), (Once, False), (Detached, False),
])  # fmt: skip
def test_whether_products_do_without_rows(function, spared):
    data = X, torch.arange(7) % 4
    model = custom(function)
    F = ll.fisher(model, data, "categorical")
    with F.products() as products:
        assert products.spares_rows() == spared
        v = nets.normal(F.shape[0], seed=4)
        assert torch.allclose(products @ v, F.dense() @ v, atol=1e-12)
        assert (products.way != "rows of A") == spared
    # Where they do, the displacement of a sketch is exact; so is that of an approximation always.
    sketched = ll.measure(model, data, "categorical", progress=False, method=ll.Sketch(draws=2))
    assert (sketched.record["sketch"]["displacement_error"] is not None) == spared
    truth = ll.measure(model, data, "categorical", progress=False).length.displacement
    approximate = ll.measure(model, data, "categorical", progress=False, method="kronecker").length
    for found in [approximate, *([sketched.length] if spared else [])]:
        assert -1e-9 <= truth - found.displacement <= found.displacement_error + 1e-9
