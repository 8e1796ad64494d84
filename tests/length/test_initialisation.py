"""The prior that an initialisation is, held against many initialised copies."""

import math

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import PriorError
from lightlike.length.initialisation import measured
from lightlike.length.priors import FromInitialisation, PerParameter
from lightlike.length.schemes import scheme_of
from lightlike.problem.problem import Problem
from oracles.networks import Call, normal


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 40, padding_idx=2)
        self.head = nn.Linear(40, 3)

    def forward(self, tokens):
        return self.head(self.table(tokens).mean(1))


MODULES = {
    "linear": lambda: nn.Linear(7, 30),
    "bilinear": lambda: nn.Bilinear(5, 4, 20),
    "conv1d": lambda: nn.Conv1d(4, 20, 3),
    "conv2d in groups": lambda: nn.Conv2d(4, 20, (3, 2), groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "embedding": lambda: nn.Embedding(10, 30),
    "bag": lambda: nn.EmbeddingBag(10, 30),
    "padded": Padded,
    "lstm": lambda: nn.LSTM(3, 9, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(3, 9, proj_size=4),
    "gru cell": lambda: nn.GRUCell(3, 9),
    "attention": lambda: nn.MultiheadAttention(12, 3, add_bias_kv=True),
    "attention of other widths": lambda: nn.MultiheadAttention(12, 3, kdim=7, vdim=5),
    "encoder layer": lambda: nn.TransformerEncoderLayer(12, 3, 20),
    "transformer": lambda: nn.Transformer(12, 4, 1, 1, 20, batch_first=True),
    "layer norm": lambda: nn.LayerNorm(6),
    "rms norm": lambda: nn.RMSNorm(6),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(6), nn.GroupNorm(2, 6)),
    "instance norm": lambda: nn.InstanceNorm1d(6, affine=True),
    "prelu": lambda: nn.PReLU(3, init=0.1),
}


@pytest.mark.parametrize("case", MODULES)
def test_schemes_are_those_of_many_copies(case):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        copies = [dict(MODULES[case]().named_parameters()) for _ in range(30)]
    model = MODULES[case]()
    for name, parameter in model.named_parameters():
        scheme = scheme_of(model, name, parameter)
        values = torch.stack([c[name].detach().double() for c in copies])
        mean, variance = (torch.as_tensor(v).double() for v in (scheme.mean, scheme.variance))
        drawn = (variance > 0).expand(parameter.shape)
        # Constants exactly; variances to five standard errors of normal numbers' ones.
        assert torch.equal(values[:, ~drawn], mean.float().double().expand(values[:, ~drawn].shape))
        if bool(drawn.any()):
            square = (values - mean).square() / variance.clamp_min(1e-300)
            n = int(drawn.sum()) * len(copies)
            assert abs(float(square[:, drawn].mean()) - 1) < 5 * math.sqrt(2 / n), name
            assert abs(float(values[:, drawn].mean())) < 5 * float(variance.max() / n) ** 0.5


def problem_of(model, *shape):
    return Problem(model, (normal(*shape),), "gaussian")


def mlp():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 30), nn.Tanh(), nn.LayerNorm(30), nn.Linear(30, 3))


def test_a_network():
    problem = problem_of(mlp(), 4, 12)
    found = FromInitialisation(constants=0.25).resolve(problem)
    variances = {n: p.unique().tolist() for n, p in problem.selection.split(found.variance).items()}
    assert variances == {
        "0.weight": [pytest.approx(1 / 36, rel=1e-15)], "0.bias": [pytest.approx(1 / 36)],
        "2.weight": [0.25], "2.bias": [0.25],
        "3.weight": [pytest.approx(1 / 90, rel=1e-15)], "3.bias": [pytest.approx(1 / 90)],
    }  # fmt: skip
    means = {n: p.unique().tolist() for n, p in problem.selection.split(found.mean).items()}
    assert means == {n: [1.0 if n == "2.weight" else 0.0] for n in variances}
    assert found.description == {
        "name": "from_initialisation", "source": "types of modules", "constants": 0.25,
        "mean": "initialisation",
    }  # fmt: skip
    start = mlp().state_dict()
    given = FromInitialisation(constants=0.25, mean=start).resolve(problem)
    assert torch.equal(given.mean, problem.theta)
    assert torch.equal(given.variance, found.variance)
    held = FromInitialisation(constants=0).resolve(problem)
    assert int((held.variance == 0).sum()) == 60
    same = PerParameter(
        problem.selection.split(found.variance), problem.selection.split(found.mean)
    )
    F = ll.Fisher(ll.Root(problem))
    lengths = [
        ll.description_length(F, prior=prior).complexity
        for prior in (same, FromInitialisation(constants=0.25))
    ]
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("as_factory", [True, False])
def test_measured_from_a_fresh_model(as_factory, untouched):
    model = mlp()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(100.0)
    problem = problem_of(model, 4, 12)
    with torch.random.fork_rng():
        fresh = mlp if as_factory else mlp()
    prior = FromInitialisation(fresh=fresh, constants=0.5)
    with untouched(model):
        found = prior.resolve(problem)
    assert torch.equal(found.variance, prior.resolve(problem).variance)
    for entry in problem.selection.entries:
        value = float(found.variance[entry.start])
        mean = float(found.mean[entry.start])
        if entry.name.startswith("2"):
            assert (value, mean) == (0.5, 1.0 if entry.name.endswith("weight") else 0.0)
            continue
        expected = 1 / (3 * (12 if entry.name.startswith("0") else 30))
        # Uniform numbers' squares have a variance of 4/5 of their mean's square.
        assert abs(value / expected - 1) < 5 * math.sqrt(0.8 / entry.size), entry.name
        assert abs(mean) < 5 * math.sqrt(expected / entry.size)
    assert found.description["source"] == "a fresh model"


