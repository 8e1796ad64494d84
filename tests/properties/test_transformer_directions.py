"""Named null directions of random attention: never more than there are, whatever breaks them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lightlike as ll
from oracles.attention_layers import Attend
from oracles.dense_roots import dense_root
from oracles.networks import Call, fill, normal

seeds = st.integers(0, 9999)
OPTIONS = st.fixed_dictionaries(
    dict(
        groups=st.sampled_from([1, 2]), bias=st.sets(st.sampled_from("qkvo")).map("".join),
        layout=st.sampled_from(["separate", "fused", "interleaved", "transposed"]),
        kernel=st.sampled_from(["sdpa", "matmul", "einsum"]), causal=st.booleans(),
        rotary=st.booleans(), normalised=st.booleans(), alibi=st.booleans(), tied=st.booleans(),
        extra=st.booleans(),
    )
)  # fmt: skip
BREAKS = (
    "queries are read", "keys are read", "the output weight is read", "heads share an output",
    "values in other places", "a sine of the queries", "scores are squared", "nothing",
)  # fmt: skip


def check(model, x, likelihood="gaussian"):
    """Assert that what is explained is null, independent, and no more than there is."""
    explanation = ll.explain(ll.fisher(model, (x,), likelihood))
    root = dense_root(model, x, likelihood == "categorical")
    values = np.linalg.svd(np.linalg.qr(root, mode="r"), compute_uv=False)
    nullity = root.shape[1] - int((values > 1e-12 * values[0]).sum())
    assert explanation.explained <= nullity
    directions = explanation.directions.toarray()
    lengths = np.linalg.norm(directions, axis=0)
    assert (np.linalg.norm(root @ directions, axis=0) <= 1e-10 * values[0] * lengths).all()
    assert explanation.certain <= np.linalg.matrix_rank(directions / lengths, tol=1e-9)
    return explanation


@settings(max_examples=12, deadline=None)
@given(OPTIONS, st.booleans(), seeds)
def test_attention_in_all_its_ways(options, ahead, seed):
    if options["layout"] != "separate":
        options["tied"] = False
    if options["tied"]:
        options["groups"] = 2
    attend = Attend(4, 2, 2, **options)
    parts = [nn.LayerNorm(4), attend] if ahead else [attend]
    check(fill(nn.Sequential(*parts).double(), seed, 1.3), normal(10, 3, 4, seed=seed))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(BREAKS), st.booleans(), st.booleans(), seeds)
def test_symmetries_that_something_breaks(broken, bias, plain, seed):
    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (2, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if broken == "values in other places":
            v = v.roll(1, -1) + v
        if broken == "a sine of the queries":
            q = q.sin()
        if plain or broken == "scores are squared":
            scores = q @ k.mT
            scores = scores**2 if broken == "scores are squared" else scores
            h = scores.softmax(-1) @ v
        else:
            h = functional.scaled_dot_product_attention(q, k, v)
        if broken == "heads share an output":
            y = self.o(h.sum(1).repeat(1, 1, 2))
        else:
            y = self.o(h.transpose(1, 2).flatten(2))
        if broken == "queries are read":
            y = y + q.flatten(2).mean(1)[:, None, :4]
        if broken == "keys are read":
            y = y * k.tanh().mean((1, 2, 3))[:, None, None]
        if broken == "the output weight is read":
            y = y + self.o.weight.square().sum()
        return y

    layers = {name: nn.Linear(4, 4, bias) for name in "qkvo"}
    check(fill(Call(forward, **layers).double(), seed, 1.3), normal(10, 3, 4, seed=seed))


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["layer", "rms"]), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from(["nothing", "a feature", "the sum", "a square", "the gain", "the mean"]),
    st.sampled_from(["gaussian", "categorical"]), seeds,
)  # fmt: skip
def test_streams_that_something_else_reads(kind, bias, shared, learnt, broken, likelihood, seed):
    """Two blocks on a stream, of one set of weights if shared, and a further reader."""
    norm = nn.LayerNorm if kind == "layer" else nn.RMSNorm

    def forward(self, x):
        x = self.enter(x)
        x = x + (self.place if learnt else self.place.detach())
        for block in (self.first, self.first if shared else self.second):
            x = x + block(x)
        y = self.head(self.last(x))
        if broken == "a feature":
            y = y + x[..., :1]
        if broken == "the sum":
            y = y + x.sum(-1, keepdim=True)
        if broken == "a square":
            y = y + x.square().sum(-1, keepdim=True)
        if broken == "the gain":
            y = y * self.last.weight.prod()
        if broken == "the mean":
            y = y + (x - x.mean(-1, keepdim=True))[..., :3].sin()
        return y

    def block():
        return nn.Sequential(norm(4), nn.Linear(4, 3, bias), nn.GELU(), nn.Linear(3, 4, bias))

    model = Call(
        forward, enter=nn.Linear(3, 4, bias), place=nn.Parameter(torch.zeros(2, 4)),
        first=block(), second=block(), last=norm(4), head=nn.Linear(4, 3, bias),
    )  # fmt: skip
    check(fill(model.double(), seed, 1.3), normal(16, 2, 3, seed=seed), likelihood)
