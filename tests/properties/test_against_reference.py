"""The root, its products and its spectrum against a naive reference, on random networks."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from oracles import networks as nets
from oracles.reference import whitened

EPS = np.finfo(np.float64).eps
ROUTES = ("gram", "metric", "svd")

LIKELIHOODS = {
    "categorical": ll.likelihoods.Categorical(),
    "gaussian": ll.likelihoods.Gaussian(variance=0.3),
    "bernoulli": ll.likelihoods.Bernoulli(),
    "poisson": ll.likelihoods.Poisson(),
    "heteroscedastic": ll.likelihoods.HeteroscedasticGaussian(),
}


def examples(count):
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Question(NamedTuple):
    likelihood: str
    m: int
    n: int
    cuts: list[int]
    seed: int
    aspect: Callable[..., None]


@st.composite
def questions(draw, width=None):
    """A likelihood, outputs that suit it, N, where batches end, a seed, and what to check."""
    name = draw(st.sampled_from(list(LIKELIHOODS)))
    m = draw(st.integers(2, 4) if width is None else width)
    if name == "heteroscedastic":
        m = 2 * ((m + 1) // 2)
    n = draw(st.integers(1, 7))
    cuts = draw(st.sets(st.integers(1, n), max_size=3)) - {n}
    aspect = draw(st.sampled_from([check_operator, check_scaled, check_layers, check_invariance]))
    return Question(name, m, n, sorted(cuts), draw(st.integers(0, 2**20)), aspect)


def cut(x, cuts):
    bounds = [0, *cuts, len(x)]
    return [(x[a:b], None) for a, b in pairwise(bounds)]


def close(found, expected, tolerance=1e-12, scale=None):
    scale = np.linalg.norm(expected) if scale is None else scale
    return np.linalg.norm(np.asarray(found) - expected) <= tolerance * scale


def check(model, x, question, parameters=None, names=None):
    """What a root and its spectrum answer, against A from numpy."""
    batches = cut(x, question.cuts)
    A = whitened(model, batches, question.likelihood, variance=0.3, names=names)
    F = ll.fisher(model, batches, LIKELIHOODS[question.likelihood], parameters)
    assert F.shape == (A.shape[1],) * 2
    check_spectrum(F, A)
    dense = check_products(F.root, A.T @ A, question.seed)
    question.aspect(F, dense, model=model, x=x, question=question)


def check_spectrum(F, A):
    singular = np.linalg.svd(A, compute_uv=False)
    assume(singular[0] > 1e-6)
    expected = np.zeros(max(A.shape))
    expected[: len(singular)] = singular**2
    for method in ROUTES:
        spectrum = ll.spectrum(F, method=method)
        found = np.zeros(max(*A.shape, len(spectrum)))
        found[: len(spectrum)] = spectrum.eigenvalues.numpy()
        assert np.abs(found[: len(expected)] - expected).max() <= 1e-9 * expected[0], method
        assert spectrum.trace == pytest.approx((A**2).sum(), rel=1e-12)
    threshold = max(F.root.shape) * EPS * singular[0]
    assume(not ((singular > threshold / 10) & (singular < threshold * 10)).any())
    rank = np.linalg.matrix_rank(A, tol=threshold)
    for method in ROUTES:
        dimension = ll.dimension(F, method=method)
        assert (int(dimension), dimension.lower, dimension.upper) == (rank,) * 3, method
        assert dimension.kind == "exact"


def check_products(root, expected, seed):
    """AᵀA in three ways: written out, asked for, and by products."""
    dense = root.dense().numpy()
    assert close(dense.T @ dense, expected)
    assert close(root.metric(), expected)
    assert sum(root.traces.values()) == pytest.approx(np.trace(expected), rel=1e-12)
    gram = root.gram()
    assert torch.equal(gram, gram.T)
    assert close(gram, dense @ dense.T)
    assert sum(root.traces.values()) == pytest.approx(np.trace(expected), rel=1e-12)
    v = nets.normal(root.shape[1], 2, seed=seed)
    assert close(root.rmv(root.mv(v)), expected @ v.numpy(), 1e-11, np.linalg.norm(expected) * 4)
    assert dense.shape == root.shape == (root.shape[0], len(expected))
    return dense


def check_operator(F, dense, *, question, **_):
    root, scale, seed = F.root, 4 * np.linalg.norm(dense), question.seed
    rows, columns = root.shape
    v, u = nets.normal(columns, 3, seed=seed), nets.normal(rows, 3, seed=seed + 1)
    Av, Au = dense @ v.numpy(), dense.T @ u.numpy()
    operator = root.to_scipy()
    for found, expected in [
        (root.mv(v), Av),
        (root.mv(v[:, 0]), Av[:, 0]),
        (root @ v[:, 1], Av[:, 1]),
        (root.T.T @ v, Av),
        (operator @ v[:, 0].numpy(), Av[:, 0]),
        (operator @ v.numpy(), Av),
        (root.rmv(u), Au),
        (root.rmv(u[:, 0]), Au[:, 0]),
        (root.rmv(u[:, :1]), Au[:, :1]),
        (root.T @ u, Au),
        (operator.T @ u[:, 0].numpy(), Au[:, 0]),
        (operator.rmatmat(u.numpy()), Au),
        (F @ v, dense.T @ Av),
    ]:
        assert found.shape == expected.shape
        assert close(found, expected, scale=scale * (1 + scale))
    left, right = float((root.mv(v) * u).sum()), float((v * root.rmv(u)).sum())
    assert left == pytest.approx(right, rel=1e-10, abs=1e-11 * scale)
    rank = root.problem.survey.rank
    for i in {0, root.problem.survey.observations - 1}:
        assert close(root.rows(i), dense[i * rank : (i + 1) * rank], scale=scale)
    assert root.T.shape == (columns, rows)
    assert F.trace() == pytest.approx((dense**2).sum(), rel=1e-12)


def check_scaled(F, dense, *, question, **_):
    root, seed = F.root, question.seed
    rows, columns = root.shape
    constant = torch.full((columns,), 1.7, dtype=torch.float64)
    for w in (constant, nets.normal(columns, seed=seed + 2).exp()):
        scaled, expected = root.scaled(w), dense * w.numpy()
        scale = np.linalg.norm(expected)
        v, u = nets.normal(columns, 2, seed=seed), nets.normal(rows, 2, seed=seed + 1)
        assert close(scaled.dense(), expected)
        assert close(scaled.gram(), expected @ expected.T)
        assert sum(scaled.traces.values()) == pytest.approx(scale**2, rel=1e-12)
        assert close(scaled.metric(), expected.T @ expected)
        assert close(scaled.mv(v), expected @ v.numpy(), scale=4 * scale)
        assert close(scaled.rmv(u), expected.T @ u.numpy(), scale=4 * scale)
        assert close(scaled.rmv(u[:, 0]), expected.T @ u[:, 0].numpy(), scale=4 * scale)
        twice = scaled.scaled(w)
        assert close(twice.dense(), expected * w.numpy())


def check_layers(F, dense, *, question, **_):
    root, seed = F.root, question.seed
    root.dense()
    traces = dict(root.traces)
    for name, entries in root.problem.selection.layers().items():
        columns = np.r_[tuple(slice(e.start, e.stop) for e in entries)]
        mine, part = dense[:, columns], root.of_layer(name)
        scale = np.linalg.norm(dense)
        assert part.shape == mine.shape
        assert traces.get(name, 0.0) == pytest.approx((mine**2).sum(), abs=1e-12 * scale**2)
        assert close(part.dense(), mine, scale=scale)
        assert close(part.gram(), mine @ mine.T, scale=scale**2)
        assert close(part.metric(), mine.T @ mine, scale=scale**2)
        v, u = nets.normal(mine.shape[1], seed=seed), nets.normal(len(mine), seed=seed)
        assert close(part.mv(v), mine @ v.numpy(), scale=4 * scale)
        assert close(part.rmv(u), mine.T @ u.numpy(), scale=4 * scale)
        w = nets.normal(dense.shape[1], seed=seed + 3).exp()
        both = root.scaled(w).of_layer(name)
        assert close(both.dense(), mine * w.numpy()[columns], scale=scale * float(w.max()))


def check_invariance(F, dense, *, model, x, question):
    """Another split, and the same parameters named in another order."""
    shuffle = random.Random(question.seed)
    chosen = [e.name for e in F.root.problem.selection.entries]
    shuffle.shuffle(chosen)
    others = sorted(shuffle.sample(range(1, question.n), shuffle.randint(0, question.n - 1)))
    again = ll.fisher(model, cut(x, others), LIKELIHOODS[question.likelihood], chosen).root
    assert close(again.dense(), dense)
    assert close(again.gram(), dense @ dense.T)


def freeze(model, seed):
    """Freeze a random parameter if that leaves one."""
    parameters = list(model.parameters())
    if len(parameters) > 1:
        parameters[seed % len(parameters)].requires_grad_(False)


activations = st.sampled_from(list(nets.ACTIVATIONS))
NORMS = {"none": None, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


@examples(80)
@given(
    questions(),
    st.integers(1, 4),
    st.lists(st.integers(1, 5), max_size=4),
    activations,
    st.booleans(),
    st.sampled_from(list(NORMS)),
    st.booleans(),
)
def test_perceptrons(question, n, hidden, activation, bias, norm, frozen):
    m, size, seed = question.m, question.n, question.seed
    model = nets.mlp([n, *hidden, m], activation, bias, NORMS[norm])
    model = nets.fill(model, seed)
    if frozen:
        freeze(model, seed)
    check(model, nets.normal(size, n, seed=seed + 9), question)


@examples(30)
@given(
    questions(width=st.just(2)),
    st.sampled_from(["reused", "two names", "transposed", "penalised", "raw", "detached"]),
    activations,
    st.booleans(),
)
def test_parameters_used_in_odd_ways(question, kind, activation, frozen):
    m, size, seed = question.m, question.n, question.seed
    model = {
        "reused": lambda: nets.reused(3, 3, m, activation, 2),
        "two names": lambda: nets.two_names(3, 3, m, activation),
        "transposed": lambda: nets.autoencoder(m, 3, activation),
        "penalised": lambda: nets.penalised(3, 2, m),
        "raw": lambda: nets.raw(3, 2, m),
        "detached": lambda: nets.detached(3, 3, m),
    }[kind]()
    model = nets.fill(model, seed)
    if frozen and kind != "transposed":
        freeze(model, seed)
    n = m if kind == "transposed" else 3
    check(model, nets.normal(size, n, seed=seed + 9), question)


@examples(25)
@given(questions(), st.sampled_from([1, 2]), activations, st.booleans(), st.booleans())
def test_convolutions(question, space, activation, bias, pooled):
    m, size, seed = question.m, question.n, question.seed
    conv = nn.Conv1d if space == 1 else nn.Conv2d
    norm = nn.BatchNorm1d if space == 1 else nn.BatchNorm2d
    act = nets.ACTIVATIONS[activation]
    side = 5 if space == 1 else 4
    layers = [conv(1, 2, 3, padding=1, bias=bias), norm(2), act(), conv(2, 2, 2, bias=bias), act()]
    if pooled:
        pool = nn.AdaptiveAvgPool1d(1) if space == 1 else nn.AdaptiveAvgPool2d(1)
        layers += [pool, nn.Flatten(), nn.Linear(2, m)]
    else:
        layers += [nn.Flatten(), nn.Linear(2 * (side - 1) ** space, m)]
    model = nets.fill(nn.Sequential(*layers), seed)
    check(model, nets.normal(size, 1, *[side] * space, seed=seed + 9), question)


@examples(25)
@given(questions(), st.integers(1, 3), activations, st.booleans())
def test_an_observation_at_every_position(question, length, activation, norm):
    m, size, seed = question.m, question.n, question.seed
    model = nets.mlp([2, 3, m], activation, True, nn.LayerNorm if norm else None)
    if length > 1:
        mixing = nn.Conv1d(length, length, 1)
        model = nn.Sequential(mixing, model)
    model = nets.fill(model, seed)
    check(model, nets.normal(size, length, 2, seed=seed + 9), question)


@examples(20)
@given(questions(width=st.just(4)), st.sampled_from(["attention", "encoder"]), st.booleans())
def test_attention(question, kind, tied):
    m, size, seed = question.m, question.n, question.seed
    layer = nets.Attention if kind == "attention" else nets.encoder
    model = nets.language_model(m, 4, 3, 2, layer, tied)
    model = nets.fill(model, seed)
    x = torch.randint(0, m, (size, 3), generator=nets.generator(seed + 9))
    check(model, x, question)


@examples(20)
@given(questions(), st.sampled_from([nn.LSTM, nn.GRU]), st.booleans())
def test_recurrent_networks(question, kind, every):
    m, size, seed = question.m, question.n, question.seed
    model = nets.fill(nets.Recurrent(kind, 2, 2, m, every), seed)
    check(model, nets.normal(size, 3, 2, seed=seed + 9), question)


@examples(15)
@given(questions(), st.sampled_from(["weight", "bias", r"^0\.", "all but one"]))
def test_a_selection_is_the_same_columns(question, pattern):
    m, size, seed = question.m, question.n, question.seed
    model = nets.fill(nets.mlp([2, 3, 3, m], "tanh"), seed)
    names = [n for n, _ in model.named_parameters()]
    if pattern == "all but one":
        names.pop(seed % len(names))
        parameters = names[::-1]
    else:
        names = [n for n in names if n.startswith("0.") or (pattern[0] != "^" and pattern in n)]
        parameters = "|".join(["^0\\.", pattern])
    check(model, nets.normal(size, 2, seed=seed), question, parameters, names)
