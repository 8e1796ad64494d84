import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll


class Mixed(nn.Module):
    """Two linear layers tied in one weight, a raw parameter, a convolution and a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 2, 3, padding=1)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4, bias=False)
        self.again.weight = self.inner.weight
        self.head = nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        h = self.norm(torch.tanh(self.conv(x[:, None])))
        h = self.again(torch.tanh(self.inner(h)))
        return self.head(h.flatten(1)) * self.scale


def mlp(bias=True):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(4, 5, bias=bias), nn.LeakyReLU(0.1), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)
    )


def dead():
    model = mlp()
    with torch.no_grad():
        model[2].weight.zero_()
    return model


MODELS = {"mixed": Mixed, "mlp": mlp, "dead": dead}
METHODS = ["gram", "metric", "svd"]


def data(N=14):
    g = torch.Generator().manual_seed(2)
    return torch.randn(N, 4, generator=g), torch.randint(3, (N,), generator=g)


def columns(model, F):
    """The reference columns of A by layer, from one gradient a row."""
    A = F.root.dense().numpy()
    names, start, found = [], 0, {}
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        names.append(layer)
        found.setdefault(layer, []).append(A[:, start : start + parameter.numel()])
        start += parameter.numel()
    return {name: np.concatenate(parts, 1) for name, parts in found.items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_dimension_and_trace_of_each_layer(model, method):
    model = MODELS[model]()
    m = ll.measure(model, data(), "categorical", method=method, layers=True, progress=False)
    expected = columns(model, ll.fisher(model, data(), "categorical"))
    assert [layer.name for layer in m.layers] == list(expected)
    for layer in m.layers:
        A = expected[layer.name]
        assert layer.parameters == A.shape[1]
        assert int(layer.dimension) == np.linalg.matrix_rank(A)
        assert layer.trace == pytest.approx((A**2).sum(), rel=1e-10)
    assert sum(layer.trace for layer in m.layers) == pytest.approx(m.spectrum.trace, rel=1e-11)
    assert sum(layer.parameters for layer in m.layers) == m.parameters
    assert sum(int(layer.dimension) for layer in m.layers) >= int(m.dimension)


def test_ranks_only_when_asked_for_or_cheap(monkeypatch):
    def dimensions(layers):
        m = ll.measure(mlp(), data(), "categorical", layers=layers, progress=False)
        return [layer.dimension for layer in m.layers], m

    assert None not in dimensions(None)[0]
    found, m = dimensions(False)
    assert found == [None] * 3
    assert "dimension — of" in str(m)
    monkeypatch.setattr("lightlike.assess.layers.SMALL", 0.0)
    monkeypatch.setattr("lightlike.assess.layers.SHARE", 0.0)
    assert dimensions(None)[0] == [None] * 3
    assert None not in dimensions(True)[0]


def test_only_selected_parameters_belong_to_a_layer():
    model = mlp()
    m = ll.measure(
        model, data(), "categorical", parameters=r"^(0\.weight|4\.)", layers=True, progress=False
    )
    assert {layer.name: layer.parameters for layer in m.layers} == {"0": 20, "4": 18}
    assert sum(layer.trace for layer in m.layers) == pytest.approx(m.spectrum.trace, rel=1e-11)


@pytest.mark.parametrize("prior", ["scaled", "evidence"])
def test_the_prior_does_not_touch_the_layers(prior):
    priors = {
        "scaled": ll.priors.PerParameter(torch.linspace(0, 3, 73, dtype=torch.float64)),
        "evidence": ll.priors.Isotropic("evidence"),
    }
    x, _ = data()
    case = mlp(), (x, 5 * x[:, :3]), "gaussian"
    plain = ll.measure(*case, layers=True, progress=False)
    other = ll.measure(*case, prior=priors[prior], layers=True, progress=False)
    assert other.layers == plain.layers
    assert torch.equal(other.spectrum.eigenvalues, plain.spectrum.eigenvalues)
