import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightlike.errors import ModelError, TargetError
from lightlike.problem.batch import as_batch
from lightlike.problem.evaluation import Evaluator, checksum
from lightlike.problem.isolation import isolated
from lightlike.problem.likelihoods import Categorical, Gaussian, Likelihood, Poisson
from lightlike.problem.parameters import select

CPU = torch.device("cpu")
X = torch.linspace(-1, 1, 15).reshape(5, 3)
Y = torch.tensor([0, 1, 1, 0, 1])


class Mapped(nn.Module):
    """A linear layer and a function of its input and output."""

    def __init__(self, function, width=2):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, width)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


class Ring(Likelihood):
    """Equal noise on two outputs, in a root of one's own."""

    def nll(self, outputs, targets):
        return 0.5 * (outputs - targets).square().sum(-1)

    def root(self, outputs):
        return torch.eye(outputs.shape[-1], dtype=outputs.dtype).expand(len(outputs), -1, -1)

    def sample(self, outputs, generator=None):
        return outputs + torch.randn(outputs.shape, dtype=outputs.dtype, generator=generator)


def evaluator(model, likelihood=None):
    return Evaluator(model, likelihood or Gaussian(), select(model))


def outputs(model, data, likelihood=None):
    with isolated():
        return evaluator(model, likelihood).outputs(as_batch(data).to(CPU))


def linear(model, x):
    return copy.deepcopy(model).double().linear(x.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_outputs_are_those_of_the_model_in_double(dtype):
    model = Mapped(torch.tanh).to(dtype)
    expected = linear(model, X.to(dtype)).tanh()
    found = outputs(model, (X.to(dtype),))
    assert found.h.dtype == torch.float64
    torch.testing.assert_close(found.h, expected, rtol=1e-14, atol=1e-14)
    assert (found.samples, found.positions, found.count) == (5, 1, 5)
    assert found.observed is None
    assert found.targets is None


def test_gradients_reach_every_selected_parameter_and_no_other():
    model = Mapped(torch.tanh)
    model.linear.bias.requires_grad_(False)
    with isolated():
        made = evaluator(model)
        h = made.outputs(as_batch(X).to(CPU)).h
        assert list(made.leaves) == ["linear.weight"]
        (grad,) = torch.autograd.grad(h.sum(), list(made.leaves.values()))
    twin = copy.deepcopy(model).double()
    twin(X.double()).sum().backward()
    torch.testing.assert_close(grad, twin.linear.weight.grad, rtol=1e-14, atol=0)
    assert not made.values["linear.bias"].requires_grad
    assert model.linear.weight.grad is None


def test_the_point_is_fixed_when_the_evaluator_is_made():
    model = nn.Sequential(Mapped(torch.tanh), nn.BatchNorm1d(2)).eval()
    made = evaluator(model)
    before = made.raw(as_batch(X).to(CPU))
    with torch.no_grad():
        for tensor in (*model.parameters(), model[1].running_mean):
            tensor.add_(1)
    assert torch.equal(made.raw(as_batch(X).to(CPU)), before)


def test_complex_buffers_are_double_too():
    model = Mapped(lambda h: torch.view_as_real(h * model.phase.exp()).flatten(1))
    model.register_buffer("phase", torch.tensor([1 + 1j, 0.1 - 3j]))
    phase = model.phase.to(torch.complex128).exp()
    expected = torch.view_as_real(linear(model, X) * phase).flatten(1)
    torch.testing.assert_close(outputs(model, X).h, expected, rtol=1e-14, atol=1e-14)


FORMS = {
    "logits": lambda h: SimpleNamespace(logits=h, loss=None),
    "named": lambda h: type("Output", (tuple,), {"logits": h})((h, h)),
}


@pytest.mark.parametrize("function", FORMS.values(), ids=FORMS)
def test_objects_with_logits(function):
    model = Mapped(function)
    torch.testing.assert_close(outputs(model, X).h, linear(model, X))


def test_one_dimensional_outputs():
    model = Mapped(lambda h: h.squeeze(-1), width=1)
    for labels in (Y, Y.unsqueeze(-1)):
        found = outputs(model, (X, labels))
        assert found.h.shape == found.targets.shape == (5, 1)
        torch.testing.assert_close(found.h, linear(model, X))
        assert (found.samples, found.positions) == (5, 1)


def test_tokens_are_observations_in_order():
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24).reshape(4, 6) % 2
    labels[1, 2:5] = labels[3] = -100
    model = Mapped(torch.tanh)
    found = outputs(model, (x, labels), Categorical())
    assert (found.samples, found.positions, found.count) == (4, 6, 15)
    torch.testing.assert_close(found.h, linear(model, x).tanh().reshape(24, 2))
    assert torch.equal(found.targets, labels.reshape(-1))
    assert torch.equal(found.observed, labels.reshape(-1) != -100)


