import random

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, LightlikeError, ModelError
from oracles import networks as nets

X = torch.randn(5, 3, generator=nets.generator(0))
QUESTIONS = {
    "gram": lambda root: root.gram(),
    "metric": lambda root: root.metric(),
    "dense": lambda root: root.dense(),
    "mv": lambda root: root.mv(torch.ones(root.shape[1])),
    "rmv": lambda root: root.rmv(torch.ones(root.shape[0])),
    "block": lambda root: root.rmv(torch.ones(root.shape[0], 2)),
    "spectrum": lambda root: ll.spectrum(root).eigenvalues,
    "count": lambda root: ll.spectrum(root).above(0.01),
    "logdet": lambda root: ll.spectrum(root).logdet(3.0),
    "soft count": lambda root: ll.spectrum(root).effective_dimension(0.1),
    "trace": lambda root: ll.Fisher(root).trace(),
}


def batch_norm():
    return nets.fill(nets.mlp([3, 4, 2], "inplace", True, nn.BatchNorm1d), 0)


def hooked():
    model = nets.fill(nets.mlp([3, 4, 2], "tanh"), 0)
    model[0].register_forward_hook(lambda *call: call[-1] * 1.5)
    model[1].train()
    model[0].weight.grad = torch.ones(4, 3)
    model[2].bias.requires_grad_(False)
    return model


def counting():
    def forward(self, x):
        self.seen.add_(1)
        return self.last(x) + torch.rand(()).mul(0)

    model = nets.fill(nets.Call(forward, last=nn.Linear(3, 2)), 0)
    model.register_buffer("seen", torch.zeros(()))
    return model


def double():
    return nets.fill(nets.raw(3, 2, 2).double(), 0)


MODELS = {"batch norm": batch_norm, "hooked": hooked, "counting": counting, "double": double}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", MODELS)
def test_the_model_and_the_world_are_as_before(kind, question, grad, untouched):
    model = MODELS[kind]()
    x = X.double() if kind == "double" else X.clone()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with untouched(model, x), torch.set_grad_enabled(grad):
        QUESTIONS[question](ll.fisher(model, (x,), "gaussian").root)


def test_recurrent_models_keep_their_weights(untouched):
    model = nets.fill(nets.Recurrent(nn.LSTM, 2, 3, 2, True), 0)
    x = torch.randn(3, 4, 2)
    before = model(x).detach()
    with untouched(model, x):
        ll.fisher(model, (x,), "gaussian").root.gram()
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_changed_in_place_stay_the_users(dtype, untouched):
    model = nets.fill(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 3)), 0)
    x = torch.randn(5, 2, dtype=dtype)
    with untouched(model, x):
        root = ll.fisher(model, (x,), "gaussian").root
        first = root.gram()
    assert torch.equal(ll.fisher(model, (x.relu(),), "gaussian").root.gram(), first)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_models_hold_no_copies_afterwards(kind):
    model = nets.fill(nets.Recurrent(kind, 2, 3, 2, True), 0)
    cell = next(m for m in model.modules() if isinstance(m, kind))
    ll.fisher(model, (torch.randn(3, 4, 2),), "gaussian").root.gram()
    assert all(any(w is p for p in cell.parameters()) for w in cell._flat_weights)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(*_):
        raise RuntimeError("no way back")


def broken_backward():
    return nets.fill(nets.Call(lambda s, x: Broken.apply(s.last(x)), last=nn.Linear(3, 2)), 0)


def broken_later():
    def forward(self, x):
        torch.rand(3)
        if x[0, 0] == 7:
            raise RuntimeError("not this batch")
        return self.last(x)

    return nets.fill(nets.Call(forward, last=nn.Linear(3, 2)), 0)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", [broken_backward, broken_later])
def test_also_after_an_error(kind, question, untouched):
    model = kind()
    bad = X.clone()
    bad[0, 0] = 7
    with untouched(model, X, bad), pytest.raises(ModelError, match=r"no way back|not this batch"):
        QUESTIONS[question](ll.fisher(model, [(X, None), (bad, None)], "gaussian").root)


def test_later_changes_of_the_model_do_not_show():
    model = nets.fill(nets.mlp([3, 4, 2], "tanh"), 0)
    root = ll.fisher(model, (X,), "gaussian").root
    before = root.gram()
    with torch.no_grad():
        model[0].weight.mul_(3)
    assert torch.equal(root.gram(), before)


@pytest.mark.parametrize("question", QUESTIONS)
def test_inference_mode_is_no_obstacle(question):
    model = nets.fill(nets.mlp([3, 4, 2], "tanh"), 0)
    ask = QUESTIONS[question]
    expected = ask(ll.fisher(model, (X,), "gaussian").root)
    with torch.inference_mode():
        found = ask(ll.fisher(model, (X.clone(),), "gaussian").root)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


def test_rows_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("lightlike.metric.root.available_memory", lambda: 100)
    root = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 0), (X,), "gaussian").root
    with pytest.raises(CapacityError, match=r"0\.weight.*10 rows"):
        root.gram()


def test_shapes_are_checked():
    root = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 0), (X,), "gaussian").root
    rows, columns = root.shape
    assert (rows, columns) == (10, 26)
    for product, wrong in [(root.mv, rows), (root.rmv, columns)]:
        with pytest.raises(ValueError, match="has shape"):
            product(torch.ones(wrong))
        with pytest.raises(ValueError, match="has shape"):
            product(torch.ones(rows if wrong == columns else columns, 1, 1))
    with pytest.raises(ValueError, match="from 0 to 4"):
        root.rows(5)
    assert torch.equal(root.rows(-1), root.rows(4))


@pytest.mark.parametrize("kind", ["float32", "integer", "gradient"])
def test_vectors_of_any_kind_are_taken(kind):
    root = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 0), (X,), "gaussian").root
    v = torch.arange(26) % 5
    w = {"float32": v.float(), "integer": v, "gradient": v.double().requires_grad_()}[kind]
    found = root.mv(w)
    assert torch.equal(found, root.mv(v.double()))
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_an_unknown_layer_is_an_error():
    root = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 0), (X,), "gaussian").root
    with pytest.raises(LightlikeError, match="'0'"):
        root.of_layer("nowhere")
