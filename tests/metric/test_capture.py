import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from lightlike.errors import ModelError
from lightlike.metric.capture import Capture, reached
from lightlike.problem.problem import Problem
from oracles import networks as nets

X = nets.normal(5, 3, seed=1)


def watch(model, x=X):
    """Names used by captured calls, and names that the graph still reaches."""
    problem = Problem(nets.fill(model, 2), (x,), "gaussian")
    leaves = problem.evaluator.leaves
    with Capture(leaves) as capture:
        outputs = problem.evaluator.outputs(next(problem.batches()))
    return [c.call.uses for c in capture.calls], reached(outputs.h, leaves), capture


linear = functional.linear
first, last = ("first.weight", "first.bias"), ("last.weight", "last.bias")


def layers(function):
    return nets.Call(function, first=nn.Linear(3, 3), last=nn.Linear(3, 2))


USES = {
    "once": (lambda s, x: s.last(torch.tanh(s.first(x))), [first, last], set()),
    "twice": (lambda s, x: s.last(s.first(s.first(x))), [first, first, last], set()),
    "functional": (
        lambda s, x: s.last(linear(x, s.first.weight)),
        [first[:1], last],
        set(),
    ),
    "keywords": (
        lambda s, x: linear(weight=s.last.weight, input=x, bias=s.last.bias),
        [last],
        set(),
    ),
    "computed weight": (
        lambda s, x: linear(x, s.first.weight.sin(), s.first.bias),
        [first[1:]],
        {first[0]},
    ),
    "computed bias": (
        lambda s, x: linear(x, s.first.weight, s.first.bias.sin()),
        [first[:1]],
        {first[1]},
    ),
    "transposed": (
        lambda s, x: linear(s.first(x), s.first.weight.T),
        [first],
        {first[0]},
    ),
    "also elsewhere": (
        lambda s, x: s.first(x) + s.first.weight.sum(),
        [first],
        {first[0]},
    ),
    "as an input": (
        lambda s, x: s.last(x + s.last(s.first.weight).sum()),
        [last, last],
        {first[0]},
    ),
    "matrix product": (lambda s, x: x @ s.first.weight, [first[:1]], set()),
    "matrix product, first": (lambda s, x: (s.first.weight @ x.T).T, [], {first[0]}),
    "added product": (
        lambda s, x: torch.addmm(s.first.bias, x, s.first.weight),
        [first],
        set(),
    ),
    "scaled product": (
        lambda s, x: torch.addmm(s.first.bias, x, s.first.weight, beta=0.5),
        [],
        set(first),
    ),
    "added and multiplied": (
        lambda s, x: (x + s.first.bias) * s.first.weight[0] * s.first.bias,
        [first[1:], first[1:]],
        {first[0]},
    ),
    "swapped roles": (
        lambda s, x: linear(s.first.weight, x).T,
        [],
        {first[0]},
    ),
}


@pytest.mark.parametrize("use", USES)
def test_calls_and_the_rest_of_the_graph_make_up_all_uses(use, agree):
    function, calls, rest = USES[use]
    model = layers(function)
    found, left, _ = watch(model)
    assert (found, left) == (calls, rest)
    agree(model, [(X, None)])


def test_calls_without_gradients_are_not_captured(agree):
    model = nets.fill(nets.detached(3, 3, 2), 3)
    found, left, _ = watch(model)
    assert found == [("hidden.weight", "hidden.bias"), *[("leave.weight", "leave.bias")] * 2]
    assert not left
    agree(model, [(X, None)])


INPLACE = {
    "relu": lambda h: functional.relu_(h),
    "leaky": lambda h: functional.leaky_relu_(h, 0.2),
    "add": lambda h: h.add_(h.detach().cos()),
    "scale": lambda h: h.mul_(torch.linspace(1, 2, h.shape[-1])),
    "index": lambda h: _index(h),
    "slice of a view": lambda h: h.view(-1).mul_(2.0).view_as(h),
    "chain": lambda h: h.add_(1.0).mul_(3.0).sigmoid_(),
}


