"""Layers that go by rules of our own, against per-sample gradients in NumPy."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from lightlike.metric.products import recorded
from lightlike.metric.products.rules import Rules
from oracles import networks as nets
from oracles.reference import whitened


def attention(self, x, **options):
    q, k, v = self.project(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v, **options)
    return mixed.transpose(1, 2).flatten(2).sum(1)


def attending(**options):
    return nets.Call(lambda self, x: attention(self, x, **options), project=nn.Linear(3, 12))


def convolutions(channels, *middle, **options):
    return nn.Sequential(
        nn.Conv2d(channels, 3, 3, **options), *middle, nn.Conv2d(3, 2, 2), nn.Flatten(),
        nn.LazyLinear(3),
    )  # fmt: skip


IMAGES = {channels: nets.normal(4, channels, 7, 6, seed=channels) for channels in (1, 5)}
WORDS = nets.normal(4, 3, 3, seed=3)
MASK = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
MODELS = {
    "normalised": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    "normalised input": lambda: nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 3)),
    "no weights": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, bias=False),
                                        nn.LayerNorm(4, elementwise_affine=False)),
    **{name: lambda f=f: nn.Sequential(nn.Linear(3, 4), f, nn.Linear(4, 3))
       for name, f in {"gelu": nn.GELU("tanh"), "silu": nn.SiLU(), "in place": nn.SiLU(True),
                       "softplus": nn.Softplus(2.0), "elu": nn.ELU(0.7)}.items()},
}  # fmt: skip
SEQUENCES = {
    "attention": attending,
    "causal": lambda: attending(is_causal=True, scale=0.3),
    "masked": lambda: attending(attn_mask=MASK),
    "shifted": lambda: nets.Call(lambda self, x: attention(self, x, attn_mask=x[0]),
                                 project=nn.Linear(3, 12)),
}  # fmt: skip
PICTURES = {
    "strided": lambda c: convolutions(c, nn.ReLU(), stride=2, padding=1),
    "dilated": lambda c: convolutions(c, nn.Tanh(), dilation=2, padding=(1, 2), bias=False),
    "pooled": lambda c: convolutions(c, nn.ReLU(), nn.MaxPool2d(2, 1, padding=1)),
    "folded": lambda c: convolutions(c, nn.BatchNorm2d(3), nn.ReLU(), bias=False),
    "folded, no weights": lambda c: convolutions(c, nn.BatchNorm2d(3, affine=False), bias=False),
    "not folded": lambda c: convolutions(c, nn.BatchNorm2d(3), nn.ReLU()),
    "viewed": lambda c: convolutions(c, nn.Tanh(), nets.Call(lambda _, x: x.view(4, 3, -1)
                                                             .view(x.shape))),
}  # fmt: skip


def compare(model, x):
    if any(isinstance(module, nn.LazyLinear) for module in model.modules()):
        model(x.float())
    model = nets.fill(model, 1).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.tensor([0.3, -0.2, 0.5]))
            module.running_var.copy_(torch.tensor([0.5, 1.2, 2.0]))
    A = torch.from_numpy(whitened(model, [(x, None)], "gaussian"))
    F = ll.fisher(model, (x,), "gaussian")
    v = nets.normal(F.shape[0], 3, seed=5)
    expected = A.T @ (A @ v)
    for dtype, limit in (("float64", 1e-12), ("float32", 2e-6)):
        P = F.products(100, dtype=dtype)
        for found in (P @ v, torch.stack([P @ column for column in v.T], 1)):
            assert float((found - expected).norm()) <= limit * float(expected.norm())
        assert P.way == "linearised + kept backward graph"


@pytest.mark.parametrize("name", MODELS)
def test_layers(name):
    compare(MODELS[name](), nets.normal(4, 3, seed=2))


@pytest.mark.parametrize("name", SEQUENCES)
def test_attentions(name):
    compare(SEQUENCES[name](), WORDS)


@pytest.mark.parametrize("channels", IMAGES)
@pytest.mark.parametrize("name", PICTURES)
def test_convolutions(name, channels):
    compare(PICTURES[name](channels), IMAGES[channels])


def test_a_rule_that_is_wrong_is_not_taken(monkeypatch):
    class Wrong(Rules):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            found = super().__torch_function__(func, types, args, kwargs)
            return wrong(found) if func is functional.gelu else found

    def wrong(found):
        return found.detach() + 0.5 * (found - found.detach())

    monkeypatch.setattr(recorded, "Rules", Wrong)
    compare(MODELS["gelu"](), nets.normal(4, 3, seed=2))
