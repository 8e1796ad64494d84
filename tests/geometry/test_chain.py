"""The dimension along a network."""

import json
from itertools import accumulate, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from geometry.test_closed_forms import linear_network, weights
from lightlike.errors import ChoiceError, ModelError
from lightlike.geometry import passage
from lightlike.geometry.listening import Listening
from oracles.networks import Attention, Call, Recurrent, language_model, mlp, normal, reused
from oracles.reference import score_root, whitened


def naive_ranks(model, x, head):
    """Σ_i rank R_i ∂h_L(x_i)/∂h_l(x_i) after each module of a sequence."""
    totals = []
    for place in range(len(model)):
        total = 0
        for one in x:
            hidden = model[: place + 1](one[None]).detach()
            tail = model[place + 1 :]
            jacobian = (
                torch.autograd.functional.jacobian(tail, hidden).reshape(-1, hidden.numel()).numpy()
            )
            root = score_root(head, model(one[None])[0].detach().numpy())
            total += np.linalg.matrix_rank(root @ jacobian)
        totals.append(total)
    return totals


def convolutions():
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)
    )


SEQUENCES = {
    "bottleneck": (lambda: mlp([4, 6, 2, 5, 4], "tanh"), (12, 4)),
    "one unit": (lambda: mlp([4, 3, 1, 5, 4], "gelu"), (12, 4)),
    "dead units": (lambda: mlp([4, 5, 3, 5, 4], "relu"), (30, 4)),
    "convolutions": (convolutions, (9, 2, 7)),
    "normalised": (lambda: mlp([4, 6, 6, 4], "tanh", norm=nn.LayerNorm), (12, 4)),
}


