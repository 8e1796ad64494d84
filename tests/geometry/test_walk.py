"""Walks whose end is known in closed form, and what every walk keeps."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import distributions as td
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, ModelError, ParameterError


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def network(*widths, seed=0, activation=nn.Tanh):
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    model = nn.Sequential(*layers[:-1]).double()
    for i, p in enumerate(model.parameters()):
        p.data = normal(*p.shape, seed=100 * seed + i) / p.shape[-1] ** 0.5
    return model.eval()


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def loaded(model, walk):
    other = copy.deepcopy(model)
    other.load_state_dict(walk.state_dict(), strict=False)
    return other


LAWS = {
    "categorical": lambda h: td.Categorical(logits=h),
    "bernoulli": lambda h: td.Independent(td.Bernoulli(logits=h), 1),
    "gaussian": lambda h: td.Independent(td.Normal(h, 1.0), 1),
    "poisson": lambda h: td.Independent(td.Poisson(h.exp()), 1),
}


def naive_divergence(law, before, after):
    return float(td.kl_divergence(LAWS[law](before), LAWS[law](after)).mean())


@pytest.mark.parametrize("rows", [3, 40], ids=["dual", "primal"])
def test_the_least_norm_of_a_linear_model_takes_one_step(rows):
    """|θ|² over {θ : Xθ = Xθ_0} is least at θ_0 − P_rad θ_0."""
    x = normal(rows, 3) @ normal(3, 6, seed=1)  # Rank 3 whatever the number of rows.
    model = nn.Linear(6, 2, bias=False).double()
    walk = ll.walk(ll.fisher(model, (x,), "gaussian"), "norm")
    w = model.weight.detach().numpy()
    expected = w @ np.linalg.pinv(x.numpy()) @ x.numpy()
    assert len(walk.steps) == 2
    assert np.abs(walk.theta.numpy().reshape(2, 6) - expected).max() < 1e-9
    assert walk.divergence < 1e-18
    assert walk.steps[1].radical == 12 - 6
    assert walk.steps[1].radical_kind == "counted"


@pytest.mark.parametrize("rows", [3, 40], ids=["dual", "primal"])
def test_the_soft_radical_of_a_linear_model_is_ridge_regression(rows):
    """min ½|θ|² + (1/2ε) (1/N)|X(θ − θ_0)|² has a closed form, which fixed ε reaches."""
    x = normal(rows, 6, seed=3)
    model = nn.Linear(6, 1, bias=False).double()
    epsilon = 1e-2
    F = ll.fisher(model, (x,), "gaussian")
    walk = ll.walk(F, "norm", epsilon=epsilon, budget=1e3, tolerance=0.0)
    first, gram = model.weight.detach()[0], x.T @ x / rows
    expected = torch.linalg.solve(gram + epsilon * torch.eye(6, dtype=torch.float64), gram @ first)
    torch.testing.assert_close(walk.theta, expected, rtol=1e-9, atol=1e-12)
    change = (gram @ (expected - first)) @ (expected - first)
    assert walk.divergence == pytest.approx(float(0.5 * change), rel=1e-9)


def test_another_model_is_approached_as_far_as_predictions_allow():
    x = normal(4, 7)
    model, other = nn.Linear(7, 1).double(), nn.Linear(7, 1).double()
    F = ll.fisher(model, (x,), "gaussian")
    full = np.hstack([x.numpy(), np.ones((4, 1))])
    first, target = flat(model).numpy(), flat(other).numpy()
    inside = np.eye(8) - np.linalg.pinv(full) @ full
    expected = first + inside @ (target - first)
    for given in (other, other.state_dict(), flat(other)):
        walk = ll.walk(F, given)
        assert np.abs(walk.theta.numpy() - expected).max() < 1e-10
        assert walk.steps[-1].objective == pytest.approx(float(((expected - target) ** 2).sum()))


def test_rescaled_units_are_balanced():
    """With leaky units the fibre is w_in·c, w_out/c: least Σ|w|² is Σ_units 2|w_in||w_out|."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.LeakyReLU(0.1), nn.Linear(4, 2, False))
    for i, p in enumerate(model.parameters()):
        p.data = normal(*p.shape, seed=i)
    model[0].weight.data *= torch.tensor([[2.0], [0.4], [3.0], [0.7]])
    model = model.double()
    ins, outs = model[0].weight.detach().norm(dim=1), model[2].weight.detach().norm(dim=0)
    F = ll.fisher(model, (normal(60, 3, seed=9),), "gaussian")
    walk = ll.walk(F, "norm", budget=1e-7, tolerance=1e-9, max_steps=100)
    assert walk.steps[1].radical == 4
    assert walk.steps[-1].squared_norm == pytest.approx(float(2 * (ins * outs).sum()), rel=1e-5)
    assert walk.steps[-1].squared_norm < 0.9 * walk.steps[0].squared_norm
    found = loaded(model, walk)
    torch.testing.assert_close(
        found[0].weight.detach().norm(dim=1), found[2].weight.detach().norm(dim=0),
        rtol=1e-2, atol=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 3])
