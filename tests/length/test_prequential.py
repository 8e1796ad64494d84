import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightlike as ll
from lightlike.errors import (
    ChoiceError,
    DataError,
    DeterminismError,
    ModelError,
    StoreError,
    UndefinedError,
)
from lightlike.length.prequential import doubling

NOISE, WIDE, SIZE = 0.3, 1.5, 6


def regression():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, SIZE))
    theta = np.sqrt(WIDE) * rng.standard_normal(SIZE)
    Y = X @ theta + np.sqrt(NOISE) * rng.standard_normal(40)
    return torch.from_numpy(X), torch.from_numpy(Y)[:, None]


class Predictive(nn.Module):
    """Bayesian linear regression: mean and log-variance of the exact posterior predictive."""

    def __init__(self, x, y):
        super().__init__()
        precision = torch.eye(SIZE).double() / WIDE + x.T @ x / NOISE
        covariance = torch.linalg.inv(precision)
        self.register_buffer("covariance", covariance)
        self.register_buffer("mean", covariance @ x.T @ y[:, 0] / NOISE)

    def forward(self, x):
        variance = NOISE + ((x @ self.covariance) * x).sum(1)
        return torch.stack([x @ self.mean, variance.log()], 1)


def bayes(x, y, _):
    return Predictive(x, y)


PRIOR = Predictive(torch.zeros(0, SIZE).double(), torch.zeros(0, 1).double())
HETERO = ll.likelihoods.HeteroscedasticGaussian()
EVIDENCE = 52.382799610461


@pytest.mark.parametrize("order", [None, 0, 7])
def test_exact_bayes_gives_the_evidence(order):
    L = ll.lengths.prequential(
        bayes, regression(), HETERO, schedule=range(1, 41), initial=PRIOR, order=order
    )
    assert L.total == pytest.approx(EVIDENCE, abs=1e-10)
    assert (L.kind, L.stderr, L.observations) == ("exact", 0.0, 40)
    model = nn.Linear(SIZE, 1, bias=False).double()
    F = ll.fisher(model, regression(), ll.likelihoods.Gaussian(NOISE))
    razor = ll.description_length(F, prior=ll.priors.Isotropic(WIDE))
    assert L.total == pytest.approx(razor.total, rel=1e-10)


def test_coarse_blocks_cost_more():
    L = ll.lengths.prequential(bayes, regression(), HETERO, initial=PRIOR)
    assert L.ends == (8, 16, 32, 40)
    assert L.total > EVIDENCE
    x, y = regression()
    by_hand = 0.0
    for start, end in ((0, 8), (8, 16), (16, 32), (32, 40)):
        mean, log_variance = Predictive(x[:start], y[:start])(x[start:end]).T
        law = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        by_hand -= float(law.log_prob(y[start:end, 0]).sum())
    assert L.total == pytest.approx(by_hand, rel=1e-12)
    assert float(L.to("bits").blocks.sum()) == pytest.approx(by_hand / math.log(2))


class Logits(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1], 2, 12.213402712669),
        ([0, 2, 1, 2, 2, 0, 1, 2, 2, 2, 1, 0], 3, 15.033443958103),
    ],
)
def test_mixtures_of_coins_and_dice(labels, classes, expected):
    """Krichevsky and Trofimov's rule, the first label by the uniform code."""

    def train(_, y, __):
        counts = torch.bincount(y, minlength=classes).double() + 0.5
        return Logits((counts / counts.sum()).log())

    n = len(labels)
    data = torch.zeros(n, 1), torch.tensor(labels)
    L = ll.lengths.prequential(train, data, "categorical", schedule=range(1, n + 1))
    assert L.total == pytest.approx(expected, abs=1e-11)
    assert float(L.blocks[0, 0]) == pytest.approx(math.log(classes))


def classes(n=30):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0.2).long()


def train(x, y, seed):
    """Depends on the global generators, seeded or not, as training functions do."""
    model = nn.Linear(2, 2)
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(5):
        noise = random.random() + np.random.random() + 0.1 * seed
        optimiser.zero_grad()
        (nn.functional.cross_entropy(model(x), y) * (1 + 0.1 * noise)).backward()
        optimiser.step()
    return model.eval()


