"""Layer kinds of the user's own: contracted if right, noticed if wrong."""

import pytest
import torch
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function

import lightlike as ll
from lightlike.errors import ConsistencyError
from lightlike.metric.contractions import CONTRACTIONS, LinearCall, Outer, register
from oracles import networks as nets
from oracles.roots import check_root

X = nets.normal(5, 2, 3, seed=1)


def scaled(x, weight, scale):
    """A layer kind that the library does not know: y = scale · x Wᵀ."""
    if has_torch_function((x, weight)):
        return handle_torch_function(scaled, (x, weight), x, weight, scale)
    return torch.einsum("...i,oi->...o", x, weight) * scale


class Scaled(LinearCall):
    """Its rows are those of a linear layer on scale · x."""

    @classmethod
    def run(cls, func, names, args, kwargs):
        x, weight, scale = args
        name = names(weight)
        if name is None or kwargs:
            return None
        return func(x, weight.detach(), scale), cls(x.detach() * scale, name, None)


class Forgetful(Scaled):
    """The scale left out of the rows."""

    def weight_factor(self, g, layout):
        factor = super().weight_factor(g, layout)
        return Outer(factor.x / 3.0, factor.g, bias=False)


class Other(Scaled):
    """Another function altogether."""

    @classmethod
    def run(cls, func, names, args, kwargs):
        x, weight, scale = args
        captured = super().run(func, names, args, kwargs)
        return captured and (torch.sin(x) @ weight.detach().T * scale, captured[1])


class Attached(Scaled):
    """The parameter left in the graph, so that its rows would count twice."""

    @classmethod
    def run(cls, func, names, args, kwargs):
        captured = super().run(func, names, args, kwargs)
        return captured and (func(*args), captured[1])


class Narrow(Scaled):
    """A column too few."""

    def weight_factor(self, g, layout):
        factor = super().weight_factor(g, layout)
        return Outer(factor.x[..., 1:], factor.g, bias=False)


class Transposed(Scaled):
    """Columns in another order."""

    transposed = True


@pytest.fixture
def model():
    def forward(self, x):
        h = torch.tanh(scaled(x, self.w, 3.0))
        return self.out(torch.tanh(scaled(h, self.w, 3.0)).mean(1))

    parts = dict(w=nn.Parameter(torch.zeros(3, 3)), out=nn.Linear(3, 2))
    return nets.fill(nets.Call(forward, **parts), 0)


@pytest.fixture
def registered(monkeypatch):
    """Register a kind for one test."""

    def use(kind):
        monkeypatch.setitem(CONTRACTIONS, scaled, kind)
        register(scaled, kind)

    return use


def test_without_a_kind_the_generic_path_is_taken(model):
    root = check_root(model, [(X, None)])
    assert {unit.names[0]: unit.contracted for unit in root.units} == {
        "w": False,
        "out.weight": True,
    }


@pytest.mark.parametrize("split", [5, 2])
def test_a_right_kind_is_contracted(split, model, registered):
    registered(Scaled)
    root = check_root(model, [(x, None) for x in X.split(split)], "categorical")
    assert all(unit.contracted for unit in root.units)
    assert set(root.sweep.ways) == {"aligned"}


@pytest.mark.parametrize("kind", [Forgetful, Other, Narrow, Transposed])
@pytest.mark.parametrize("question", ["gram", "dense", "metric"])
def test_a_wrong_kind_is_noticed(kind, question, model, registered):
    registered(kind)
    root = ll.fisher(model, (X,), "gaussian").root
    with pytest.raises(ConsistencyError):
        getattr(root, question)()


def test_a_kind_that_leaves_its_parameter_in_the_graph_is_noticed(model, registered):
    expected = ll.fisher(model, (X,), "gaussian").root.gram()
    registered(Attached)
    root = ll.fisher(model, (X,), "gaussian").root
    assert not any(unit.contracted for unit in root.units if unit.names == ("w",))
    try:
        found = root.gram()
    except ConsistencyError:
        return
    assert torch.allclose(found, expected)