def test_a_larger_budget_does_not_end_worse(seed):
    """The way back to the start's predictions must not hide steps in the radical that gain."""
    model = network(4, 6, 5, 3, seed=seed, activation=nn.ReLU)
    x = normal(20, 4, seed=8)
    F, ends = ll.fisher(model, (x,), "categorical"), []
    for budget in (1e-3, 1e-2, 1.0):
        walk = ll.walk(F, "norm", budget=budget)
        ends.append(walk.steps[-1].squared_norm)
        radical, _ = ll.subspaces(F.at(walk.theta))
        further = walk.theta - 0.1 * radical.project(walk.theta)
        gain = ends[-1] - float(further.square().sum())
        values = F.problem.selection.split(further)
        outputs = torch.func.functional_call(model, values, (x,)).detach()
        over = naive_divergence("categorical", model(x).detach(), outputs) > budget
        assert over or gain < 1e-3 * walk.steps[0].squared_norm
    assert max(ends[1] / ends[0], ends[2] / ends[1]) < 1.05


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("objective", ["norm", "sparse"])
def test_predictions_are_those_of_the_start(law, objective, untouched):
    """The divergence is that of the loaded model, and within the budget at every step."""
    model, x = network(5, 8, 3), normal(7, 5, seed=2)
    F = ll.fisher(model, (x,), law)
    with untouched(model, x):
        walk = ll.walk(F, objective, budget=1e-4, max_steps=6, epsilon="auto")
    end = loaded(model, walk)
    naive = naive_divergence(law, model(x).detach(), end(x).detach())
    assert walk.divergence == pytest.approx(naive, rel=1e-6, abs=1e-12)
    assert all(step.divergence <= walk.budget for step in walk.steps)
    assert walk.divergence_kind == "exact"
    first, last = walk.steps[0], walk.steps[-1]
    assert last.objective < first.objective
    theta = flat(end)
    assert torch.equal(theta, walk.theta)
    assert last.squared_norm == pytest.approx(float(theta.square().sum()))
    assert last.zeros == int((theta == 0).sum())
    assert walk.displacement == pytest.approx(float((theta - flat(model)).norm()))
    assert walk.distance >= walk.displacement * (1 - 1e-12)
    assert walk.data.divergence == pytest.approx(walk.divergence, rel=1e-9, abs=1e-15)
    assert walk.distance_per_divergence == pytest.approx(walk.displacement / walk.divergence)
    if objective == "sparse":
        assert last.zeros > first.zeros
        assert last.objective == len(theta) - last.zeros


def test_sparse_weights_stay_at_zero():
    model, x = network(6, 10, 3), normal(5, 6, seed=4)
    walk = ll.walk(ll.fisher(model, (x,), "categorical"), "sparse", max_steps=12)
    zeros = [step.zeros for step in walk.steps]
    assert zeros == sorted(zeros)
    # A basic solution of 10 equations has no more than 10 weights.
    assert zeros[-1] > 0.5 * len(walk.theta)


def test_grid_weights_are_multiples():
    model, x = network(6, 10, 3), normal(5, 6, seed=4)
    step = 0.125
    walk = ll.walk(ll.fisher(model, (x,), "categorical"), "grid", step=step, max_steps=12)
    off = walk.theta / step - torch.round(walk.theta / step)
    assert int((off != 0).sum()) == walk.steps[-1].objective
    assert walk.steps[-1].objective < 0.5 * len(walk.theta)
    assert walk.divergence <= walk.budget