@pytest.mark.parametrize("head", ["gaussian", "categorical"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_module_outputs_against_jacobians_of_the_rest(name, head, untouched):
    make, shape = SEQUENCES[name]
    model, x = weights(make(), seed=3), normal(*shape, seed=1)
    with untouched(model, x):
        chain = ll.dimension_chain(ll.fisher(model, (x,), head))
    assert [one.value for one in chain.modules] == naive_ranks(model, x, head)
    assert [one.module for one in chain.modules] == [str(i) for i in range(len(model))]
    assert {one.kind for one in chain.modules} == {"exact"}
    assert all(a.value <= b.value for a, b in pairwise(chain.modules))
    assert chain.modules[-1].value == chain.rows
    assert (chain.bypassed, chain.unused, chain.silent) == ((), (), ())


@pytest.mark.parametrize("widths", [[6, 4, 2, 5, 3], [3, 5, 5, 4], [4, 1, 6]], ids=str)
def test_linear_layers_pass_their_least_width_on(widths):
    chain = ll.dimension_chain(
        ll.fisher(weights(linear_network(widths)), (normal(7, widths[0]),), "gaussian")
    )
    least = list(accumulate(reversed(widths[1:]), min))[::-1]
    assert [one.value for one in chain.modules] == [7 * r for r in least]
    assert [(one.least, one.greatest) for one in chain.modules] == [(r, r) for r in least]
    assert [one.width for one in chain.modules] == widths[1:]


@pytest.mark.parametrize("method", ["gram", "metric", "svd"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_layers_against_columns_of_the_reference(method, activation, monkeypatch):
    model, x = weights(mlp([4, 6, 3, 5, 3], activation), seed=1), normal(25, 4, seed=1)
    F = ll.fisher(model, (x,), "categorical")
    route = F.decomposition(method)
    monkeypatch.setattr(F, "decomposition", lambda *_: route)
    chain = ll.dimension_chain(F, modules=False)
    assert chain.modules is None
    A = whitened(model, [((x,), None)], "categorical")
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in model[::2]]
    starts = [0, *accumulate(sizes)]
    alone = [np.linalg.matrix_rank(A[:, a:b]) for a, b in pairwise(starts)]
    onwards = [np.linalg.matrix_rank(A[:, a:]) for a in starts[:-1]]
    assert [one.name for one in chain.layers] == ["0", "2", "4", "6"]
    assert [one.parameters for one in chain.layers] == sizes
    assert [int(one.alone) for one in chain.layers] == alone
    assert [int(one.onwards) for one in chain.layers] == onwards
    assert {d.kind for one in chain.layers for d in (one.alone, one.onwards)} == {"exact"}
    assert sum(one.added for one in chain.layers) == int(ll.dimension(F))
    assert [one.added for one in chain.layers] == [-b + a for a, b in pairwise([*onwards, 0])]


def test_small_singular_values_of_some_layers_are_refined():
    """The last j of eight linear layers have rank 16², whatever lies before them."""
    model = weights(linear_network([16] * 9))
    F = ll.fisher(model, (normal(20, 16, seed=1),), "gaussian")
    chain = ll.dimension_chain(F)
    assert [int(one.onwards) for one in chain.layers] == [256] * 8
    assert {one.onwards.kind for one in chain.layers} == {"exact"}
    assert [one.added for one in chain.layers] == [0] * 7 + [256]
    assert [one.value for one in chain.modules] == [20 * 16] * 8


@settings(max_examples=10, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=3, max_size=5),
    activation=st.sampled_from(["relu", "leaky", "tanh", "gelu"]),
    head=st.sampled_from(["gaussian", "bernoulli", "poisson"]),
    n=st.integers(1, 12),
    seed=st.integers(0, 50),
)
def test_ranks_along_any_network(widths, activation, head, n, seed):
    model = weights(mlp(widths, activation), seed, 0.8)
    F = ll.fisher(model, (normal(n, widths[0], seed=seed),), head)
    chain = ll.dimension_chain(F)
    assert all(a.value <= b.value for a, b in pairwise(chain.modules))
    for one, after in pairwise(chain.layers):
        assert int(after.onwards) <= int(one.onwards)
        assert int(one.onwards) <= int(one.alone) + int(after.onwards)
        assert int(one.alone) <= min(one.parameters, int(one.onwards))
    assert sum(one.added for one in chain.layers) == int(ll.dimension(F))
    # A layer's columns factor through the derivative by its output.
    for layer in chain.layers:
        passed = next(one for one in chain.modules if one.module == layer.name)
        assert int(layer.alone) <= passed.value


class Block(nn.Module):
    def __init__(self, width, inplace):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(width, 2), nn.ReLU(inplace=inplace), nn.Linear(2, width)
        )

    def forward(self, x):
        return x + self.inner(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_residual_blocks_are_links_and_what_is_inside_is_not(inplace):
    model = weights(nn.Sequential(nn.Linear(3, 5), Block(5, inplace), nn.Linear(5, 2)), seed=1)
    x = normal(10, 3)
    chain = ll.dimension_chain(ll.fisher(model, (x,), "gaussian"))
    assert [(one.module, one.layer) for one in chain.modules] == [
        ("0", "Linear"), ("1", "Block"), ("2", "Linear"),
    ]  # fmt: skip
    assert chain.bypassed == ("1.inner.0", "1.inner.1", "1.inner.2")
    assert [one.value for one in chain.modules] == naive_ranks(model, x, "gaussian")
    assert [one.name for one in chain.layers] == ["0", "1.inner.0", "1.inner.2", "2"]


def test_modules_that_are_called_again():
    chain = ll.dimension_chain(
        ll.fisher(weights(reused(3, 4, 2, "tanh", 2)), (normal(6, 3),), "gaussian")
    )
    assert [one.module for one in chain.modules] == ["enter", "middle", "middle#2", "leave"]
    assert [one.name for one in chain.layers] == ["enter", "middle", "leave"]


def test_layers_stand_in_the_order_of_their_calls():
    parts = {"last": nn.Linear(4, 2), "first": nn.Linear(3, 4), "idle": nn.Linear(2, 2)}
    model = weights(Call(lambda self, x: self.last(torch.tanh(self.first(x))), **parts))
    chain = ll.dimension_chain(ll.fisher(model, (normal(9, 3),), "gaussian"))
    assert [one.name for one in chain.layers][-2:] == ["first", "last"]
    assert int(chain.layers[0].alone) == 0
    assert [one.module for one in chain.modules] == ["first", "last"]


def test_positions_of_a_sequence():
    """5 positions of width 4 for each of 6 items: what 7 logits at each can come from."""
    model = weights(language_model(7, 4, 5, 2, Attention, True))
    tokens = torch.randint(7, (6, 5), generator=torch.Generator().manual_seed(0))
    chain = ll.dimension_chain(ll.fisher(model, (tokens,), "categorical"))
    assert [(one.module, one.value) for one in chain.modules] == [
        ("embedding", 6 * 20), ("block", 6 * 20), ("head", 6 * 5 * 6),
    ]  # fmt: skip
    assert chain.silent == ("block.attention",)


def test_labels_that_do_not_count_leave_no_rows():
    model = weights(language_model(7, 4, 5, 2, Attention, True))
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(7, (6, 5), generator=random)
    labels = tokens.masked_fill(torch.rand(6, 5, generator=random) < 0.5, -100)
    kept = int((labels != -100).sum())
    chain = ll.dimension_chain(ll.fisher(model, (tokens, labels), "categorical"))
    assert chain.modules[-1].value == chain.rows == 6 * kept
    assert [one.least for one in chain.modules][-1] == 6 * int((labels != -100).sum(1).min())


def test_items_that_do_not_lie_side_by_side_are_taken_one_by_one():
    """Time first inside: a recurrent network's head sees (steps, items, width)."""

    def forward(self, x):
        return self.head(self.turn(self.cell(x)[0])).transpose(0, 1)

    class Turn(nn.Module):
        def forward(self, x):
            return x.transpose(0, 1)

    parts = dict(cell=nn.GRU(2, 3, batch_first=True), turn=Turn(), head=nn.Linear(3, 4))
    model = weights(Call(forward, **parts))
    x = normal(3, 3, 2)  # as many items as steps
    chain = ll.dimension_chain(ll.fisher(model, (x,), "gaussian"))
    plain = Recurrent(nn.GRU, 2, 3, 4, every=True)
    plain.load_state_dict(model.state_dict())
    same = ll.dimension_chain(ll.fisher(plain.double().eval(), (x,), "gaussian"))
    assert {one.module: one.value for one in chain.modules} == {"turn": 27, "head": 36, "": 36}
    assert same.modules[-1].value == 36
    assert chain.silent == same.silent == ("cell",)


def test_large_batches_are_taken_item_by_item(monkeypatch):
    model, x = weights(convolutions(), seed=3), normal(9, 2, 7, seed=1)
    F = ll.fisher(model, (x,), "categorical")
    whole = ll.dimension_chain(F)
    counted = []
    plain = Listening.__enter__
    monkeypatch.setattr(Listening, "__enter__", lambda self: counted.append(0) or plain(self))
    monkeypatch.setattr(passage, "HELD", 1000)
    assert ll.dimension_chain(F) == whole
    assert len(counted) == 1 + 9


def test_models_without_a_chain_are_refused():
    def alone(self, x):
        return SimpleNamespace(logits=torch.tanh(x @ self.W))

    model = Call(alone, W=nn.Parameter(normal(3, 2))).eval()
    F = ll.fisher(model, (normal(5, 3),), "gaussian")
    with pytest.raises(ModelError, match="modules=False"):
        ll.dimension_chain(F)
    assert [int(one.onwards) for one in ll.dimension_chain(F, modules=False).layers] == [6]

    def mixed(self, x):
        z = self.first(x)
        return self.last(torch.tanh(z - z.mean(0)))

    model = weights(Call(mixed, first=nn.Linear(3, 4), last=nn.Linear(4, 2)))
    F = ll.fisher(model, (normal(5, 3),), "gaussian")
    with pytest.raises(ModelError, match="touch one another"):
        ll.dimension_chain(F)
    assert len(ll.dimension_chain(F, modules=False).layers) == 2


def test_models_that_change_from_batch_to_batch_are_refused():
    def either(self, x):
        return self.last(self.first(x) if len(x) > 3 else self.second(x))

    parts = dict(first=nn.Linear(3, 4), second=nn.Linear(3, 4), last=nn.Linear(4, 2))
    data = [(normal(4, 3),), (normal(2, 3),)]
    F = ll.fisher(weights(Call(either, **parts)), data, "gaussian")
    with pytest.raises(ModelError, match="from one batch to the next"):
        ll.dimension_chain(F)


def test_frozen_first_layers_and_what_has_no_effect():
    model = weights(mlp([3, 4, 4, 2], "tanh"))
    x = normal(8, 3)
    whole = ll.dimension_chain(ll.fisher(model, (x,), "gaussian"))
    part = ll.dimension_chain(ll.fisher(model, (x,), "gaussian", "4"))
    assert part.modules == whole.modules
    assert [one.name for one in part.layers] == ["4"]

    def forward(self, x):
        self.side(x)
        return self.net(x)

    model = weights(Call(forward, net=model, side=nn.Linear(3, 1)))
    assert ll.dimension_chain(ll.fisher(model, (x,), "gaussian")).unused == ("side",)


def test_results_print_and_convert():
    model = weights(mlp([3, 4, 2], "tanh"))
    F = ll.fisher(model, (normal(8, 3),), "gaussian")
    chain = ll.dimension_chain(F)
    json.dumps(chain.to_dict(), allow_nan=False)
    assert "output of" in str(chain)
    assert "output of" not in str(ll.dimension_chain(F, modules=False))
    assert max(map(len, str(chain).splitlines())) <= 100
    with pytest.raises(ChoiceError, match="float64"):
        ll.dimension_chain(ll.fisher(model, (normal(8, 3),), "gaussian", dtype="float32"))


def test_a_cast_inside_bounds_ranks_from_below_only():
    def forward(self, x):
        return self.last(torch.tanh(self.first(x)).float().double())

    model = weights(Call(forward, first=nn.Linear(4, 4), last=nn.Linear(4, 3)))
    with torch.no_grad():
        model.last.weight.copy_(torch.outer(normal(3, seed=1), normal(4, seed=2)))
    chain = ll.dimension_chain(ll.fisher(model, (normal(8, 4),), "gaussian"))
    assert [one.kind for one in chain.modules] == ["certified", "exact"]
    assert [(one.lower, one.value, one.upper) for one in chain.modules] == [
        (8, 8, 24),
        (24, 24, 24),
    ]
