"""Named null directions against counts in closed form."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from oracles.networks import Call, mlp, normal
from oracles.nullities import layered, settle


def generic(model, seed=0, bias=0.1):
    """Weights of a size at which no direction is close to null by chance."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            fan = p[0].numel() if p.ndim > 1 else 0
            size = (2 / fan) ** 0.5 if fan else bias
            p.copy_(size * torch.randn(p.shape, generator=random, dtype=torch.float64))
    return model.eval()


def explained(model, x, head="gaussian", parameters=None):
    """An explanation that adds up with the singular values of A, and its dimensions by kind."""
    F = ll.fisher(model, (x,), head, parameters)
    e = ll.explain(F)
    rank = torch.linalg.matrix_rank(F.root.dense())
    assert e.explained + e.unexplained == e.radical == F.shape[0] - int(rank)
    assert e.explained == sum(s.dimension for s in e.sources)
    assert all(0 <= s.dimension <= s.verified <= s.claimed for s in e.sources)
    assert e.directions.shape == (F.shape[0], sum(s.verified for s in e.sources if s.where))
    images = F.root.dense() @ torch.from_numpy(e.directions.toarray())
    assert float(images.abs().max() if images.numel() else 0) < 1e-11
    kinds = {}
    for s in e.sources:
        kinds[s.kind] = kinds.get(s.kind, 0) + s.dimension
    return e, {kind: n for kind, n in kinds.items() if n}


@pytest.mark.parametrize("head", ["gaussian", "categorical"])
@pytest.mark.parametrize("widths", [[3, 8, 3], [4, 6, 5, 3], [3, 4, 4, 4, 3]], ids=str)
def test_leaky_rectifiers(widths, head):
    """One rescaling a hidden unit; of softmax outputs the last width and one more shifts."""
    model = generic(mlp(widths, "leaky"))
    e, kinds = explained(model, 2 * normal(300, widths[0], seed=100), head)
    expected = {"rescaling": sum(widths[1:-1])}
    if head == "categorical":
        expected["softmax shift"] = widths[-2] + 1
    assert kinds == expected
    assert e.unexplained == 0
    assert "rescaling" in str(e)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(4)])
