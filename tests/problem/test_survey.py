import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

from lightlike.errors import DataError, DeterminismError, LightlikeError, ModelError, TargetError
from lightlike.problem.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
)
from lightlike.problem.problem import Problem

few = settings(max_examples=15, deadline=None)
N = 11
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 4


def net(width=4, *extra):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), *extra, nn.Linear(5, width))


def double(model, x):
    return copy.deepcopy(model).double()(x.double()).detach()


class Pass(nn.Module):
    """A function of the hidden layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Again:
    """Batches that may differ at each pass."""

    def __init__(self, *passes):
        self.passes, self.count = passes, 0

    def __iter__(self):
        self.count += 1
        return iter(self.passes[min(self.count, len(self.passes)) - 1])


class Laplace(Likelihood):
    """Double exponential noise: the score is ±1."""

    def nll(self, outputs, targets):
        return ((outputs - targets).abs() + math.log(2)).sum(-1)

    def root(self, outputs):
        return torch.eye(outputs.shape[-1], dtype=outputs.dtype).expand(len(outputs), -1, -1)

    def sample(self, outputs, generator=None):
        u = torch.rand(outputs.shape, dtype=outputs.dtype, generator=generator) - 0.5
        return outputs - u.sign() * (-2 * u.abs()).log1p()


CASES = {
    "categorical": (Categorical(), Y, 3, lambda h, y: td.Categorical(logits=h).log_prob(y)),
    "bernoulli": (
        Bernoulli(),
        torch.eye(N, 4),
        4,
        lambda h, y: td.Bernoulli(logits=h).log_prob(y).sum(-1),
    ),
    "poisson": (
        Poisson(),
        torch.arange(4 * N).reshape(N, 4) % 7,
        4,
        lambda h, y: td.Poisson(h.exp()).log_prob(y).sum(-1),
    ),
    "gaussian": (
        Gaussian(0.3),
        X[:, [0, 1, 2, 0]],
        4,
        lambda h, y: td.Normal(h, 0.3**0.5).log_prob(y).sum(-1),
    ),
    "heteroscedastic": (
        HeteroscedasticGaussian(),
        X[:, :2],
        4,
        lambda h, y: td.Normal(h[:, :2], (h[:, 2:] / 2).exp()).log_prob(y).sum(-1),
    ),
    "own": (Laplace(), X[:, [0, 1, 2, 0]], 4, lambda h, y: td.Laplace(h, 1.0).log_prob(y).sum(-1)),
}
each = pytest.mark.parametrize(("likelihood", "y", "rank", "log_prob"), CASES.values(), ids=CASES)


@each
def test_survey_counts_and_fits(untouched, likelihood, y, rank, log_prob):
    model = net()
    problem = Problem(model, DataLoader(TensorDataset(X, y), batch_size=4), likelihood)
    with untouched(model, X, y):
        survey = problem.survey
    assert (survey.observations, survey.width, survey.rank, survey.rows) == (N, 4, rank, N * rank)
    assert survey.samples == survey.counts == (4, 4, 3)
    assert survey.positions == 1
    assert len(survey.checksums) == 3
    expected = -log_prob(double(model, X), y if y is Y else y.double())
    torch.testing.assert_close(survey.nll, expected, rtol=1e-10, atol=1e-12)
    assert not survey.nll.requires_grad


@each
def test_survey_without_labels(likelihood, y, rank, log_prob):  # noqa: ARG001
    survey = Problem(net(), (X,), likelihood).survey
    assert (survey.observations, survey.rank, survey.rows) == (N, rank, N * rank)
    assert survey.nll is None
    assert survey.label_entropy is None


@few
@given(st.lists(st.integers(1, N - 1), max_size=5))
def test_any_split_gives_the_same_survey(places):
    edges = [0, *sorted(set(places)), N]
    cuts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    model = net()
    whole = Problem(model, (X, Y), "categorical").survey
    split = Problem(model, [(X[c], Y[c]) for c in cuts], "categorical").survey
    assert split.samples == tuple(c.stop - c.start for c in cuts)
    assert (split.observations, split.rows) == (whole.observations, whole.rows)
    torch.testing.assert_close(split.nll, whole.nll, rtol=1e-13, atol=1e-14)
    assert split.label_entropy == whole.label_entropy


@few
@given(st.lists(st.sampled_from([0, 1, 2, 3, -100]), min_size=N, max_size=N))
def test_ignored_labels_do_not_count(labels):
    y = torch.tensor(labels)
    kept = y != -100
    problem = Problem(net(), [(X[:6], y[:6]), (X[6:], y[6:])], "categorical")
    if not kept.any():
        with pytest.raises(DataError, match="No observation counts"):
            _ = problem.survey
        return
    survey = problem.survey
    assert survey.counts == (int(kept[:6].sum()), int(kept[6:].sum()))
    assert survey.samples == (6, 5)
    assert survey.observations == len(survey.nll) == int(kept.sum())
    rest = Problem(net(), (X[kept], y[kept]), "categorical").survey
    torch.testing.assert_close(survey.nll, rest.nll, rtol=1e-13, atol=1e-14)
    assert survey.label_entropy == rest.label_entropy


def test_tokens_of_batches_of_different_length():
    x = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    survey = Problem(net(), [x[:2], x[2:3, :5], x[3:, :2]], "categorical").survey
    assert survey.samples == (2, 1, 1)
    assert survey.counts == (14, 5, 2)
    assert survey.positions == 7
    assert survey.rows == 21 * 3


def test_shuffling_is_seen(untouched):
    model = net()
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)
    with untouched(model), pytest.raises(DeterminismError, match="shuffle=False"):
        _ = Problem(model, loader, "categorical").survey


@pytest.mark.parametrize(
    "noise",
    [
        lambda: torch.randn(N, 3),
        lambda: torch.from_numpy(np.random.randn(N, 3)).float(),
    ],
    ids=["torch", "numpy"],
)
def test_random_augmentation_is_seen(untouched, noise):
    class Noisy:
        def __iter__(self):
            yield X + 1e-3 * noise(), Y

    model = net()
    with untouched(model), pytest.raises(DeterminismError, match="Two passes"):
        _ = Problem(model, Noisy(), "categorical").survey


CHANGING = {
    "shrinks": [[(X, Y), (X, Y)], [(X, Y)]],
    "grows": [[(X, Y)], [(X, Y), (X, Y)]],
    "loses_a_row": [[(X, Y)], [(X[:-1], Y[:-1])]],
    "loses_labels": [[(X, Y)], [(X,)]],
    "new_labels": [[(X, Y)], [(X, Y.flip(0))]],
    "other_order": [[(X, Y), (X[:3], Y[:3])], [(X[:3], Y[:3]), (X, Y)]],
}


@pytest.mark.parametrize("passes", CHANGING.values(), ids=CHANGING)
def test_data_that_change_between_passes(passes):
    with pytest.raises(DeterminismError, match="Two passes"):
        _ = Problem(net(), Again(*passes), "categorical").survey


def test_data_that_dry_up():
    with pytest.raises(DataError, match="start afresh"):
        _ = Problem(net(), Again([(X, Y)], []), "categorical").survey


@pytest.mark.parametrize("late", [[(X, Y)], [(X, Y)] * 3, [(X, Y), (X + 1e-3, Y)]],
                         ids=["shrinks", "grows", "changes"])  # fmt: skip
def test_data_that_change_after_the_survey(late):
    data = [(X, Y), (X, Y)]
    problem = Problem(net(), data, "categorical")
    assert problem.survey.observations == 2 * N
    assert len(list(problem.sweep("again"))) == 2
    data[:] = late
    with pytest.raises(DeterminismError, match="changed between passes"):
        list(problem.sweep("again"))


def test_sweeps_see_the_outputs_of_the_survey():
    model = net()
    problem = Problem(model, DataLoader(TensorDataset(X, Y), batch_size=4), "categorical")
    found = torch.cat([out.h for _, out in problem.sweep("outputs")])
    torch.testing.assert_close(found, double(model, X), rtol=1e-13, atol=1e-14)
    assert found.requires_grad


MIXED = [[(X, Y), (X,)], [(X,), (X, Y)], [{"input": X}, {"input": X, "labels": Y}]]


@pytest.mark.parametrize("data", MIXED, ids=["last_without", "first_without", "dicts"])
def test_labels_for_a_part_of_the_data(untouched, data):
    model = net()
    with untouched(model), pytest.raises(DataError, match="Some batches have labels"):
        _ = Problem(model, data, "categorical").survey


def bernoulli_mask(h):
    return h * torch.bernoulli(torch.full_like(h, 0.5))


def numpy_noise(h):
    return h + np.random.rand()


def training(model):
    return model.train()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(5, 1, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.inner(x[:, None], x[:, None], x[:, None])[0][:, 0]


RANDOM = {
    "dropout": (lambda: net(4, nn.Dropout(0.3)), "Dropout '2' is in training mode"),
    "alpha_dropout": (lambda: net(4, nn.AlphaDropout(0.1)), "AlphaDropout '2'"),
    "nested": (lambda: net(4, nn.Sequential(nn.Dropout(0.1))), "Dropout '2.0'"),
    "batch_norm": (lambda: net(4, nn.BatchNorm1d(5)), "BatchNorm1d '2' is in training mode"),
    "sync_batch_norm": (lambda: net(4, nn.SyncBatchNorm(5)), "SyncBatchNorm '2'"),
    "no_statistics": (
        lambda: net(4, nn.BatchNorm1d(5, track_running_stats=False)).eval(),
        "BatchNorm1d '2'.*no running statistics",
    ),
    "functional_dropout": (lambda: net(4, Pass(nn.functional.dropout)), "two different outputs"),
    "bernoulli": (lambda: net(4, Pass(bernoulli_mask)), "two different outputs"),
    "numpy_noise": (lambda: net(4, Pass(numpy_noise)), "two different outputs"),
    "attention_dropout": (lambda: net(4, Attention()), "two different outputs"),
    "spectral_norm": (
        lambda: net(4, nn.Linear(5, 40), parametrizations.spectral_norm(nn.Linear(40, 5))),
        "two different outputs",
    ),
    "random_length": (
        lambda: net(4, Pass(lambda h: h[: int(torch.randint(1, 10**9, ()).item()) % 10 + 1])),
        "two different",
    ),
}


@pytest.mark.parametrize(("make", "words"), RANDOM.values(), ids=RANDOM)
def test_random_models_are_refused(untouched, make, words):
    model = make()
    torch.manual_seed(0)
    with untouched(model, X), pytest.raises(DeterminismError, match=words):
        _ = Problem(model, (X, Y), "categorical").survey


STEADY = {
    "dropout": lambda: net(4, nn.Dropout(0.3)).eval(),
    "dropout_of_nothing": lambda: net(4, nn.Dropout(0.0)).train(),
    "batch_norm": lambda: net(4, nn.BatchNorm1d(5)).eval(),
    "layer_norm": lambda: net(4, nn.LayerNorm(5)).train(),
    "instance_norm": lambda: net(
        4, nn.Sequential(nn.Unflatten(1, (1, 5)), nn.InstanceNorm1d(1, track_running_stats=True),
                         nn.Flatten())
    ).train(),
    "attention": lambda: net(4, Attention()).eval(),
    "spectral_norm": lambda: net(4, parametrizations.spectral_norm(nn.Linear(5, 5))).eval(),
}  # fmt: skip


@pytest.mark.parametrize("make", STEADY.values(), ids=STEADY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steady_models_are_measured_in_their_own_mode(untouched, make, dtype):
    model = make().to(dtype)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model[0].register_forward_hook(lambda *_: None)
    with untouched(model, X, Y):
        survey = Problem(model, (X, Y), "categorical").survey
    reference = -td.Categorical(logits=double(model, X)).log_prob(Y)
    torch.testing.assert_close(survey.nll, reference, rtol=1e-12, atol=1e-13)


def in_no_grad(h):
    with torch.no_grad():
        return h * 1


def in_inference_mode(h):
    with torch.inference_mode():
        return h * 1


DETACHED = {
    "no_grad": in_no_grad,
    "inference_mode": in_inference_mode,
    "detach": torch.Tensor.detach,
    "constant": torch.zeros_like,
}


@pytest.mark.parametrize("cut", DETACHED.values(), ids=DETACHED)
def test_outputs_cut_from_the_parameters(untouched, cut):
    model = nn.Sequential(net(), Pass(cut))
    with untouched(model), pytest.raises(ModelError, match="does not depend on any selected"):
        _ = Problem(model, (X, Y), "categorical").survey


def test_selected_parameters_that_are_not_used():
    model = net()
    model.unused = nn.Parameter(torch.ones(2))
    model.forward = lambda x: model[0](x)
    with pytest.raises(ModelError, match="does not depend on any selected"):
        _ = Problem(model, (X,), "gaussian", parameters="unused").survey
    assert Problem(model, (X,), "gaussian").survey.observations == N


def later(function):
    """Something that happens to the second batch of a pass only."""
    return Pass(lambda h: function(h) if len(h) == 5 else h)


def fail(_):
    message = "out of luck"
    raise IndexError(message)


LATE = {
    "nan": (lambda h: h * torch.nan, "NaN or infinite"),
    "tuple": (lambda h: (h, h), "returns a tuple"),
    "width": (lambda h: h[:, :3], "4 outputs for one batch and 3 for another"),
    "raises": (fail, "IndexError: out of luck"),
}


@pytest.mark.parametrize(("function", "words"), LATE.values(), ids=LATE)
def test_models_that_fail_later(untouched, function, words):
    model = nn.Sequential(net(), later(function))
    data = [(X[:6], Y[:6] % 3), (X[6:], Y[6:] % 3)]
    with untouched(model, X), pytest.raises(ModelError, match=words):
        _ = Problem(model, data, "categorical").survey


OVERFLOW = {
    "poisson": (Poisson(), 800.0, 0.0),
    "heteroscedastic": (HeteroscedasticGaussian(), -800.0, 1.0),
    "gaussian": (Gaussian(), 1e200, 0.0),
}


@pytest.mark.parametrize(("likelihood", "output", "label"), OVERFLOW.values(), ids=OVERFLOW)
def test_infinite_losses_are_refused(likelihood, output, label):
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 0)
    model = nn.Sequential(model.double(), Pass(lambda h: h + output))
    width = 1 if isinstance(likelihood, HeteroscedasticGaussian) else 2
    labels = torch.full((N, width), label)
    with pytest.raises(ModelError, match=f"log-likelihood of {N} observations"):
        _ = Problem(model, (X, labels), likelihood).survey


class FlatRoot(Laplace):
    def root(self, outputs):
        return outputs


class WrongRoot(Laplace):
    def root(self, outputs):
        return torch.eye(2, dtype=outputs.dtype).expand(len(outputs), -1, -1)


class SummedLoss(Laplace):
    def nll(self, outputs, targets):
        return super().nll(outputs, targets).sum()


class EntryLoss(Laplace):
    def nll(self, outputs, targets):
        return (outputs - targets).abs()


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        (FlatRoot(), r"FlatRoot.root gives shape \(1, 4\)"),
        (WrongRoot(), r"WrongRoot.root gives shape \(1, 2, 2\)"),
        (SummedLoss(), r"SummedLoss.nll gives shape \(\) for 11"),
        (EntryLoss(), r"EntryLoss.nll gives shape \(11, 4\)"),
    ],
)
def test_own_likelihoods_of_wrong_shape(likelihood, words):
    with pytest.raises(ModelError, match=words):
        _ = Problem(net(), (X, torch.zeros(N, 4)), likelihood).survey


@pytest.mark.parametrize("model", [None, torch.tanh, nn.Linear, "net"])
def test_models_are_modules(model):
    with pytest.raises(ModelError, match=r"not a torch.nn.Module"):
        Problem(model, (X, Y), "categorical")


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
}


@pytest.mark.parametrize("ambient", AMBIENT.values(), ids=AMBIENT)
def test_the_caller_may_be_in_any_mode(untouched, ambient):
    model = net()
    plain = Problem(model, (X, Y), "categorical")
    with ambient(), untouched(model, X, Y):
        problem = Problem(model, (X, Y), "categorical")
        survey, theta, fingerprint = problem.survey, problem.theta, problem.fingerprint
    assert torch.equal(survey.nll, plain.survey.nll)
    assert torch.equal(theta, plain.theta)
    assert not theta.is_inference()
    assert fingerprint == plain.fingerprint


@pytest.mark.parametrize("bad", [(X, Y + 1), (X, Y.float() + 0.5), (X[:, :2], Y), ()])
def test_errors_leave_the_model(untouched, bad):
    model = net(4, nn.BatchNorm1d(5)).eval()
    model[0].weight.requires_grad_(False)
    model[-1].weight.grad = torch.full_like(model[-1].weight, torch.nan)
    with untouched(model, X, Y), pytest.raises(LightlikeError):
        _ = Problem(model, bad, "categorical").survey


def test_bad_labels_in_a_later_batch():
    with pytest.raises(TargetError, match="from 4 to 4"):
        _ = Problem(net(), [(X, Y), (X[:1], Y[:1] + 4)], "categorical").survey


def test_fingerprints_tell_models_and_data_apart():
    model, data = net(), (X, Y)
    one = Problem(model, data, "categorical").fingerprint
    assert Problem(copy.deepcopy(model), (X.clone(), Y.clone()), "categorical").fingerprint == one
    assert Problem(model, (X, Y.flip(0)), "categorical").fingerprint["model"] == one["model"]
    assert Problem(model, (X, Y.flip(0)), "categorical").fingerprint["data"] != one["data"]
    with torch.no_grad():
        model[0].bias[0] += 1e-6
    assert Problem(model, data, "categorical").fingerprint["model"] != one["model"]


def test_theta_is_flat_and_in_double():
    model = net()
    problem = Problem(model, (X, Y), "categorical", parameters="bias")
    expected = torch.cat([model[0].bias, model[-1].bias]).detach().double()
    assert torch.equal(problem.theta, expected)
    assert problem.parameters == 9