def test_the_second_moment_is_around_the_mean():
    values = torch.tensor([[1.0, 2.0], [4.0, 5.0]])
    scheme = measured(nn.Parameter(values))
    assert (scheme.mean, scheme.variance) == (3.0, pytest.approx(10 / 3))
    assert measured(torch.full((3,), 0.25)).variance == 0.0
    assert measured(torch.tensor(2.0)) == measured(torch.tensor([2.0, 2.0]))


class Odd(nn.Linear):
    def reset_parameters(self):
        nn.init.ones_(self.weight)


def tied(first, second):
    second.weight = first.weight
    return Call(lambda self, x: self.second(self.first(x)), first=first, second=second)


UNKNOWN = {
    "raw": (
        lambda: Call(lambda self, x: x * self.w, w=nn.Parameter(torch.ones(4))),
        "'w' of a Call was initialised is not known",
    ),
    "own reset": (lambda: Odd(4, 4, bias=False), "'weight' of a Odd was"),
    "parametrised": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False)),
        "of a ParametrizationList was",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_said(case):
    make, message = UNKNOWN[case]
    with pytest.raises(PriorError, match=message) as caught:
        FromInitialisation(constants=1.0).resolve(problem_of(make(), 3, 4))
    assert "fresh=" in caught.value.remedy


def test_tied_parameters_of_two_kinds():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(self.table(x))

    data = (torch.arange(6)[:, None],)
    with pytest.raises(PriorError, match=r"'table.weight' is tied to 'head.weight'"):
        FromInitialisation().resolve(Problem(Language(), data, "categorical"))
    found = FromInitialisation(fresh=Language).resolve(Problem(Language(), data, "categorical"))
    assert float(found.variance[0]) > 0.2  # N(0, 1): the embedding was first
    same = tied(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    assert (FromInitialisation().resolve(problem_of(same, 3, 4)).variance == 1 / 12).all()


BAD = {
    "no constants": (lambda: FromInitialisation(), "'2.weight' and 1 more starts at a constant"),
    "negative": (lambda: FromInitialisation(constants=-1.0), "constants=-1.0"),
    "infinite": (lambda: FromInitialisation(constants=math.inf), "is not a variance"),
    "text": (lambda: FromInitialisation(constants="1"), "is not a variance"),
    "not a module": (lambda: FromInitialisation(fresh=lambda: 3, constants=1.0), "gives a int"),
    "another": (
        lambda: FromInitialisation(fresh=nn.Linear(12, 30), constants=1.0),
        "no parameter",
    ),
    "another shape": (
        lambda: FromInitialisation(fresh=nn.Sequential(nn.Linear(12, 31)), constants=1.0),
        r"\(31, 12\) for '0.weight', of shape \(30, 12\)",
    ),
    "bad mean": (lambda: FromInitialisation(constants=1.0, mean={"0.bias": 0.0}), "mean has no"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    make, message = BAD[case]
    with pytest.raises(PriorError, match=message):
        make().resolve(problem_of(mlp(), 4, 12))


def test_the_measured_model_is_not_a_fresh_one():
    model = mlp()
    with pytest.raises(PriorError, match="is the measured model itself"):
        FromInitialisation(fresh=model, constants=1.0).resolve(problem_of(model, 4, 12))
