"""Operators for many products, against the naive Fisher matrix, in every way that they have."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from lightlike.errors import ChoiceError, DeterminismError, ParameterError
from lightlike.metric.products import supply
from lightlike.metric.products.ways import ROWS
from oracles import networks as nets
from oracles.products import LABELS, LIKELIHOODS, TOKENS, Detached, Once, X, custom
from oracles.reference import whitened

RECORDED, DOUBLED = "linearised + kept backward graph", "kept double backward graph"
FORWARD, DOUBLE = "jvp + vjp", "double backward"
WAYS = {
    "one": {"expected": 1},
    "many": {"expected": 100},
    "unknown": {},
    "nothing kept": {"expected": 100, "memory": 0},
    "float32": {"expected": 100, "dtype": "float32"},
}


class Shifted(ll.Likelihood):
    """A likelihood with a root that is not square, and no closed form of its covariance."""

    def nll(self, outputs, targets):
        return (outputs - targets).square().sum(-1)

    def root(self, outputs):
        return torch.stack([outputs, outputs.cos(), outputs.sin(), outputs * 0 + 1, outputs], -1)

    def sample(self, outputs, generator=None):  # noqa: ARG002
        return outputs


def error(found, expected, A, given):
    """Relative to the sizes of the factors, as rounding is."""
    scale = np.linalg.norm(A) * np.linalg.norm(given.numpy())
    return np.linalg.norm(found.numpy() - expected) / scale


def check(F, A, ways=WAYS, seed=5):
    """Hold products of every way against A from numpy; give the operators."""
    size = np.linalg.norm(A)
    v = nets.normal(A.shape[1], 3, seed=seed)
    operators, rows = {}, F.root.mv(v[:, 0])
    expected = A.T @ (A @ v.numpy())
    for name in ways:
        P = operators[name] = F.products(**WAYS[name])
        limit = 1e-6 if name == "float32" else 1e-12
        assert P.shape == F.shape
        for column in (0, 1):
            found = P @ v[:, column]
            assert found.dtype == torch.float64
            assert error(found, expected[:, column], A, v[:, column]) <= limit * size
        assert error(P @ v, expected, A, v) <= limit * size
        assert error(P @ v, expected, A, v) <= limit * size
        assert P.count == 8
        # Roots of one law differ by rotations; what they agree on is A Aᵀ and Aᵀ A.
        image = P.mv(v)
        assert image.shape == (F.root.shape[0], 3)
        assert abs(image.T.numpy() @ image.numpy() - v.T.numpy() @ expected).max() <= (
            limit * (size * float(v.norm())) ** 2
        )
        assert error(P.rmv(image), expected, A, v) <= limit * size
        assert error(P.mv(v[:, 0]), rows.numpy(), A, v[:, 0]) <= limit
        assert error(P.rmv(rows), expected[:, 0], A, v[:, 0]) <= limit * size
    return operators


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood(name):
    model = nets.fill(nets.mlp([3, 4, 4], "gelu"), 1)
    batches = [(X[:3], None), (X[3:], None)]
    A = whitened(model, batches, name, variance=0.3)
    found = check(ll.fisher(model, batches, LIKELIHOODS[name]), A, ["many", "float32"])
    assert [P.way for P in found.values()] == [RECORDED] * 2


def test_a_likelihood_of_ones_own():
    model = nets.fill(nets.mlp([3, 4, 4], "tanh"), 1)
    F = ll.fisher(model, [(X[:3],), (X[3:],)], Shifted())
    assert F.root.problem.survey.rank == 5
    check(F, F.root.dense().numpy())


def attention(self, x):
    q, k, v = self.project(x).chunk(3, -1)
    return x + functional.scaled_dot_product_attention(q, k, v, is_causal=True)


MODELS = {
    "attention": lambda: nets.language_model(5, 4, 3, 2, nets.Attention, True),
    "encoder": lambda: nets.language_model(5, 4, 3, 2, nets.encoder, False),
    "causal": lambda: nn.Sequential(
        nn.Embedding(5, 4), nets.Call(attention, project=nn.Linear(4, 12)), nn.Linear(4, 5)
    ),
    "LSTM": lambda: nn.Sequential(nn.Embedding(5, 2), nets.Recurrent(nn.LSTM, 2, 3, 5, True)),
    "sparse": lambda: nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Linear(2, 5)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_tokens(kind):
    model = nets.fill(MODELS[kind](), 2)
    batches = [(TOKENS[:3], LABELS[:3]), (TOKENS[3:], LABELS[3:])]
    A = whitened(model, batches, "categorical", ignore_index=-100)
    ways = ["one", "many", "float32"]
    found = check(ll.fisher(model, batches, "categorical"), A, ways)
    if kind == "sparse":
        # Sparse gradients go neither through dual numbers nor through a second derivative.
        assert found["many"].way == ROWS
        return
    assert found["many"].way == found["float32"].way == RECORDED


def test_batches_as_dicts():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x, scale):
            return {"logits": self.layer(x) * scale}

    model = nets.fill(Named(), 1)
    batches = [{"x": x, "scale": x[:, :1]} for x in X.split(3)]
    F = ll.fisher(model, batches, "gaussian")
    plain = nets.Call(lambda s, x: s.layer(x) * x[:, :1], layer=model.layer)
    check(F, whitened(plain, [(x, None) for x in X.split(3)], "gaussian"))


ODD = {
    "reused": lambda: nets.reused(3, 3, 2, "tanh", 2),
    "two names": lambda: nets.two_names(3, 3, 2, "leaky"),
    "in place": lambda: nets.mlp([3, 4, 2], "inplace"),
    "penalised": lambda: nets.penalised(3, 2, 2),
    "raw": lambda: nets.raw(3, 2, 2),
    "written into": lambda: nets.Call(written, layer=nn.Linear(3, 2)),
    "view written into": lambda: nets.Call(viewed, layer=nn.Linear(3, 2)),
    "changed afterwards": lambda: nets.Call(changed, layer=nn.Linear(3, 2), gain=nn.Linear(3, 2)),
}


def written(self, x):
    out = x.new_zeros(len(x), 3)
    out[:, 1:] = self.layer(x)
    return out[:, [0, 2, 1]] * out


def viewed(self, x):
    out = x.new_zeros(2, len(x), 2)
    for index in range(2):
        out[index].copy_(self.layer(x) * (index + 1))
    return out.sum(0)


def changed(self, x):
    y = x.sin()
    first = self.layer(y)
    y = y.clone().mul_(2.0)
    second = self.gain(y)
    return first + second


@pytest.mark.parametrize("kind", ODD)
def test_parameters_used_in_odd_ways(kind):
    model = nets.fill(ODD[kind](), 3)
    A = whitened(model, [(x, None) for x in X.split(3)], "gaussian")
    check(ll.fisher(model, [(x,) for x in X.split(3)], "gaussian"), A)


def test_forward_mode_that_is_wrong_is_noticed():
    """It does not stop at no_grad, where the gradient does."""
    model = nets.fill(nets.detached(3, 4, 3), 2)
    F = ll.fisher(model, (X,), "categorical")
    found = check(F, whitened(model, [(X, None)], "categorical"))
    for name, P in found.items():
        assert P.way == (DOUBLE if name in ("one", "nothing kept") else DOUBLED)
        assert "disagrees" in P.reason


@pytest.mark.parametrize("function", [Once, Detached])
def test_what_takes_no_way_goes_by_rows(function):
    model = custom(function)
    A = whitened(model, [(X, None)], "categorical")
    F = ll.fisher(model, (X,), "categorical")
    for P in check(F, A, ["one", "many"]).values():
        assert P.way == ROWS
        assert P.reason.count(";") >= 2
    v = nets.normal(A.shape[1], seed=1)
    assert error(F @ v, A.T @ (A @ v.numpy()), A, v) <= 1e-12 * np.linalg.norm(A)


def test_weights_layers_and_sketches():
    model = nets.fill(nets.mlp([3, 4, 4], "tanh"), 1)
    F = ll.fisher(model, [(X[:3],), (X[3:],)], "categorical")
    weights = nets.normal(F.shape[0], seed=3).exp()
    for root in (
        F.root.scaled(weights),
        F.root.of_layer("2"),
        F.root.scaled(weights).of_layer("0"),
    ):
        part = ll.Fisher(root)
        check(part, root.dense().numpy(), ["one", "many", "float32"])
    drawn = next(F.sketch(ll.Sketch(draws=2, repetitions=2)).roots())
    check(ll.Fisher(drawn), drawn.dense().numpy(), ["one", "many"])


def test_one_product_records_nothing(monkeypatch):
    def fail(*_):
        raise AssertionError("recorded for a single product")

    monkeypatch.setattr(supply, "Recorded", fail)
    F = ll.fisher(nets.fill(nets.mlp([3, 4, 4], "gelu"), 1), (X,), "categorical")
    for P in (F.products(1), F.products(2), F.products()):
        P @ nets.normal(F.shape[0], seed=1)
        assert P.way == FORWARD
        assert P.kept_bytes == 0
    F @ nets.normal(F.shape[0], seed=1)
    with pytest.raises(AssertionError, match="recorded"):
        F.products(100) @ nets.normal(F.shape[0], seed=1)


def test_the_reason_tells_what_was_measured_and_what_memory_keeps():
    F = ll.fisher(nets.fill(nets.mlp([3, 4, 4], "gelu"), 1), [(X[:3],), (X[3:],)], "categorical")
    v = nets.normal(F.shape[0], seed=1)
    P = F.products(5)
    P @ v
    assert "on the first batch one takes" in P.reason
    full = F.products(100)
    full @ v
    assert full.kept_bytes > 0
    assert full.setup_seconds > 0
    assert "memory" not in full.reason
    half = F.products(100, memory=full.kept_bytes - 1)
    for _ in range(3):
        assert torch.equal(half @ v, full @ v) or float((half @ v - full @ v).norm()) < 1e-13
        assert half.way == RECORDED
        assert "memory keeps 1 of 2 batches" in half.reason
        assert 0 < half.kept_bytes < full.kept_bytes
    with F.products(100) as P:
        P @ v
        assert P.kept_bytes
    assert P.kept_bytes == 0
    assert float((P @ v - full @ v).norm()) < 1e-13


def test_bytes_kept_are_those_of_activations():
    """Two wide layers on many samples: what is kept are inputs, masks and outputs."""
    model = nets.fill(nets.mlp([64, 256, 256, 4], "tanh"), 1)
    x = nets.normal(512, 64, seed=2)
    P = ll.fisher(model, (x,), "gaussian").products(100)
    P @ torch.ones(P.shape[0], dtype=torch.float64)
    activations = 8 * 512 * (2 * 256 + 4)
    assert activations <= P.kept_bytes <= 4 * activations


def test_data_that_change_are_noticed():
    x = X.clone()
    F = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 1), (x,), "gaussian")
    v = nets.normal(F.shape[0], seed=1)
    P = F.products(1)
    P @ v
    x[0] += 1.0
    with pytest.raises(DeterminismError, match="Batch 0"):
        P @ v


def test_mistakes():
    F = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 1), (X,), "gaussian")
    with pytest.raises(ValueError, match="expected"):
        F.products(0)
    with pytest.raises(ChoiceError, match="float16"):
        F.products(dtype="float16")
    with pytest.raises(ChoiceError, match="memory"):
        F.products(memory="much")
    for wrong in (torch.ones(3), torch.ones(F.shape[0], 1, 1)):
        with pytest.raises(ParameterError, match="has shape"):
            F.products() @ wrong


def test_the_model_and_random_states_are_left_alone(untouched):
    model = nets.fill(nets.mlp([3, 4, 5], "inplace"), 0)
    settings = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    with untouched(model, X):
        F = ll.fisher(model, (X,), "categorical")
        for options in WAYS.values():
            P = F.products(**options)
            P @ nets.normal(F.shape[0], 3, seed=2)
            P.mv(nets.normal(F.shape[0], seed=2))
        F @ nets.normal(F.shape[0], seed=2)
    assert settings == (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)


@pytest.mark.parametrize("seed", range(6))
def test_saturated_softmax(seed):
    """Products stay symmetric and as good as the metric, also where all of it is tiny."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    model[2].weight.data *= 1e4
    F = ll.fisher(model, (X,), "categorical")
    exact = F.root.metric()
    found = F.products() @ torch.eye(F.shape[0], dtype=torch.float64)
    assert float((found - exact).abs().max()) <= 1e-13 * float(exact.trace())
    if float(exact.trace()) > 1e-100:
        assert ll.density(F).trace.value == pytest.approx(float(exact.trace()), rel=1e-10)
