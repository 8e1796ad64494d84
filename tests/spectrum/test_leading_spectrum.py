"""The largest eigenvalues of networks, by products alone."""

import pytest
import torch

import lightlike as ll
from lightlike.errors import ChoiceError, UndefinedError
from oracles.matrices import planted


def layers(name):
    if name == "mlp":
        return torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Tanh(), torch.nn.Linear(12, 4))
    if name == "cnn":
        return torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 2, 3)), torch.nn.Conv2d(1, 4, 2), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(8, 4),
        )  # fmt: skip
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 6)),
        torch.nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    )


@pytest.fixture(scope="module", params=["mlp", "cnn", "attention"], name="network")
def made(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = layers(request.param).eval()
        x = torch.randn(40, 6)
    return ll.fisher(model, (x, torch.arange(40) % 4), "categorical"), model, x


@pytest.fixture(scope="module", name="F")
def matrix(network):
    return network[0]


def test_against_all_eigenvalues(F):
    exact = ll.spectrum(F).eigenvalues
    s = ll.spectrum(F, "lanczos", count=6)
    assert (len(s), s.kind, s.method, s.whole) == (6, "certified", "lanczos", False)
    assert s.shape == F.root.shape
    assert ((s.eigenvalues - exact[:6]).abs() <= s.errors).all()
    assert float(s.errors.max()) <= 1.1e-7 * s.largest
    assert float(exact[6]) <= s.floor
    between = float(exact[2] + exact[3]) / 2
    assert s.above(between) == 3
    assert ll.dimension(F, "lanczos", above=between).kind == "exact"
    rank = ll.dimension(F, "lanczos")
    assert (rank.lower, rank.upper, rank.kind) == (20, min(F.root.shape), "certified")
    with pytest.raises(UndefinedError, match="trace takes more than the 6 largest"):
        _ = s.trace


def test_of_a_root(F):
    exact = ll.spectrum(F).eigenvalues
    s = ll.spectrum(F.root, "lanczos", count=3)
    assert ((s.eigenvalues - exact[:3]).abs() <= s.errors).all()


def test_more_than_there_are():
    values = [4.0, 2.0, 1.0, 0.5]
    s = ll.spectrum(planted(values), "lanczos", count=9)
    assert s.whole
    assert s.eigenvalues.tolist() == pytest.approx(values)
    assert s.trace == pytest.approx(7.5)
    assert s.logdet(1.0) == pytest.approx(sum(torch.tensor(values).log1p().tolist()))


def test_the_trace_of_a_matrix_is_known():
    s = ll.spectrum(planted([0.5**i for i in range(40)]), "lanczos", count=3)
    assert s.trace == pytest.approx(2.0)
    with pytest.raises(UndefinedError):
        s.stable_rank()


def test_choices():
    full = planted([3.0, 2.0, 1.0])
    with pytest.raises(ChoiceError, match="lanczos"):
        ll.spectrum(full, count=3)
    with pytest.raises(ChoiceError, match="lanczos"):
        ll.spectrum(full, "metric", tolerance=1e-3)
    with pytest.raises(ChoiceError, match="count=0"):
        ll.spectrum(full, "lanczos", count=0)
    with pytest.raises(ChoiceError, match="lanczos"):
        ll.spectrum(full, "gram")


def test_in_float32(network):
    F, model, x = network
    rounded = ll.fisher(model, (x,), "categorical", dtype="float32")
    exact = ll.spectrum(F).eigenvalues[:5]
    s = ll.spectrum(rounded, "lanczos", count=5)
    errors = (s.eigenvalues - exact).abs()
    assert (errors <= s.errors).all()
    assert float(s.errors.max()) < 1e-4 * s.largest
    assert s.precision > 1e-8
    assert "products themselves" in s.reason