@pytest.mark.parametrize("sizes", [(2, 3), (4, 3, 2), (2, 3, 4, 5)], ids=str)
def test_classes_in_the_second_dimension(sizes):
    torch.manual_seed(1)
    n, m, *places = sizes
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(m * torch.Size(places).numel()),
                          nn.Unflatten(1, (m, *places)))  # fmt: skip
    x = torch.randn(n, 3)
    raw = model(x)
    assert raw.shape == sizes
    labels = torch.randint(m, (n, *places))
    labels.view(-1)[0] = -100
    found = outputs(model, (x, labels), Categorical(dim=1))
    last = outputs(nn.Sequential(model, Last()), (x, labels), Categorical())
    assert torch.equal(found.h, last.h)
    assert (found.samples, found.positions) == (n, torch.Size(places).numel())
    assert found.count == labels.numel() - 1
    nll = Categorical(dim=1).nll(found.h, found.targets).sum()
    reference = nn.functional.cross_entropy(raw.double(), labels, reduction="sum")
    torch.testing.assert_close(nll, reference, rtol=1e-5, atol=0)


class Last(nn.Module):
    def forward(self, x):
        return x.movedim(1, -1)


def test_own_likelihood():
    model = Mapped(torch.tanh)
    found = outputs(model, (X, torch.zeros(5, 2)), Ring())
    assert found.targets.dtype == torch.float64
    assert found.observed is None
    nll = Ring().nll(found.h, found.targets)
    torch.testing.assert_close(nll, linear(model, X).tanh().square().sum(-1) / 2)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(4, 2), r"shape \(4, 2\).*\(5, ...\)"),
        (torch.full((5, 2), torch.nan), "10 label entries"),
        (torch.tensor(1.0), r"shape \(\)"),
    ],
)
def test_own_likelihood_with_bad_labels(labels, words):
    with pytest.raises(TargetError, match=words):
        outputs(Mapped(torch.tanh), (X, labels), Ring())


def failing(_):
    message = "no such luck"
    raise KeyError(message)


def without_gradient(h):
    with torch.no_grad():
        return failing(h)


BAD = {
    "tuple": (lambda h: (h, h), None, "returns a tuple, not a tensor"),
    "dict": (lambda h: {"out": h}, None, "returns a dict, not a tensor"),
    "none": (lambda _h: None, None, "returns a NoneType"),
    "logits_none": (lambda h: SimpleNamespace(logits=None, h=h), None, "SimpleNamespace"),
    "nan": (lambda h: h.log(), None, "of 10 model outputs are NaN"),
    "inf": (lambda h: h / 0, None, "10 of 10 model outputs"),
    "masked": (lambda h: h.masked_fill(h == h[0, 0], -torch.inf), None, "1 of 10 .*large negative"),
    "classes": (lambda h: h.argmax(-1), None, r"torch.int64 tensor of shape \(5,\)"),
    "complex": (lambda h: h + 1j, None, "complex128"),
    "scalar": (lambda h: h.sum(), None, r"shape \(\)"),
    "nothing": (lambda h: h[:0], None, r"shape \(0, 2\)"),
    "one_class": (lambda h: h[:, :1], Categorical(), "1 logit"),
    "no_such_dim": (lambda h: h, Categorical(dim=2), "no dimension 2"),
    "raises": (failing, None, "KeyError: 'no such luck'"),
    "raises_inside": (without_gradient, None, "KeyError: 'no such luck'"),
    "shapes": (lambda h: h @ torch.ones(3, 3), None, "RuntimeError: mat1 and mat2"),
    "single": (lambda h: h * 1 @ torch.ones(2, 2, dtype=torch.float32), None, "model.double"),
}


@pytest.mark.parametrize(("function", "likelihood", "words"), BAD.values(), ids=BAD)
def test_bad_models(untouched, function, likelihood, words):
    model = Mapped(function)
    model.linear.weight.grad = torch.ones(2, 3)
    with untouched(model, X), pytest.raises(ModelError, match=words):
        outputs(model, X, likelihood)


def test_wrong_arguments():
    with pytest.raises(ModelError, match=r"TypeError: .*unexpected keyword argument 'y'"):
        outputs(Mapped(torch.tanh), {"x": X, "y": X})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.floats(1e-6, 1e3))
def test_checksum_sees_values_order_and_number(i, j, size):
    model = Mapped(torch.tanh)
    first = checksum(outputs(model, X))
    assert checksum(outputs(model, X.clone())) == first
    changed = X.clone()
    changed[i, 0] += size
    assert checksum(outputs(model, changed)) != first
    swapped = X.clone()
    swapped[[i, j]] = X[[j, i]]
    assert (checksum(outputs(model, swapped)) == first) == (i == j)
    assert checksum(outputs(model, X[: i + 1])) != first or i == 4


def test_checksum_sees_the_mask():
    labels = torch.tensor([0, 1, -100, 0, 1])
    model = Mapped(torch.tanh)
    marks = [checksum(outputs(model, (X, y), Categorical())) for y in (Y, labels)]
    assert marks[0] != pytest.approx(marks[1])


def test_counts_need_positive_whole_labels_only_where_given():
    model = Mapped(torch.tanh)
    assert outputs(model, (X,), Poisson()).count == 5
    with pytest.raises(TargetError, match="whole numbers"):
        outputs(model, (X, torch.full((5, 2), 0.5)), Poisson())
