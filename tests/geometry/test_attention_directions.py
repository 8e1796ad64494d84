"""Null directions of attention: closed forms, plain singular values, and what is explained."""

import pytest
import torch
from torch import nn

import lightlike as ll
from oracles.attention_layers import Attend, nullity, sequences
from oracles.dense_roots import dense_root
from oracles.dense_roots import nullity as counted
from oracles.networks import Call, fill, normal

SETTINGS = {
    "plain": dict(),
    "all biases": dict(bias="qkvo"),
    "biases of queries and keys": dict(bias="qk"),
    "bias of keys alone": dict(bias="k"),
    "bias of values alone": dict(bias="v", kernel="matmul"),
    "one head of keys": dict(groups=1, bias="qkvo"),
    "two query heads a group": dict(heads=4, groups=2, layout="interleaved", kernel="matmul"),
    "fused": dict(bias="qkvo", layout="fused", kernel="matmul"),
    "interleaved": dict(bias="qkvo", layout="interleaved", kernel="einsum", causal=True),
    "transposed": dict(bias="qkvo", layout="transposed", causal=True),
    "rotary": dict(rotary=True, size=4),
    "rotary with biases": dict(rotary=True, bias="qkvo", kernel="einsum"),
    "rotary, one head of keys": dict(rotary=True, groups=1, kernel="matmul", size=4),
    "position bias": dict(alibi=True, bias="qkvo"),
    "one layer for queries and keys": dict(tied=True, bias="qkvo", size=3),
}


def layer(*, heads=2, size=2, seed=3, **options):
    return fill(Attend(5, heads, size, **options).double(), seed, 1.5)


def kinds(explanation):
    found = {}
    for source in explanation.sources:
        if source.dimension:
            found[source.kind] = found.get(source.kind, 0) + source.dimension
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_counts_are_those_of_the_closed_form_and_of_plain_differentiation(name):
    options = dict(heads=2, size=2) | SETTINGS[name]
    model, x = layer(**options), sequences(16 if options["size"] > 2 else 12, 4, 5)
    explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert explanation.explained == nullity(**options) == counted(model, x)
    assert explanation.unexplained == 0
    images = torch.from_numpy(dense_root(model, x) @ explanation.directions.toarray())
    assert float(images.abs().max()) < 1e-11


def test_each_head_has_its_own_directions():
    explanation = ll.explain(ll.fisher(layer(bias="qkvo"), (sequences(12, 4, 5),), "gaussian"))
    assert kinds(explanation) == {
        "queries and keys": 8, "values and output": 8, "inert parameter": 4, "bias before bias": 4,
    }  # fmt: skip


@pytest.mark.parametrize("options", [dict(bias="qkvo"), dict(groups=1), dict(bias="kv")])
def test_maps_of_heads_and_other_orders_of_heads_change_no_count(options):
    """W_Q ↦ M W_Q, W_K ↦ M⁻ᵀ W_K, and heads in reverse."""
    model, x = layer(**options), sequences(12, 4, 5)
    before = ll.explain(ll.fisher(model, (x,), "gaussian"))
    groups, shared = model.groups, model.heads // model.groups
    maps = normal(groups, 2, 2, seed=9) + 2 * torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        for part, each in (
            (model.q, maps.repeat_interleave(shared, 0)), (model.k, maps.inverse().mT),
        ):  # fmt: skip
            for p in part.parameters():
                p.copy_(
                    torch.einsum("hij,hj...->hi...", each, p.unflatten(0, (-1, 2))).flatten(0, 1)
                )
        for part in (model.q, model.k, model.v):
            for p in part.parameters():
                p.copy_(p.unflatten(0, (-1, 2)).flip(0).flatten(0, 1))
        model.o.weight.copy_(model.o.weight.unflatten(1, (-1, 2)).flip(1).flatten(1))
        assert float((model(x) - expected).norm()) < 1e-10 * float(expected.norm())
    after = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert kinds(after) == kinds(before)


def self_attention(options, *, weights, causal=False):
    def forward(self, x):
        mask = None
        if causal:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.attention(x, x, x, need_weights=weights, attn_mask=mask)[0]

    return Call(forward, attention=nn.MultiheadAttention(4, 2, batch_first=True, **options))


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    ("options", "causal", "expected"),
    [
        (dict(), False, 24), (dict(), True, 24), (dict(bias=False), False, 16),
        (dict(add_zero_attn=True), False, 16), (dict(add_bias_kv=True), False, 24),
        (dict(add_bias_kv=True, bias=False), False, 16),
        (dict(add_bias_kv=True, add_zero_attn=True), False, 16),
    ],
)  # fmt: skip
def test_pytorchs_own_attention(options, causal, expected, weights):
    """A row of zeros among the keys makes their bias, and that of the values, count.

    A learnt key and value among them must be shifted with the others.
    """
    model = fill(self_attention(options, weights=weights, causal=causal).double(), 1, 1.5)
    x = normal(12, 4, 4)
    explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert (explanation.explained, explanation.unexplained) == (expected, 0)
    assert counted(model, x) == expected
    assert all(source.verified == source.claimed for source in explanation.sources)
    shifts = 8 if options == dict(add_bias_kv=True) else 0
    assert kinds(explanation).get("bias beside bias", 0) == shifts


@pytest.mark.parametrize("widths", [dict(), dict(kdim=5, vdim=3)])
def test_cross_attention(widths):
    """Packed weights, sliced by the call, and separate ones."""
    attention = nn.MultiheadAttention(4, 2, batch_first=True, **widths)
    model = fill(Call(lambda self, x, k, v: self.a(x, k, v)[0], a=attention).double(), 2, 1.5)
    x, k = normal(14, 4, 4, seed=1), normal(14, 5, widths.get("kdim", 4), seed=2)
    v = normal(14, 5, widths.get("vdim", 4), seed=3) if widths else k
    explanation = ll.explain(ll.fisher(model, [((x, k, v), None)], "gaussian"))
    assert (explanation.explained, explanation.unexplained) == (24, 0)
    assert counted(model, (x, k, v)) == 24


@pytest.mark.parametrize(
    ("options", "found"),
    [(dict(normalised=True), dict(queries=2, values=8)), (dict(extra=True), dict(queries=8))],
)
def test_broken_symmetries_are_not_claimed(options, found):
    """Normalised queries leave an exchange of gains, a sine of the values nothing of them."""
    model, x = layer(**options), sequences(12, 4, 5)
    explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert explanation.unexplained == 0
    assert explanation.explained == counted(model, x)
    by_kind = kinds(explanation)
    for word, kind in (("queries", "queries and keys"), ("values", "values and output")):
        assert by_kind.get(kind, 0) == found.get(word, 0)
