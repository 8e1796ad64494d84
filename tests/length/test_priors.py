import math

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, LightlikeError, PriorError
from lightlike.length.priors import Isotropic, PerParameter, Prior, resolve_prior
from lightlike.problem.problem import Problem


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight
        self.free = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))) * self.free


@pytest.fixture
def problem():
    x = torch.linspace(-1, 1, 12).reshape(4, 3)
    return Problem(Tied(), (x, torch.tensor([0, 1, 2, 1])), "categorical")


def test_public_names():
    assert {"Isotropic", "PerParameter", "Prior"} <= set(dir(ll.priors))
    assert isinstance(resolve_prior(None), Isotropic)
    assert resolve_prior(None) == Isotropic(1.0, 0.0)


@pytest.mark.parametrize("variance", [0.3, 1e-8, 1e8, 2, np.float64(0.5), np.float32(0.5)])
def test_isotropic(problem, variance):
    resolved = Isotropic(variance, mean=2).resolve(problem)
    assert resolved.variance.dtype == torch.float64
    assert (resolved.variance == float(variance)).all()
    assert (resolved.mean == 2).all()
    assert resolved.tuned == 0
    assert resolved.description == {"name": "isotropic", "variance": float(variance), "mean": 2}
    assert type(resolved.description["variance"]) is float


def test_state_dict_as_mean_in_the_order_of_theta(problem):
    model = Tied()
    resolved = Isotropic(mean=model.state_dict()).resolve(problem)
    expected = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).double()
    assert torch.equal(resolved.mean, expected)
    assert torch.equal(resolved.mean, problem.theta)
    assert not resolved.mean.requires_grad
    assert resolved.description["mean"] == "given"


def test_tied_parameters_may_go_by_either_name(problem):
    names = {"b.weight": 0.5, "a.bias": 2.0, "free": 3.0}
    variance = PerParameter(names).resolve(problem).variance
    by_entry = dict(zip([e.name for e in problem.selection.entries], [3.0, 0.5, 2.0], strict=True))
    assert problem.selection.split(variance).keys() == by_entry.keys()
    for name, part in problem.selection.split(variance).items():
        assert (part == by_entry[name]).all(), name


def test_numbers_by_name_keep_all_their_digits(problem):
    names = {
        "a.weight": 0.1,
        "a.bias": np.float64(0.1),
        "free": torch.tensor(0.1, dtype=torch.float64),
    }
    assert (PerParameter(names).resolve(problem).variance == 0.1).all()


def test_vector_and_tensors(problem):
    vector = torch.arange(13.0)
    assert torch.equal(PerParameter(vector).resolve(problem).variance, vector.double())
    split = problem.selection.split(vector)
    assert torch.equal(PerParameter(split).resolve(problem).variance, vector.double())


GOOD = {"a.weight": 1.0, "a.bias": 1.0, "free": 1.0}
BAD = {
    "missing": (lambda: PerParameter({"a.weight": 1.0}), "variance has no entry for parameter"),
    "missing mean": (lambda: Isotropic(mean={"a.weight": torch.ones(3, 3)}), "mean has no entry"),
    "length": (lambda: PerParameter(torch.ones(5)), r"shape \(5,\).*\(13,\)"),
    "shape": (
        lambda: PerParameter({**GOOD, "a.bias": torch.ones(2)}),
        r"'a.bias' has shape",
    ),
    "negative": (lambda: PerParameter({**GOOD, "a.bias": -1.0}), "negative, NaN or infinite"),
    "nan": (lambda: PerParameter(torch.full((13,), math.nan)), "negative, NaN or infinite"),
    "inf": (lambda: PerParameter({**GOOD, "free": math.inf}), "negative, NaN or infinite"),
    "all zero": (lambda: PerParameter(torch.zeros(13)), "All prior variances are zero"),
    "nan mean": (lambda: Isotropic(mean=math.nan), "mean is NaN or infinite"),
    "inf mean": (lambda: PerParameter(torch.ones(13), math.inf), "mean is NaN or infinite"),
    "mean a vector": (lambda: Isotropic(mean=torch.zeros(13)), "mean is a Tensor"),
    "mean a text": (lambda: Isotropic(mean="init"), "mean is a str"),
    "array": (lambda: PerParameter(np.ones(13)), "variance is a ndarray"),
    "zero": (lambda: Isotropic(0), "not a proper prior"),
    "below zero": (lambda: Isotropic(-1.0), "not a proper prior"),
    "infinite": (lambda: Isotropic(math.inf), "not a proper prior"),
    "not a number": (lambda: Isotropic(math.nan), "not a proper prior"),
    "none": (lambda: Isotropic(None), "not a proper prior"),
    "list": (lambda: Isotropic([1.0, 2.0]), "not a proper prior"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_priors(problem, case):
    make, message = BAD[case]
    with pytest.raises(PriorError, match=message):
        make().resolve(problem)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Isotropic("fitted"), ChoiceError),
        (lambda: resolve_prior(1.0), ChoiceError),
        (lambda: resolve_prior("isotropic"), ChoiceError),
    ],
)
def test_unknown_choices(make, error):
    with pytest.raises(error, match="is not a choice") as caught:
        make()
    assert isinstance(caught.value, LightlikeError)


@pytest.mark.parametrize("prior", [Isotropic(mean={"a.weight": 0.0}), PerParameter(torch.ones(3))])
def test_measure_refuses_before_it_computes(prior, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr("lightlike.metric.root.Root.gram", never)
    monkeypatch.setattr("lightlike.metric.root.Root.metric", never)
    x = torch.zeros(4, 3)
    with pytest.raises(PriorError):
        ll.measure(Tied(), (x,), "categorical", prior=prior, progress=False)


def test_selected_parameters_only():
    model = Tied()
    x = torch.linspace(-1, 1, 12).reshape(4, 3)
    part = Problem(model, (x,), "gaussian", "bias")
    resolved = PerParameter({"a.bias": 0.25}, mean=model.state_dict()).resolve(part)
    assert (resolved.variance == 0.25).all()
    assert torch.equal(resolved.mean, model.a.bias.detach().double())


def test_a_prior_of_ones_own():
    class Decaying(Prior):
        mean = 0.0

        def variances(self, selection, like):
            return 1.0 / torch.arange(1, selection.size + 1, dtype=like.dtype)

        def describe(self):
            return {"name": "decaying"}

    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 2), torch.randn(6, 4), torch.tensor([0, 1, 1, 0, 1, 0])
    own = ll.measure(model, (x, y), "categorical", prior=Decaying(), progress=False)
    same = PerParameter(1.0 / torch.arange(1, 11, dtype=torch.float64))
    listed = ll.measure(model, (x, y), "categorical", prior=same, progress=False)
    assert own.length.total == listed.length.total
    assert "decaying prior" in str(own)
