import math

import pytest
import torch
from torch import nn

import lightlike as ll

NAMES = {"aic", "bic", "bic_dimension", "uniform", "label_entropy"}
CLASSES = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
BITS = torch.tensor([[0.0, 1.0, 1.0]] * 9 + [[1.0, 1.0, 0.0]] * 3)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(0.1), nn.Linear(4, 3)).double()


X = torch.randn(12, 2, generator=torch.Generator().manual_seed(3)).double()


def entropy(*frequencies):
    return -sum(f * math.log(f) for f in frequencies if f)


CASES = {
    "categorical": (CLASSES, math.log(3), entropy(4 / 12, 3 / 12, 5 / 12)),
    "bernoulli": (BITS, 3 * math.log(2), 2 * entropy(0.25, 0.75)),
    "gaussian": (X.repeat(1, 2)[:, :3], None, None),
    "poisson": (BITS * 4, None, None),
}


@pytest.mark.parametrize("likelihood", CASES)
def test_closed_forms(likelihood):
    labels, uniform, each = CASES[likelihood]
    m = ll.measure(net(), (X, labels), likelihood, progress=False)
    c, nll = m.criteria, m.length.fit
    assert c.keys() == NAMES
    assert m.parameters == 27
    assert c["aic"] == pytest.approx(nll + 27)
    assert c["bic"] == pytest.approx(nll + 13.5 * math.log(12))
    assert c["bic_dimension"] == pytest.approx(nll + 0.5 * int(m.dimension) * math.log(12))
    assert int(m.dimension) < 27
    for name, value in (("uniform", uniform), ("label_entropy", each)):
        if value is None:
            assert c[name] is None
        else:
            assert c[name] == pytest.approx(12 * value, rel=1e-12)
    F = ll.fisher(net(), (X, labels), likelihood)
    found = ll.lengths.criteria(F)
    assert found.keys() == NAMES | {"tic", "tic_ggn"}
    assert {name: found[name] for name in NAMES} == c


@pytest.mark.parametrize("likelihood", CASES)
def test_without_labels(likelihood):
    c = ll.measure(net(), (X,), likelihood, progress=False).criteria
    uniform = CASES[likelihood][1]
    assert c.keys() == NAMES
    assert c["uniform"] == (None if uniform is None else pytest.approx(12 * uniform))
    assert all(value is None for name, value in c.items() if name != "uniform")


def test_ignored_labels_count_nowhere():
    labels = CLASSES.clone()
    labels[[0, 4, 11]] = -100
    m = ll.measure(net(), (X, labels), "categorical", progress=False)
    assert m.observations == 9
    assert m.criteria["uniform"] == pytest.approx(9 * math.log(3))
    assert m.criteria["label_entropy"] == pytest.approx(9 * entropy(3 / 9, 2 / 9, 4 / 9))
    assert m.criteria["bic"] == pytest.approx(m.length.fit + 13.5 * math.log(9))
    kept = labels >= 0
    same = ll.measure(net(), (X[kept], labels[kept]), "categorical", progress=False)
    assert m.criteria == pytest.approx(same.criteria, rel=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
def test_label_entropy_of_extremes(classes):
    labels = torch.arange(12) % classes
    m = ll.measure(net(), (X, labels), "categorical", progress=False)
    assert m.criteria["label_entropy"] == pytest.approx(12 * math.log(classes), abs=1e-12)
    assert m.criteria["label_entropy"] <= m.criteria["uniform"] * (1 + 1e-12)
