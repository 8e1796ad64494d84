"""Walks on sequences, masks, parts of a model, held-out data and unusual likelihoods."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td
from torch import nn

import lightlike as ll


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def filled(model, scale=0.7):
    for i, p in enumerate(model.parameters()):
        p.data = scale * normal(*p.shape, seed=i)
    return model.double().eval()


class Tokens(nn.Module):
    """A word at a time, with the embedding as output matrix too."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 5)
        self.inner = nn.Linear(5, 5)
        self.out = nn.Linear(5, 7, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(torch.tanh(self.inner(self.words(x))))


def loaded(model, walk):
    other = copy.deepcopy(model).double()
    other.load_state_dict(walk.state_dict(), strict=False)
    return other


def divergences(model, other, x):
    with torch.no_grad():
        laws = [td.Categorical(logits=m(x)) for m in (model, other)]
    return td.kl_divergence(*laws)


def test_masked_tokens_do_not_count():
    model = filled(Tokens())
    random = torch.Generator().manual_seed(1)
    x = torch.randint(0, 7, (4, 3), generator=random)
    y = torch.randint(0, 7, (4, 3), generator=random)
    y[0, :2] = y[2, 1] = y[3] = -100
    data = [(x[:3], y[:3]), (x[3:], y[3:])]
    F = ll.fisher(model, data, "categorical")
    walk = ll.walk(F, "norm", max_steps=5, epsilon="auto", held_out=data)
    other = loaded(model, walk)
    assert other.out.weight is other.words.weight
    each = divergences(model, other, x)
    assert walk.divergence == pytest.approx(float(each[y != -100].mean()), rel=1e-8)
    assert walk.divergence <= walk.budget
    assert walk.data == walk.held_out
    assert walk.data.observations == 6
    for m, nll, accuracy in (
        (model, walk.data.nll_before, walk.data.accuracy_before),
        (other, walk.data.nll_after, walk.data.accuracy_after),
    ):
        h = m(x).detach()
        assert nll == pytest.approx(
            float(nn.functional.cross_entropy(h.flatten(0, 1), y.flatten()))
        )
        correct = (h.argmax(-1) == y)[y != -100].double().mean()
        assert accuracy == pytest.approx(float(correct))


def test_batches_do_not_matter():
    model = filled(nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)))
    x, y = normal(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    whole = ll.walk(ll.fisher(model, (x, y), "categorical"), "norm", max_steps=3)
    parts = [(x[i : i + 3], y[i : i + 3]) for i in range(0, 7, 3)]
    pieces = ll.walk(ll.fisher(model, parts, "categorical"), "norm", max_steps=3)
    torch.testing.assert_close(whole.theta, pieces.theta, rtol=1e-7, atol=1e-9)
    assert whole.divergence == pytest.approx(pieces.divergence, rel=1e-6)


def test_only_selected_parameters_move():
    model = filled(nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)))
    x = normal(5, 4)
    F = ll.fisher(model, (x,), "categorical", parameters="0")
    walk = ll.walk(F, "sparse", max_steps=5)
    assert list(walk.state_dict()) == list(model.state_dict())
    assert walk.theta.shape == (45,)
    other = loaded(model, walk)
    assert torch.equal(other[2].weight, model[2].weight)
    assert float(divergences(model, other, x).mean()) <= walk.budget
    assert torch.equal(F.at(walk.state_dict()).problem.theta, walk.theta)
    assert walk.held_out is None
    assert walk.data.nll_before is None
    assert walk.data.accuracy_after is None


def test_held_out_data_are_told_as_they_are():
    model = filled(nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2)))
    x, held = normal(4, 4), (normal(9, 4, seed=7), normal(9, 2, seed=8))
    walk = ll.walk(ll.fisher(model, (x,), "gaussian"), "norm", held_out=held)
    other = loaded(model, walk)
    with torch.no_grad():
        before, after = model(held[0]), other(held[0])
    found = walk.held_out
    assert found.observations == 9
    moved = 0.5 * (before - after).square().sum(-1).mean()
    assert found.divergence == pytest.approx(float(moved), rel=1e-9)
    assert found.divergence > walk.budget
    for h, nll in ((before, found.nll_before), (after, found.nll_after)):
        exact = -td.Normal(h, torch.ones_like(h)).log_prob(held[1]).sum(-1).mean()
        assert nll == pytest.approx(float(exact))
    assert found.accuracy_before is None
    assert "held out" in str(walk)


