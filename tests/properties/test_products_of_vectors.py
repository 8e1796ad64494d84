"""Operators for many products against the naive Fisher matrix, on random networks and data."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_against_reference import LIKELIHOODS, activations, cut, examples, questions
from torch import nn

import lightlike as ll
from oracles import networks as nets
from oracles.reference import whitened

options = st.fixed_dictionaries(
    {
        "expected": st.sampled_from([None, 1, 2, 5, 8, 100]),
        "memory": st.sampled_from([None, 0, 2000]),
        "dtype": st.sampled_from(["float64", "float32"]),
    }
)


def check(model, x, question, options, columns):
    batches = cut(x, question.cuts)
    A = whitened(model, batches, question.likelihood, variance=0.3)
    P = ll.fisher(model, batches, LIKELIHOODS[question.likelihood]).products(**options)
    limit = (1e-6 if options["dtype"] == "float32" else 1e-12) * np.linalg.norm(A)
    v, u = (nets.normal(A.shape[1], columns, seed=question.seed + i) for i in range(2))
    for _ in range(3):
        found = P @ v
        expected = A.T @ (A @ v.numpy())
        size = np.linalg.norm(A) * float(v.norm())
        assert found.shape == v.shape
        assert np.linalg.norm(found.numpy() - expected) <= limit * size
        last = P @ v[:, -1]
        assert np.linalg.norm(last.numpy() - expected[:, -1]) <= limit * size
    other = P @ u
    assert float((u.T @ found - other.T @ v).abs().max()) <= limit * size * float(u.norm())
    assert float((P.mv(v).T @ P.mv(u) - v.T @ other).abs().max()) <= limit * size * float(u.norm())
    assert P.count == 6 * columns + 3


@examples(25)
@given(
    questions(), st.lists(st.integers(1, 5), max_size=3), activations, st.booleans(), options,
    st.integers(1, 4),
)  # fmt: skip
def test_perceptrons(question, hidden, activation, norm, options, columns):
    model = nets.mlp([3, *hidden, question.m], activation, True, nn.LayerNorm if norm else None)
    model = nets.fill(model, question.seed)
    check(model, nets.normal(question.n, 3, seed=question.seed + 9), question, options, columns)


@examples(8)
@given(questions(), activations, options)
def test_convolutions(question, activation, options):
    act = nets.ACTIVATIONS[activation]
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), act(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8, question.m),
    )  # fmt: skip
    model = nets.fill(model, question.seed)
    check(model, nets.normal(question.n, 1, 4, 4, seed=question.seed + 9), question, options, 2)


@examples(6)
@given(questions(width=st.just(4)), st.sampled_from([nets.Attention, nets.encoder]), options)
def test_attention(question, layer, options):
    model = nets.fill(nets.language_model(4, 4, 3, 2, layer, True), question.seed)
    x = torch.randint(0, 4, (question.n, 3), generator=nets.generator(question.seed + 9))
    check(model, x, question, options, 2)


@examples(5)
@given(questions(), st.sampled_from([nn.LSTM, nn.GRU]), options)
def test_recurrent_networks(question, kind, options):
    model = nets.fill(nets.Recurrent(kind, 2, 2, question.m, True), question.seed)
    check(model, nets.normal(question.n, 3, 2, seed=question.seed + 9), question, options, 2)