def _index(h):
    h[..., 0] = 2 * h[..., 1]
    return h


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)], ids=["flat", "positions"])
@pytest.mark.parametrize("deep", [False, True], ids=["on a leaf", "on a graph"])
@pytest.mark.parametrize("kind", INPLACE)
def test_outputs_may_be_changed_in_place(kind, deep, shape, agree):
    change = INPLACE[kind]

    def forward(self, x):
        h = torch.tanh(self.first(x)) if deep else x
        return self.last(change(self.middle(h)))

    parts = dict(first=nn.Linear(3, 3), middle=nn.Linear(3, 3), last=nn.Linear(3, 2))
    root = agree(nets.fill(nets.Call(forward, **parts), 4), [(nets.normal(*shape), None)])
    assert root.sweep.ways == ["aligned"]


@pytest.mark.parametrize("layer", ["linear", "conv"])
@pytest.mark.parametrize("question", ["gram", "metric", "one", "many"])
def test_an_input_changed_in_place_is_refused(layer, question):
    def forward(self, x):
        h = self.first(x)
        h = h + h.sin()
        return self.last(h) + h.add_(1.0).mean()

    kind = nn.Linear if layer == "linear" else lambda *sizes: nn.Conv1d(*sizes, 1)
    x = X if layer == "linear" else nets.normal(5, 3, 2)
    model = nets.fill(nets.Call(forward, first=kind(3, 3), last=kind(3, 2)), 0)
    root = ll.fisher(model, (x,), "gaussian").root
    ask = {
        "gram": root.gram,
        "metric": root.metric,
        "one": lambda: root.rmv(torch.ones(root.shape[0])),
        "many": lambda: root.rmv(torch.ones(root.shape[0], 2)),
    }[question]
    with pytest.raises(ModelError, match=r"in.?place"):
        ask()


def test_an_input_changed_before_the_layer_reads_it_is_fine(agree):
    def forward(self, x):
        h = self.first(x)
        h += 1.0
        h.mul_(2.0)
        return self.last(h)

    agree(nets.fill(layers(forward), 1), [(X, None)])


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        (lambda h: h, torch.float64),
        (lambda h: h.float().double(), torch.float32),
        (lambda h: h.to(torch.bfloat16).double(), torch.bfloat16),
        (lambda h: h + h.detach().float().double(), torch.float64),
    ],
    ids=["none", "float", "bfloat16", "without gradient"],
)
def test_casts_on_the_way_are_noticed(cast, expected):
    _, _, capture = watch(layers(lambda s, x: s.last(cast(s.first(x)))))
    assert capture.precision == torch.finfo(expected).eps


def test_frozen_parameters_are_constants_of_the_call(agree):
    model = nets.fill(nets.mlp([3, 3, 2], "tanh"), 5)
    model[0].bias.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    found, left, _ = watch(model)
    assert (found, left) == ([("0.weight",), ("2.bias",)], set())
    agree(model, [(X, None)])


def test_tied_weights_are_one_parameter(agree):
    model = nets.fill(nets.two_names(3, 3, 2, "tanh"), 6)
    root = agree(model, [(X, None)])
    names = [e.name for e in root.problem.selection.entries]
    assert names == [n for n, _ in model.named_parameters()]
    found, _, _ = watch(model)
    assert ("first.weight", "second.bias") in found


class Turned(nn.Module):
    """Reverses the axes of a vector, a matrix and a tensor of three axes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.shift = nn.Parameter(torch.full((4,), 0.1))

    def forward(self, x):
        h = torch.tanh(self.first(x)) + self.shift.T
        return self.last(h[:, None].T.T[:, 0].T.T)


def test_a_deprecated_transpose_is_the_model_s_to_be_told_of():
    """PyTorch warns where `.T` stands: in the model, and never here."""
    model, x = Turned().double(), torch.ones(5, 3, dtype=torch.float64).cumsum(0)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            F = ll.fisher(model, (x,), "gaussian")
            A = F.root.dense()
            gram = F.root.gram()
            ll.explain(F)
    finally:
        torch.set_warn_always(False)
    assert caught
    assert {Path(warning.filename).name for warning in caught} == {Path(__file__).name}
    torch.testing.assert_close(gram, A @ A.T)
