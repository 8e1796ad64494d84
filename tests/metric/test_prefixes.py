"""Rows of causal models, back-propagated through no more of a sequence than they depend on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lightlike as ll
from lightlike.metric import prefixes
from oracles import networks as nets
from oracles.roots import check_root

TOKENS = torch.arange(24).view(4, 6) * 5 % 7 % 4


@pytest.fixture(autouse=True)
def cut_short_sequences(monkeypatch):
    monkeypatch.setattr(prefixes, "NEAREST", 2)


def transformer(causal=True, sliced=True, tied=False, after=None, seed=0):
    """Embeddings of tokens and positions, one block of attention, logits at every position."""

    def forward(self, x):
        h = self.embedding(x.long()) + self.place(torch.arange(x.shape[1] if sliced else 6))
        q, k, v = self.mix(self.norm(h)).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        h = self.head(h)
        return h if after is None else after(h)

    head = nn.Linear(4, 4, bias=not tied)
    embedding = nn.Embedding(4, 4)
    if tied:
        head.weight = embedding.weight
    parts = dict(embedding=embedding, place=nn.Embedding(6, 4), norm=nn.LayerNorm(4))
    parts |= dict(mix=nn.Linear(4, 12), out=nn.Linear(4, 4), head=head)
    return nets.fill(nets.Call(forward, **parts), seed)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(3, 6), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_a_causal_transformer(n, length, size, tied, seed):
    x = (nets.normal(n, length, seed=seed).abs() * 3).long() % 4
    batches = [(part, None) for part in x.split(size)]
    root = check_root(transformer(tied=tied, seed=seed), batches, "categorical")
    assert set(root.sweep.ways) == {"causal"}


def test_ignored_positions_and_ragged_batches(agree):
    labels = TOKENS.clone()
    labels[0, :3] = labels[:, 4] = labels[2, 2] = -100
    batches = [(TOKENS[:3], labels[:3]), (TOKENS[3:], labels[3:])]
    likelihood = ll.likelihoods.Categorical(ignore_index=-100)
    root = agree(transformer(), batches, likelihood, name="categorical", ignore_index=-100)
    assert set(root.sweep.ways) == {"causal"}


def test_a_causal_convolution(agree):
    def forward(self, x):
        h = functional.pad(x.transpose(1, 2), (2, 0))
        return self.last(torch.tanh(self.first(h)).transpose(1, 2))

    model = nets.Call(forward, first=nn.Conv1d(2, 3, 3), last=nn.Linear(3, 2))
    root = agree(nets.fill(model, 1), [(nets.normal(3, 6, 2), None)], "gaussian")
    assert set(root.sweep.ways) == {"causal"}


def test_the_same_bits_as_whole_sequences_up_to_rounding(only):
    gram = ll.fisher(transformer(), (TOKENS,), "categorical").root.gram()
    only("aligned")
    whole = ll.fisher(transformer(), (TOKENS,), "categorical").root.gram()
    assert float((gram - whole).abs().max()) <= 1e-14 * float(whole.abs().max())


def leaking(h):
    return h + 1e-6 * h.mean(1, keepdim=True)


def leaking_in_the_gradient_only(h):
    later = h.flip(1).cumsum(1).flip(1).tanh()
    return h + (later - later.detach())


def refusing(h):
    if h.shape[1] < 6:
        raise ValueError("six tokens, please")
    return h


@pytest.mark.parametrize("after", [leaking, leaking_in_the_gradient_only, refusing])
def test_models_that_only_seem_causal(after, agree):
    root = agree(transformer(after=after), [(TOKENS, None)], "categorical")
    assert set(root.sweep.ways) == {"aligned"}


def test_models_that_are_not_causal(agree):
    root = agree(transformer(causal=False), [(TOKENS, None)], "categorical")
    assert set(root.sweep.ways) == {"aligned"}


def test_positions_that_cannot_be_cut(agree):
    root = agree(transformer(sliced=False), [(TOKENS, None)], "categorical")
    assert set(root.sweep.ways) == {"aligned"}


def test_another_path_for_short_sequences(agree):
    """The same outputs by other calls: their gradients stand elsewhere."""

    def forward(self, x):
        h = torch.tanh(self.first(x))
        if x.shape[1] < 6:
            return h @ self.last.weight.T + self.last.bias
        return self.last(h)

    model = nets.fill(nets.Call(forward, first=nn.Linear(2, 3), last=nn.Linear(3, 2)), 0)
    root = agree(model, [(nets.normal(3, 6, 2), None)], "gaussian")
    assert set(root.sweep.ways) == {"aligned"}