def test_float32_models_are_walked_in_float64():
    model = filled(nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)))
    x = normal(5, 4)
    exact = ll.walk(ll.fisher(model, (x,), "categorical"), "norm", max_steps=3)
    rough = ll.fisher(model, (x,), "categorical", dtype="float32")
    found = ll.walk(rough, "norm", max_steps=3)
    assert found.theta.dtype == torch.float64
    torch.testing.assert_close(found.theta, exact.theta)


class Logistic(ll.Likelihood):
    """Coins without a closed divergence."""

    name = "logistic"

    def nll(self, outputs, targets):
        return torch.nn.functional.softplus(-targets * outputs).sum(-1)

    def root(self, outputs):
        p = torch.sigmoid(outputs)
        return torch.diag_embed((p * (1 - p)).sqrt())

    def sample(self, outputs, generator=None):
        return 2.0 * torch.bernoulli(torch.sigmoid(outputs), generator=generator) - 1.0


def test_a_likelihood_without_a_closed_form_is_labelled():
    model = filled(nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2)))
    x = normal(5, 4)
    walk = ll.walk(ll.fisher(model, (x,), Logistic()), "norm", max_steps=4, epsilon="auto")
    assert walk.divergence_kind == "second-order"
    assert "second-order" in str(walk)
    with torch.no_grad():
        before, change = model(x), loaded(model, walk)(x) - model(x)
        p = torch.sigmoid(before)
    naive = 0.5 * (p * (1 - p) * change.square()).sum(-1).mean()
    assert walk.divergence == pytest.approx(float(naive), rel=1e-8)


def test_no_radical_no_step():
    """Where every direction changes a prediction, an exact walk stays where it is."""
    model = filled(nn.Linear(3, 2))
    walk = ll.walk(ll.fisher(model, (normal(20, 3),), "gaussian"), "norm")
    assert len(walk.steps) == 1
    assert "no step" in walk.stopped
    assert walk.displacement == 0.0
    assert [control.name for control in walk.controls] == ["random"]
    assert torch.equal(walk.theta, torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_outputs_that_run_away_are_refused():
    """Rates beyond floating point are infinitely far, not an error."""
    model = filled(nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1)), scale=3.0)
    F = ll.fisher(model, (normal(3, 2),), "poisson")
    walk = ll.walk(F, torch.full((25,), 1e200, dtype=torch.float64), max_steps=2)
    assert walk.divergence <= walk.budget
    assert bool(torch.isfinite(walk.theta).all())


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.floats(-8, -1), st.sampled_from(["norm", "sparse"]), st.booleans())
def test_the_budget_is_kept(seed, exponent, objective, soft):
    """Whatever the network, budget and objective; and what a walk found is no worse."""
    model = filled(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 3)))
    model[0].weight.data = normal(6, 3, seed=seed)
    x, budget = normal(3, 3, seed=seed + 1), 10.0**exponent
    F = ll.fisher(model, (x,), "categorical")
    walk = ll.walk(F, objective, budget=budget, max_steps=4, epsilon="auto" if soft else 0.0)
    assert all(step.divergence <= budget for step in walk.steps)
    assert float(divergences(model, loaded(model, walk), x).mean()) <= budget * (1 + 1e-9) + 1e-15
    assert walk.steps[-1].objective <= walk.steps[0].objective


def test_nothing_is_as_large_as_the_metric():
    """A matrix of D × D would take 58 GB here; the memory that may be used is 100 MB."""
    layers = nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    model = filled(nn.Sequential(*layers), scale=0.05)
    F = ll.fisher(model, (normal(6, 64),), "categorical")
    walk = ll.walk(F, "norm", max_steps=2, memory="100 MB")
    assert walk.steps[1].radical == 85_002 - 54
    assert walk.steps[-1].squared_norm < 0.5 * walk.steps[0].squared_norm


class Several(nn.Module):
    """Tied, frozen and parametrised weights, with running statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
        self.again.bias.requires_grad_(False)

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.again(torch.tanh(self.first(x))))))


def test_the_end_loads_as_any_checkpoint_does():
    model, x = filled(Several()), normal(6, 4)
    F = ll.fisher(model, (x,), "categorical")
    walk = ll.walk(F, "norm", max_steps=3)
    other = copy.deepcopy(model)
    other.load_state_dict(walk.state_dict())
    assert other.again.weight is other.first.weight
    assert float(divergences(model, other, x).mean()) == pytest.approx(walk.divergence, rel=1e-6)
    assert not torch.equal(other.first.weight, model.first.weight)
    assert torch.equal(other.again.bias, model.again.bias)