def test_seeds_spread():
    L = ll.lengths.prequential(train, classes(), "categorical", seeds=(0, 1, 5))
    totals = L.blocks.sum(1)
    assert L.total == pytest.approx(float(totals.mean()), rel=1e-14)
    assert L.stderr == pytest.approx(float(totals.std()) / math.sqrt(3), rel=1e-12)
    assert L.stderr > 0
    assert L.kind == "estimated"
    alone = ll.lengths.prequential(train, classes(), "categorical", seeds=(5,))
    assert torch.equal(alone.blocks[0], L.blocks[2])
    assert L.to_dict()["seeds"] == [0, 1, 5]


def test_nothing_is_shuffled():
    x, y = classes()
    seen = []

    def spy(a, b, seed):
        seen.append((a.clone(), b.clone()))
        a.zero_()  # what a training function does to its data stays there
        return train(a, b, seed)

    ll.lengths.prequential(spy, (x, y), "categorical", schedule=[4, 10, 30])
    assert [len(a) for a, _ in seen] == [4, 10]
    assert all(torch.equal(a, x[: len(a)]) and torch.equal(b, y[: len(b)]) for a, b in seen)
    seen.clear()
    ll.lengths.prequential(spy, (x, y), "categorical", schedule=[10, 30], order=3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    assert torch.equal(seen[0][0], x[order[:10]])


class Named(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, a, b=None):
        return self.linear(torch.cat([a, b], 1))


def train_named(x, y, seed):
    a, b = (x["a"], x["b"]) if isinstance(x, dict) else x
    return Named(train(torch.cat([a, b], 1), y, seed))


def test_any_form_of_data():
    x, y = classes()
    expected = ll.lengths.prequential(train, (x, y), "categorical").blocks
    forms = [
        TensorDataset(x, y),
        DataLoader(TensorDataset(x, y), batch_size=7),
        [(x[:13], y[:13]), (x[13:], y[13:])],
        (x.numpy(), y.numpy()),
    ]
    for form in forms:
        assert torch.equal(ll.lengths.prequential(train, form, "categorical").blocks, expected)
    a, b = x[:, :1], x[:, 1:]
    for form in (((a, b), y), {"a": a, "b": b, "labels": y}):
        found = ll.lengths.prequential(train_named, form, "categorical").blocks
        assert torch.allclose(found, expected, rtol=1e-6)


class StoppedError(Exception):
    pass


def test_resumes_to_the_same_bits(tmp_path):
    path = tmp_path / "run.safetensors"
    options = {"schedule": [4, 8, 16, 30], "seeds": (0, 1), "tag": "a"}
    whole = ll.lengths.prequential(train, classes(), "categorical", **options)
    calls = []

    def flaky(x, y, seed):
        calls.append((seed, len(x)))
        if len(calls) == 5:
            raise StoppedError
        return train(x, y, seed)

    with pytest.raises(StoppedError):
        ll.lengths.prequential(flaky, classes(), "categorical", out=path, **options)
    assert calls == [(0, 4), (0, 8), (0, 16), (1, 4), (1, 8)]
    L = ll.lengths.prequential(flaky, classes(), "categorical", out=path, **options)
    assert calls[5:] == [(1, 8), (1, 16)]
    assert torch.equal(L.blocks, whole.blocks)
    assert L.total == whole.total
    again = ll.lengths.prequential(flaky, classes(), "categorical", out=path, **options)
    assert len(calls) == 7
    assert torch.equal(again.blocks, whole.blocks)
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_file_of_another_run(tmp_path):
    path = tmp_path / "run.safetensors"
    options = {"schedule": [10, 30], "out": path}
    ll.lengths.prequential(train, classes(), "categorical", **options)
    before = path.read_bytes()
    x, y = classes()
    for change, what in [
        ({"schedule": [20, 30]}, "ends"),
        ({"seeds": (1,)}, "seeds"),
        ({"tag": "other"}, "tag"),
        ({"order": 1}, "data"),
        ({"initial": nn.Linear(2, 2)}, "initial"),
    ]:
        with pytest.raises(StoreError, match=f"the {what} differ"):
            ll.lengths.prequential(train, (x, y), "categorical", **{**options, **change})
    with pytest.raises(StoreError, match="the data differ"):
        ll.lengths.prequential(train, (x + 1, y), "categorical", **options)
    with pytest.raises(StoreError, match="likelihood"):
        ll.lengths.prequential(train, (x, y), ll.likelihoods.Categorical(-1), **options)
    with pytest.raises(StoreError, match="train, settings differ"):
        ll.lengths.prequential(train_named, (x, y), "categorical", **options)
    assert path.read_bytes() == before
    ll.measure(nn.Linear(2, 2), (x, y), "categorical", progress=False).save(tmp_path / "m")
    with pytest.raises(StoreError, match="kind of file"):
        ll.lengths.prequential(train, (x, y), "categorical", schedule=[10, 30], out=tmp_path / "m")
    with pytest.raises(StoreError, match="does not exist"):
        ll.lengths.prequential(train, (x, y), "categorical", out=tmp_path / "no" / "run")


def test_positions_and_ignored_labels():
    """Five tokens an item, some of which do not count."""
    x = torch.randn(12, 5, 2, generator=torch.Generator().manual_seed(0))
    y = (x[..., 0] > 0).long()
    y[:, 0] = -100

    def fit(a, b, seed):
        return train(a[:, 1:].reshape(-1, 2), b[:, 1:].reshape(-1), seed)

    L = ll.lengths.prequential(fit, (x, y), "categorical", schedule=[3, 12])
    assert L.observations == 48
    assert float(L.blocks[0, 0]) == pytest.approx(12 * math.log(2))
    short = x[:, 1:], y[:, 1:]
    same = ll.lengths.prequential(
        lambda a, b, seed: train(a.reshape(-1, 2), b.reshape(-1), seed), short, "categorical",
        schedule=[3, 12],
    )  # fmt: skip
    assert same.total == pytest.approx(L.total, rel=1e-12)


def test_schedules():
    assert doubling(100) == (8, 16, 32, 64, 100)
    assert doubling(64) == (8, 16, 32, 64)
    assert ll.lengths.prequential(train, classes(5), "categorical").ends == (2, 4, 5)
    for schedule in ([], [10], [10, 10, 30], [20, 10, 30], [0, 30], [1.5, 30], [10, 31]):
        with pytest.raises(ChoiceError, match="all items"):
            ll.lengths.prequential(train, classes(), "categorical", schedule=schedule)


def test_mistakes():
    x, y = classes()
    for options in ({"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (0.5,)}, {"order": "yes"},
                    {"initial": "zeros"}):  # fmt: skip
        with pytest.raises(ChoiceError):
            ll.lengths.prequential(train, (x, y), "categorical", **options)
    with pytest.raises(DataError, match="no labels"):
        ll.lengths.prequential(train, (x,), "categorical")
    with pytest.raises(DataError, match="cannot be joined"):
        ll.lengths.prequential(train, [(x, y), (x[:, :1], y)], "categorical")
    with pytest.raises(UndefinedError, match="no uniform code"):
        ll.lengths.prequential(lambda *_: nn.Linear(2, 1), (x, x[:, :1]), "gaussian")
    with pytest.raises(UndefinedError, match="only block"):
        ll.lengths.prequential(train, (x, y), "categorical", schedule=[30])
    with pytest.raises(ModelError, match=r"not a torch\.nn\.Module"):
        ll.lengths.prequential(lambda *_: "model", (x, y), "categorical")
    with pytest.raises(DeterminismError, match="training mode"):
        ll.lengths.prequential(
            lambda *_: nn.Sequential(nn.Linear(2, 2), nn.Dropout()), (x, y), "categorical"
        )


def test_a_shuffling_loader_is_refused():
    loader = DataLoader(TensorDataset(*classes()), batch_size=5, shuffle=True)
    with pytest.raises(DeterminismError, match="different batches"):
        ll.lengths.prequential(train, loader, "categorical")


def test_everything_is_left_as_it_was(untouched):
    x, y = classes()
    model = nn.Linear(2, 2)
    with untouched(model, x, y):
        ll.lengths.prequential(train, (x, y), "categorical", initial=model)
