"""Attention as PyTorch ships it, against the naive reference and the generic path."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from oracles import networks as nets
from oracles.roots import check_root

seeds = st.integers(0, 9999)
few = st.integers(1, 3)
LIKELIHOODS = st.sampled_from(["gaussian", "categorical", "bernoulli"])
# PyTorch's own remarks on masks and its fast path.
pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
]


def inputs(n, length, width, seed):
    """Sequences and where they are padded; the first position never is."""
    x = nets.normal(n, length, width, seed=seed)
    padded = torch.rand(n, length, generator=nets.generator(seed)) < 0.4
    padded[:, 0] = False
    return x, padded


def batches(x, padded, size):
    """Batches of pairs of arguments, the mask as numbers that survive any cast."""
    return [((a, b), None) for a, b in zip(x.split(size), padded.double().split(size), strict=True)]


def measure(model, n, length, width, size, seed, likelihood="gaussian"):
    model = nets.fill(model, seed)
    return check_root(model, batches(*inputs(n, length, width, seed), size), likelihood)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 4), few, few, st.booleans(), st.booleans(), st.booleans(), LIKELIHOODS, seeds)
def test_scaled_dot_product_attention(n, length, size, causal, masked, raw, likelihood, seed):
    def forward(self, x, padded):
        q, k, v = self.mix(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        mask = (padded < 0.5)[:, None, None] if masked and not causal else None
        h = functional.scaled_dot_product_attention(q, k, v, mask, 0.0, causal)
        h = self.out(h.transpose(1, 2).flatten(2))
        return h if raw else h.mean(1)

    model = nets.Call(forward, mix=nn.Linear(3, 12), out=nn.Linear(4, 2))
    root = measure(model, n, length, 3, size, seed, likelihood)
    assert set(root.sweep.ways) == {"aligned"}


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 4), few, few,
    st.fixed_dictionaries(dict(
        batch_first=st.booleans(), bias=st.booleans(), add_bias_kv=st.booleans(),
        add_zero_attn=st.booleans(), own=st.sampled_from([{}, dict(kdim=3, vdim=2)]),
    )),
    st.booleans(), st.booleans(), st.booleans(), seeds,
)  # fmt: skip
def test_multi_head_attention(n, length, size, options, cross, masked, weights, seed):
    own = options.pop("own")
    cross = cross or bool(own)
    kdim, vdim = own.get("kdim", 4), own.get("vdim", 4)
    attention = nn.MultiheadAttention(4, 2, **options, **own)

    def forward(self, x, padded):
        x = x if options["batch_first"] else x.transpose(0, 1)
        others = torch.cat([x.sin(), x.cos()[:, :1] if options["batch_first"] else x.cos()[:1]],
                           1 if options["batch_first"] else 0)  # fmt: skip
        k, v = (others[..., :kdim], others[..., :vdim] * 2) if cross else (x, x)
        padding = functional.pad(padded, (0, k.shape[options["batch_first"]] - padded.shape[1]))
        h, _ = self.attention(
            x, k, v, key_padding_mask=padding > 0.5 if masked else None, need_weights=weights
        )
        h = h if options["batch_first"] else h.transpose(0, 1)
        return self.out(torch.tanh(h.mean(1)))

    model = nets.Call(forward, attention=attention, out=nn.Linear(4, 2))
    root = measure(model, n, length, 4, size, seed)
    if not options["add_bias_kv"]:
        assert all(unit.contracted for unit in root.units)
        assert set(root.sweep.ways) == {"aligned"}


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3), few, few, st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from(["relu", "gelu"]), st.integers(1, 2), seeds,
)  # fmt: skip
def test_encoders(n, length, size, batch_first, ahead, masked, activation, layers, seed):
    """With padding, PyTorch's fast path would run on nested tensors, without gradients."""
    layer = nn.TransformerEncoderLayer(
        4, 2, 3, 0.0, activation, batch_first=batch_first, norm_first=ahead
    )

    def forward(self, x, padded):
        x = x if batch_first else x.transpose(0, 1)
        h = self.encoder(x, src_key_padding_mask=padded > 0.5 if masked else None)
        h = h if batch_first else h.transpose(0, 1)
        return self.out((h * (1 - padded)[..., None]).sum(1))

    model = nets.Call(forward, encoder=nn.TransformerEncoder(layer, layers), out=nn.Linear(4, 2))
    root = measure(model, n, length, 4, size, seed)
    assert all(unit.contracted for unit in root.units)
    assert set(root.sweep.ways) == {"aligned"}


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), few, few, st.booleans(), st.booleans(), st.booleans(), seeds)
def test_decoders(n, length, size, batch_first, ahead, causal, seed):
    layer = nn.TransformerDecoderLayer(4, 2, 3, 0.0, batch_first=batch_first, norm_first=ahead)

    def forward(self, x, padded):
        memory = torch.cat([x.flip(1), x], 1)
        target, source = (x, memory) if batch_first else (x.transpose(0, 1), memory.transpose(0, 1))
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=x.dtype)
        h = self.decoder(
            target, source, tgt_mask=mask if causal else None, tgt_is_causal=causal,
            memory_key_padding_mask=torch.cat([padded, padded], 1) > 0.5,
        )  # fmt: skip
        return self.out(h.mean(1 if batch_first else 0))

    model = nets.Call(forward, decoder=layer, out=nn.Linear(4, 2))
    root = measure(model, n, length, 4, size, seed)
    assert all(unit.contracted for unit in root.units)
    assert set(root.sweep.ways) == {"aligned"}