def test_a_function_falls():
    """Keeping all predictions, the first layer's bias is driven towards 1."""
    model, x = network(4, 12, 2), normal(6, 4, seed=5)
    F = ll.fisher(model, (x,), "gaussian")

    def far(theta):
        return (theta[48:60] - 1.0).square().sum()

    walk = ll.walk(F, far, max_steps=40)
    assert walk.objective == "far"
    values = [step.objective for step in walk.steps]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1 * values[0]
    assert values[-1] == pytest.approx(float(far(walk.theta)))
    naive = naive_divergence("gaussian", model(x).detach(), loaded(model, walk)(x).detach())
    assert naive <= walk.budget


def test_controls_are_as_long_and_cost_more():
    model, x = network(5, 20, 3), normal(8, 5, seed=6)
    F = ll.fisher(model, (x,), "categorical")
    walk = ll.walk(F, "norm", seed=3)
    names = [control.name for control in walk.controls]
    assert names == ["random", "random in the radical"]
    random, inside = walk.controls
    assert random.displacement == inside.displacement == walk.displacement
    assert random.divergence > inside.divergence
    assert random.divergence > walk.divergence
    again = ll.walk(F, "norm", seed=3)
    assert torch.equal(again.theta, walk.theta)
    assert again.controls == walk.controls
    other = ll.walk(F, "norm", seed=4)
    assert torch.equal(other.theta, walk.theta)
    assert other.controls != walk.controls


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"objective": "nrom"}, ChoiceError, "'norm'"),
        ({"objective": 3.0}, ChoiceError, "'sparse'"),
        ({"objective": "norm", "budget": -1e-3}, ChoiceError, "budget"),
        ({"objective": "norm", "budget": math.nan}, ChoiceError, "budget"),
        ({"objective": "norm", "max_steps": 0}, ChoiceError, "max_steps"),
        ({"objective": "norm", "epsilon": -1.0}, ChoiceError, "epsilon"),
        ({"objective": "norm", "epsilon": "some"}, ChoiceError, "'auto'"),
        ({"objective": "norm", "tolerance": math.inf}, ChoiceError, "tolerance"),
        ({"objective": "norm", "step": 0.1}, ChoiceError, "grid"),
        ({"objective": "grid"}, ChoiceError, "step"),
        ({"objective": "grid", "step": 0.0}, ChoiceError, "step"),
        ({"objective": torch.zeros(4)}, ParameterError, "shape"),
        ({"objective": torch.full((15,), math.nan)}, ParameterError, "not finite"),
        ({"objective": lambda theta: theta.detach().sum()}, ChoiceError, "depends"),
        ({"objective": lambda theta: theta}, ChoiceError, "scalar"),
        ({"objective": lambda theta: theta.sum() / 0.0}, ModelError, "infinite"),
        ({"objective": "norm", "held_out": 3}, DataError, "Data"),
        ({"objective": "norm", "memory": 100}, ll.errors.CapacityError, "K = "),
    ],
)
def test_what_cannot_be_done_is_told(options, error, said):
    F = ll.fisher(nn.Linear(4, 3), (normal(4, 4),), "gaussian")
    with pytest.raises(error, match=said):
        ll.walk(F, **options)


def test_a_part_of_the_matrix_is_refused():
    F = ll.fisher(nn.Linear(4, 3), (normal(4, 4),), "gaussian")
    scaled = ll.Fisher(F.root.scaled(torch.ones(15, dtype=torch.float64)))
    with pytest.raises(ChoiceError, match="prior"):
        ll.walk(scaled, "norm")


def test_at_the_goal_there_is_nothing_to_do():
    model = nn.Linear(3, 2).double()
    for p in model.parameters():
        p.data = torch.round(4 * normal(*p.shape)) / 4
    F = ll.fisher(model, (normal(2, 3),), "gaussian")
    for walk in (ll.walk(F, "grid", step=0.25), ll.walk(F, F.problem.theta)):
        assert len(walk.steps) == 1
        assert "as low as" in walk.stopped
        assert walk.steps[0].objective == 0.0


def test_settings_of_the_caller_do_not_matter():
    model, x = network(4, 9, 3), normal(5, 4)
    F = ll.fisher(model, (x,), "categorical")
    walk = ll.walk(F, "norm", max_steps=3)
    with torch.inference_mode():
        inside = ll.walk(F, "norm", max_steps=3)
        nll = ll.walk(F, lambda theta: theta.square().sum(), max_steps=2)
    assert torch.equal(inside.theta, walk.theta)
    assert nll.steps[-1].objective < nll.steps[0].objective