def test_convolutions_and_pooling(pool):
    """One for each channel, through pooling and flattening to several features a channel."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(), pool, nn.Conv2d(3, 2, 2),
        nn.PReLU(), nn.Flatten(), nn.Linear(18, 2),
    )  # fmt: skip
    e, kinds = explained(generic(model, seed=3), normal(60, 1, 8, 8), parameters=r"^[036]\.")
    assert kinds == {"rescaling": 5}
    assert e.unexplained == 0
    assert e.frozen == ("4.weight",)


def test_grouped_and_transposed_convolutions():
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.LeakyReLU(), nn.Conv1d(4, 4, 2, groups=2), nn.LeakyReLU(),
        nn.ConvTranspose1d(4, 3, 2), nn.LeakyReLU(), nn.Conv1d(3, 2, 2), nn.Flatten(),
    )  # fmt: skip
    e, kinds = explained(generic(model, seed=3), normal(60, 2, 8))
    assert kinds == {"rescaling": 11}
    assert e.unexplained == 0


@pytest.mark.parametrize(("bias", "act"), [(True, "tanh"), (False, "leaky"), (True, "leaky")])
def test_batch_normalisation_with_fixed_statistics(bias, act):
    """Per channel: the scale of what comes before, its bias, and rescaling by a rectifier."""
    after = nn.Tanh() if act == "tanh" else nn.LeakyReLU()
    model = nn.Sequential(nn.Linear(4, 5, bias=bias), nn.BatchNorm1d(5), after, nn.Linear(5, 2))
    generic(model, seed=1)
    with torch.no_grad():
        model[1].weight.copy_(normal(5, seed=2).abs() + 0.5)
        model[1].running_mean.copy_(0.3 * normal(5, seed=3))
        model[1].running_var.copy_(normal(5, seed=4).abs() + 0.5)
    e, kinds = explained(model, 2 * normal(300, 4, seed=5))
    expected = {"normalised scale": 5}
    expected |= {"bias before normalisation": 5} if bias else {}
    expected |= {"rescaling": 5} if act == "leaky" else {}
    assert kinds == expected
    assert e.unexplained == 0


@pytest.mark.parametrize("widths", [[5, 2, 4], [8, 5, 3, 6, 7], [4, 6, 6, 3]], ids=str)
def test_deep_linear(widths):
    """D − r (n + m − r), all of it; r² at a bottleneck that everything passes."""
    model = generic(layered(widths, None, [0] * 9))
    r, size = min(widths), sum(p.numel() for p in model.parameters())
    e, kinds = explained(model, normal(40, widths[0], seed=1))
    assert sum(kinds.values()) == e.certain
    assert e.certain == size - r * (widths[0] + widths[-1] - r)
    if widths == [5, 2, 4]:
        assert kinds == {"linear factorisation": 4}
        assert [(s.where, s.claimed) for s in e.sources] == [("0 → 1", 4)]


def edited(activation, edit, k=3):
    model = generic(mlp([3, 5, k], activation), seed=3, bias=0.5)
    with torch.no_grad():
        edit(model[0], model[2])
    return explained(model, 1.5 * normal(200, 3, seed=7))


def test_dead_units():
    def kill(first, _):
        first.bias[:2] = -1e3

    e, kinds = edited("relu", kill)
    assert kinds == {"dead unit": 2 * (4 + 3), "rescaling": 3}
    assert [s.where for s in e.sources[:2]] == ["0", "2"]


def test_units_that_are_always_active():
    def lift(first, _):
        first.bias[0] = 1e3

    _, kinds = edited("relu", lift)
    assert sum(kinds.values()) == 6
    assert kinds["bias before bias"] == kinds["linear factorisation"] == 1


def test_duplicated_units():
    def copy(first, _):
        first.weight[1], first.bias[1] = -first.weight[0], -first.bias[0]

    assert edited("tanh", copy)[1] == {"duplicated unit": 3}
    assert edited("tanh", copy, k=1)[1] == {"duplicated unit": 1 + 3 + 1}


def test_zero_outgoing_weights():
    def cut(_, last):
        last.weight[:, 0] = 0

    assert edited("tanh", cut)[1] == {"zero outgoing weights": 4}


def test_zero_incoming_weights():
    def cut(first, _):
        first.weight[0] = 0

    assert edited("tanh", cut)[1] == {"saturated unit": 3, "bias before bias": 1}


def test_saturated_units():
    def saturate(first, _):
        first.weight[0] *= 0.01
        first.bias[0] = 40.0

    assert edited("tanh", saturate)[1] == {"saturated unit": 4 + 3}


def test_parameters_outside_the_differentiable_graph():
    def forward(self, x):
        _ = self.lost(x)
        return self.last(torch.tanh(self.first(x))) + self.stopped(x).detach()

    parts = dict(
        first=nn.Linear(3, 4), last=nn.Linear(4, 2), stopped=nn.Linear(3, 2), lost=nn.Linear(3, 3),
        idle=nn.Linear(2, 2),
    )  # fmt: skip
    model = generic(Call(forward, **parts))
    e, kinds = explained(model, normal(60, 3))
    assert kinds == {"unused parameter": 6, "detached parameter": 8, "disconnected": 12}
    assert e.unexplained == 0
    F = ll.fisher(model, (normal(60, 3),), "gaussian")
    assert not ll.dimension(F, explanation=e).proven_twice


@pytest.mark.parametrize("act", ["Tanh", "Sigmoid", "Hardsigmoid", "Softsign", "Hardtanh"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_unit_at_either_end_of_an_s_is_saturated(act, sign):
    """Sigmoids end at 0, where nothing reads them: still not a dead unit, as a rectifier has."""
    model = generic(nn.Sequential(nn.Linear(3, 5), getattr(nn, act)(), nn.Linear(5, 2)), bias=0.5)
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].bias[0] = sign * (1e12 if act == "Softsign" else 800.0)
    e, kinds = explained(model, normal(200, 3, seed=7))
    assert "dead unit" not in kinds
    assert kinds["saturated unit"] == 4 + 2
    ends = [s.where for s in e.sources if s.kind == "saturated unit"]
    assert sorted(set(ends)) == ["0", "2"]


@pytest.mark.parametrize("act", ["ReLU", "GELU", "SiLU", "Softplus"])
def test_a_unit_below_the_floor_of_a_rectifier_is_dead(act):
    model = generic(nn.Sequential(nn.Linear(3, 5), getattr(nn, act)(), nn.Linear(5, 2)), bias=0.5)
    with torch.no_grad():
        model[0].bias[0] = -2000.0
    assert explained(model, normal(200, 3, seed=7))[1]["dead unit"] == 4 + 2


def test_rows_that_no_token_names():
    model = nn.Sequential(
        nn.Embedding(6, 3), nn.Tanh(), nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)
    )
    tokens = torch.randint(4, (60, 2), generator=torch.Generator().manual_seed(0))
    _, kinds = explained(generic(model, seed=2), tokens)
    assert kinds["unseen embedding row"] == 2 * 3


def test_inputs_that_are_always_zero():
    x = normal(100, 4)
    x[:, 1] = 0
    model = generic(mlp([4, 3, 2], "tanh"), bias=0.5)
    assert explained(model, x)[1] == {"zero input": 3}


def test_too_few_observations():
    model = generic(mlp([3, 4, 3], "leaky"), bias=0.5)
    e, kinds = explained(model, normal(3, 3))
    assert e.unexplained == 0
    assert kinds["too few observations"] == 31 - 9 - e.certain


def test_tied_weights_are_changed_in_one_way_or_not_at_all():
    def applied(self, x):
        act = functional.leaky_relu
        z = act(self.enter(x))
        return self.leave(act(self.middle(act(self.middle(z)))))

    parts = dict(enter=nn.Linear(3, 4), middle=nn.Linear(4, 4, bias=False), leave=nn.Linear(4, 2))
    # Each unit keeps its scale over all steps: what the repeated layer gains in a row, it loses in
    # a column.
    assert explained(generic(Call(applied, **parts)), 2 * normal(60, 3))[1] == {"rescaling": 4}

    def folded(self, x):
        return functional.linear(functional.leaky_relu(self.enter(x)), self.enter.weight.T)

    model = generic(Call(folded, enter=nn.Linear(3, 4)))
    assert explained(model, 2 * normal(60, 3))[1] == {}


def test_features_that_are_moved_by_indices():
    order, even = torch.tensor([3, 1, 0, 2]), torch.tensor([True, False, True, False])

    def forward(self, x):
        z = functional.leaky_relu(self.first(x))
        z = torch.cat([z[:, order][:, even], z.index_select(1, order)[:, ~even]], 1)
        return self.last(z)

    parts = dict(first=nn.Linear(3, 4), last=nn.Linear(4, 2))
    e, kinds = explained(generic(Call(forward, **parts)), 2 * normal(100, 3))
    assert kinds == {"rescaling": 4}
    assert e.unexplained == 0


def test_frozen_parameters_do_not_take_part():
    model = generic(mlp([3, 5, 4, 2], "leaky"))
    model[2].weight.requires_grad_(False)
    e, kinds = explained(model, 2 * normal(200, 3))
    assert kinds == {}
    assert e.frozen == ("2.weight",)
    assert "2.weight" in str(e)


def test_the_users_model_is_left_as_it_was(untouched):
    model, x = (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).eval(),
        torch.randn(9, 3),
    )
    F = ll.fisher(model, (x,), "gaussian")
    with untouched(model, x):
        ll.explain(F)


def test_settled_networks_of_the_oracles_are_generic():
    import numpy as np

    model = settle(layered([3, 4, 2]), np.random.Generator(np.random.PCG64(0)))
    assert all(p.dtype == torch.float64 for p in model.parameters())
