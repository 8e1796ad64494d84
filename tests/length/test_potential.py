"""n L_n and its gradient at several points, against PyTorch's own losses taken point by point."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from lightlike.length.potential import Potential
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem

G = torch.Generator().manual_seed(0)
X = torch.randn(7, 3, generator=G, dtype=torch.float64)


class Tagger(nn.Module):
    """One distribution over three tags at every token."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, tokens, shift=0.0):
        return {"logits": self.head(torch.tanh(self.embedding(tokens) + shift))}


class Reader(nn.Module):
    """A recurrent layer."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


class Stubborn(nn.Module):
    """A value of its own output decides what is computed: vmap cannot follow."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        h = self.layer(x)
        return h if float(h.detach().sum()) > 1e9 else 2.0 * h


def mlp(outputs):
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs))


TOKENS = torch.randint(5, (6, 5), generator=G)
TAGS = torch.randint(3, (6, 5), generator=G)
TAGS[0, 2:], TAGS[4, :] = -100, -100
REAL, COUNTS = torch.randn(7, 2, generator=G), torch.randint(4, (7, 2), generator=G)
BITS, CLASSES = torch.randint(2, (7, 2), generator=G).double(), torch.arange(7) % 2
SERIES = torch.randn(7, 4, 3, generator=G, dtype=torch.float64)


def gaussian(h, y):
    return functional.gaussian_nll_loss(h, y, torch.full_like(h, 0.5), full=True, reduction="sum")


def tags(h, y):
    return functional.cross_entropy(h.flatten(0, 1), y.flatten(), reduction="sum")


def cross_entropy(h, y):
    return functional.cross_entropy(h, y, reduction="sum")


def poisson(h, y):
    return (h.exp() - y * h + torch.lgamma(y.double() + 1.0)).sum()


def coins(h, y):
    return functional.binary_cross_entropy_with_logits(h, y, reduction="sum")


SPLIT = [{"tokens": TOKENS[:1], "labels": TAGS[:1]}, {"tokens": TOKENS[1:], "labels": TAGS[1:]}]
CASES = {
    "gaussian": (mlp(2), (X, REAL), ll.likelihoods.Gaussian(0.5), gaussian, True),
    "categorical": (mlp(2), (X, CLASSES), "categorical", cross_entropy, True),
    "poisson": (mlp(2), [(X[:2], COUNTS[:2]), (X[2:], COUNTS[2:])], "poisson", poisson, True),
    "bernoulli": (mlp(2), (X, BITS), "bernoulli", coins, True),
    "tokens": (Tagger(), SPLIT, "categorical", tags, True),
    "recurrent": (Reader(), (SERIES, CLASSES), "categorical", cross_entropy, None),
    "stubborn": (Stubborn(), (X, CLASSES), "categorical", cross_entropy, False),
}


@pytest.mark.parametrize("case", CASES)
def test_against_plain_losses(case, untouched):
    model, data, likelihood, loss, together = CASES[case]
    model = copy.deepcopy(model)
    pairs = data if isinstance(data, list) else [data]
    with untouched(model):
        problem = Problem(model, data, likelihood)
        potential = Potential(problem)
        noise = torch.randn(3, problem.parameters, generator=G, dtype=torch.float64)
        points = problem.theta + noise
        with isolated():
            values, gradients = potential(points)
            again, _ = potential(points)
    assert together is None or potential.together is together
    assert torch.equal(values, again)
    reference = model.double()
    for point, value, gradient in zip(points, values, gradients, strict=True):
        nn.utils.vector_to_parameters(point, reference.parameters())
        reference.zero_grad()
        total = torch.zeros(())
        for pair in pairs:
            x, y = pair.values() if isinstance(pair, dict) else pair
            h = reference(x)
            total = total + loss(h["logits"] if isinstance(h, dict) else h, y)
        total.backward()
        expected = torch.cat([p.grad.reshape(-1) for p in reference.parameters()])
        torch.testing.assert_close(value, total.detach().double(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-9)


def test_only_ignored_labels_in_one_batch():
    """Rows without a label weigh nothing, whatever stands in them."""
    model = Tagger()
    both = Potential(Problem(model, SPLIT, "categorical"))
    fewer = SPLIT[1]["tokens"].clone()
    fewer[3] = 0  # TAGS[4] is ignored everywhere
    changed = [SPLIT[0], {"tokens": fewer, "labels": SPLIT[1]["labels"]}]
    other = Potential(Problem(model, changed, "categorical"))
    point = both.problem.theta[None]
    with isolated():
        torch.testing.assert_close(both(point)[0], other(point)[0])
    assert both.observations == other.observations == int((TAGS >= 0).sum())


def test_where_the_loss_is_not_finite():
    """∞ with gradient 0, and only there."""
    potential = Potential(Problem(mlp(2), (X, COUNTS), "poisson"))
    points = potential.problem.theta.repeat(2, 1)
    points[1, -1] = 1e4
    with isolated():
        values, gradients = potential(points)
    assert torch.isfinite(values[0])
    assert values[1] == torch.inf
    assert bool((gradients[1] == 0).all())
    assert bool((gradients[0] != 0).any())


def test_labels_are_needed():
    with pytest.raises(ll.errors.DataError, match="no labels"):
        Potential(Problem(mlp(2), (X,), "gaussian"))
