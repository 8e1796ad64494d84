import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, ModelError, UndefinedError
from lightlike.length import volume


class Constant(nn.Module):
    """The same outputs for every observation."""

    def __init__(self, value, through=lambda t: t):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.through = through

    def forward(self, x):
        return self.through(self.t).expand(len(x), len(self.t))


class Tanh(nn.Module):
    """f(x) = (b − shift) tanh(a x)."""

    def __init__(self, a, b, shift=0.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(b, dtype=torch.float64))
        self.shift = shift

    def forward(self, x):
        return (self.b - self.shift) * torch.tanh(self.a * x)


class Exponential(ll.Likelihood):
    """Waiting times of mean e^h, whose metric in h is 1."""

    name = "exponential"

    def nll(self, outputs, targets):
        targets = targets.reshape(outputs.shape)
        return (outputs + targets * (-outputs).exp()).sum(-1)

    def root(self, outputs):
        return torch.diag_embed(torch.ones_like(outputs))

    def sample(self, outputs, generator=None):
        return torch.empty_like(outputs).exponential_(generator=generator) * outputs.exp()


def constant(value, y, likelihood, **options):
    y = torch.as_tensor(y, dtype=torch.float64).reshape(len(y), -1)
    return ll.fisher(Constant(value, **options), (torch.zeros(len(y), 1), y), likelihood)


COINS = [1.0] * 6 + [0.0] * 14
COUNTS = [3.0, 2, 4, 1, 0, 5, 2, 2, 3, 3]


def test_bernoulli():
    F = constant([math.log(6 / 14)], COINS, "bernoulli")
    L = ll.lengths.rissanen(F, bounds=(-4, 4))
    closed = 4 * math.atan(math.tanh(1.0))  # π for the whole line
    assert L.record["log_volume"] == pytest.approx(math.log(closed), abs=1e-9)
    assert L.fit == pytest.approx(12.2172860411, abs=1e-10)
    expected = 13.94094353052 + math.log(closed / math.pi)
    assert L.total == pytest.approx(expected, abs=1e-9)
    assert (L.kind, L.stderr, L.observations) == ("exact", 0.0, 20)
    given = ll.lengths.rissanen(F, volume=math.pi)
    assert given.total == pytest.approx(13.94094353052, abs=1e-10)
    assert given.to("bits").per_observation().total == pytest.approx(
        given.total / 20 / math.log(2), rel=1e-14
    )
    # The Jeffreys mixture it approximates, and NML.
    assert given.total == pytest.approx(13.95501844506, abs=0.02)
    assert given.total < ll.lengths.nml([14, 6]).total


@pytest.mark.slow
def test_the_whole_line_of_a_coin():
    F = constant([math.log(6 / 14)], COINS, "bernoulli")
    L = ll.lengths.rissanen(F, bounds=(-45, 45))
    assert L.record["log_volume"] == pytest.approx(math.log(math.pi), abs=1e-9)


def test_gaussian_location_is_exact():
    y = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    F = constant(y.mean(0).tolist(), y, "gaussian")
    L = ll.lengths.rissanen(F, bounds=(-3, 3))
    assert L.penalty == pytest.approx(2 * 2.02411348252, abs=1e-10)
    exact = ll.lengths.nml_location(y, radius=3.0)
    assert L.total == pytest.approx(exact.total, rel=1e-12)


def test_exponential():
    y = [1.0, 7.0, 2.0, 3.5, 0.5, 4.0, 2.5, 6.0, 1.5, 2.0]
    F = constant([math.log(3.0)], y, Exponential())
    L = ll.lengths.rissanen(F, bounds=(0.0, math.log(10)))
    assert L.penalty == pytest.approx(1.06638645854, abs=1e-11)
    assert L.penalty == pytest.approx(1.05805589511, abs=0.01)  # exact NML


def test_poisson_in_two_parametrisations():
    rate = sum(COUNTS) / 10
    low, high = 0.5, 5.0
    closed = 0.5 * math.log(10 / (2 * math.pi)) + math.log(2 * (high**0.5 - low**0.5))
    by_log = constant([math.log(rate)], COUNTS, "poisson")
    by_mean = constant([rate], COUNTS, "poisson", through=torch.log)
    for F, bounds in ((by_log, (math.log(low), math.log(high))), (by_mean, (low, high))):
        L = ll.lengths.rissanen(F, bounds=bounds)
        assert L.penalty == pytest.approx(closed, abs=1e-9)
        assert L.record["log_det_ratio"] == pytest.approx(0.0, abs=1e-12)
    # The whole interval down to a mean of 0 less what is left out.
    assert closed == pytest.approx(1.73022015007 + math.log(1 - (low / high) ** 0.5), abs=1e-10)


X = np.linspace(-2, 2, 15)
NOISE = 0.1 * np.cos(7 * np.arange(15))
Y = 0.9 * np.tanh(1.3 * X) + NOISE


def parts(a, b):
    """Residuals, gradients (15, 2) and second derivatives (15, 2, 2) of b tanh(a x)."""
    t = np.tanh(a * X)
    s = 1 - t**2
    first = np.stack([b * X * s, t], 1)
    second = np.stack([np.stack([-2 * b * X**2 * t * s, X * s], 1), np.stack([X * s, 0 * X], 1)], 1)
    return Y - b * t, first, second


@pytest.fixture(scope="module")
def fitted():
    found = optimize.least_squares(lambda p: parts(*p)[0], [1.3, 0.9], xtol=1e-15, gtol=1e-15)
    a, b = found.x
    for _ in range(3):  # Newton steps to the last bit
        r, first, second = parts(a, b)
        hessian = first.T @ first - np.einsum("n,nij->ij", r, second)
        step = np.linalg.solve(hessian, first.T @ r)
        a, b = a + step[0], b + step[1]
    return a, b


def tanh(a, b, **options):
    data = torch.from_numpy(X)[:, None], torch.from_numpy(Y)[:, None]
    return ll.fisher(Tanh(a, b, **options), data, "gaussian")


def test_against_naive_quadrature(fitted):
    """With residuals, the observed and the expected information differ."""
    a, b = fitted
    r, first, second = parts(a, b)
    expected = first.T @ first / 15
    observed = expected - np.einsum("n,nij->ij", r, second) / 15

    def density(v, u):
        J = parts(u, v)[1]
        return math.sqrt(np.linalg.det(J.T @ J / 15))

    integral, _ = integrate.dblquad(density, 0.5, 2.0, 0.1, 2.0, epsrel=1e-7)
    nll = 0.5 * float(r @ r) + 7.5 * math.log(2 * math.pi)
    ratio = math.log(np.linalg.det(observed) / np.linalg.det(expected))
    assert abs(ratio) > 1e-3
    total = nll + math.log(15 / (2 * math.pi)) + math.log(integral) + 0.5 * ratio
    bounds = {"a": (0.5, 2.0), "b": (0.1, 2.0)}
    L = ll.lengths.rissanen(tanh(a, b), bounds=bounds, tolerance=1e-6)
    assert L.total == pytest.approx(total, abs=1e-6)
    assert L.record["log_det_ratio"] == pytest.approx(ratio, abs=1e-9)
    sampled = ll.lengths.rissanen(
        tanh(a, b), bounds=bounds, method="monte_carlo", draws=200, seed=1
    )
    assert sampled.kind == "estimated"
    assert abs(sampled.total - total) < 4 * sampled.stderr
    assert 0 < sampled.stderr < 0.1


@pytest.mark.parametrize("shift", [0.0, 0.31415])
def test_singular_inside_the_region(fitted, shift):
    """At b = shift the slope a changes nothing, wherever that lies in the box."""
    a, b = fitted
    F = tanh(a, b + shift, shift=shift)
    for method in ("quadrature", "monte_carlo"):
        with pytest.raises(UndefinedError, match="singular at θ"):
            ll.lengths.rissanen(F, bounds=[(0.5, 2.0), (-0.4, 2.0)], method=method, draws=50)


class Product(nn.Module):
    """y = a b x: one number too many."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(v).double()) for v in (1.5, 0.8))

    def forward(self, x):
        return self.a * self.b * x


def test_singular_everywhere():
    x = torch.linspace(-1, 1, 12).double()[:, None]
    F = ll.fisher(Product(), (x, 1.2 * x), "gaussian")
    with pytest.raises(UndefinedError, match="singular"):
        ll.lengths.rissanen(F, bounds=(0.1, 2.0))
    logits = ll.fisher(
        Constant([0.0, 0.0]), (torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])), "categorical"
    )
    with pytest.raises(UndefinedError, match="singular"):
        ll.lengths.rissanen(logits, bounds=(-1, 1))


def test_fewer_rows_than_parameters():
    F = ll.fisher(nn.Linear(5, 1).double(), (torch.randn(3, 5), torch.randn(3, 1)), "gaussian")
    with pytest.raises(UndefinedError, match="rank 3 at most"):
        ll.lengths.rissanen(F, bounds=(-1, 1))


def test_too_many_parameters():
    F = ll.fisher(nn.Linear(69, 1), (torch.randn(80, 69), torch.randn(80, 1)), "gaussian")
    with pytest.raises(CapacityError, match="70 parameters"):
        ll.lengths.rissanen(F, bounds=(-1, 1))


@pytest.mark.parametrize(
    ("bounds", "error", "match"),
    [
        ((-math.inf, 0.0), UndefinedError, "unbounded"),
        ((1.0, 1.0), UndefinedError, "no volume"),
        ((2.0, 1.0), UndefinedError, "no volume"),
        ((0.0, 5.0), UndefinedError, "not inside"),
        ([(0.0, 1.0), (0.0, 1.0)], ChoiceError, "bounds"),
        (None, ChoiceError, "bounds"),
    ],
)
def test_bounds_that_are_none(bounds, error, match):
    F = constant([math.log(6 / 14)], COINS, "bernoulli")
    with pytest.raises(error, match=match):
        ll.lengths.rissanen(F, bounds=bounds)


def test_other_mistakes():
    F = constant([math.log(6 / 14)], COINS, "bernoulli")
    for options in (
        {"method": "guess"}, {"draws": 1}, {"tolerance": 0.0}, {"tolerance": 2.0}, {"volume": 1.0}
    ):  # fmt: skip
        with pytest.raises(ChoiceError):
            ll.lengths.rissanen(F, bounds=(-3, 3), **options)
    for size in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UndefinedError, match="volume"):
            ll.lengths.rissanen(F, volume=size)
    with pytest.raises(UndefinedError, match="needs labels"):
        ll.lengths.rissanen(
            ll.fisher(Constant([0.0]), (torch.zeros(3, 1),), "bernoulli"), bounds=(-1, 1)
        )


def test_the_point_must_be_an_optimum():
    with pytest.raises(UndefinedError, match="nats above the minimum"):
        ll.lengths.rissanen(constant([0.0], COINS, "bernoulli"), bounds=(-3, 3))


def test_a_saddle_is_no_optimum():
    F = constant([0.01], [2.0] * 5, "gaussian", through=lambda t: 0.5 * t**2)
    with pytest.raises(UndefinedError, match="Hessian of the loss has the eigenvalue"):
        ll.lengths.rissanen(F, bounds=(0.005, 1.0))


def one_hot(seed=0):
    """Four independent Poisson rates, at their maximum-likelihood values."""
    groups = torch.arange(40) % 4
    y = torch.poisson(
        torch.tensor([1.0, 2.0, 3.0, 4.0])[groups], generator=torch.Generator().manual_seed(seed)
    ).double()
    model = nn.Linear(4, 1, bias=False).double()
    means = torch.stack([y[groups == k].mean() for k in range(4)])
    with torch.no_grad():
        model.weight.copy_(means.log()[None])
    return ll.fisher(model, (nn.functional.one_hot(groups, 4).double(), y[:, None]), "poisson")


def test_monte_carlo_covers():
    """In 4 dimensions, against a closed form, over seeds."""
    F = one_hot()
    side = 2 * (math.exp(1.0) - math.exp(-0.5))  # ∫ e^{t/2} dt from −1 to 2
    closed = 4 * math.log(side * 0.5)
    z = []
    for seed in range(5):
        L = ll.lengths.rissanen(F, bounds=(-1.0, 2.0), draws=80, seed=seed)
        assert L.record["route"] == "monte_carlo"
        z.append((L.record["log_volume"] - closed) / L.stderr)
    assert 0.4 < np.sqrt(np.mean(np.square(z))) < 1.6
    assert np.abs(z).max() < 4
    again = ll.lengths.rissanen(F, bounds=(-1.0, 2.0), draws=80, seed=4)
    assert again.total == L.total


def test_draws_that_do_not_tell():
    with pytest.raises(UndefinedError, match="draws know its mean"):
        ll.lengths.rissanen(one_hot(), bounds=(-10.0, 10.0), draws=20)


def test_quadrature_that_does_not_converge(monkeypatch):
    monkeypatch.setattr(volume, "MOST_POINTS", 100)
    with pytest.raises(CapacityError, match="did not converge"):
        ll.lengths.rissanen(
            constant([math.log(6 / 14)], COINS, "bernoulli"), bounds=(-45, 45), tolerance=1e-12
        )
    with pytest.raises(CapacityError, match="4 dimensions"):
        ll.lengths.rissanen(one_hot(), bounds=(-1.0, 2.0), method="quadrature")


class Once(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_, g):
        return g.clone()


def test_a_model_that_is_differentiable_once_only():
    F = constant([math.log(6 / 14)], COINS, "bernoulli", through=Once.apply)
    with pytest.raises(ModelError):
        ll.lengths.rissanen(F, bounds=(-3, 3))


def test_everything_is_left_as_it_was(untouched):
    model = Constant([math.log(6 / 14)])
    y = torch.tensor(COINS)[:, None]
    with untouched(model, y):
        ll.lengths.rissanen(
            ll.fisher(model, (torch.zeros(20, 1), y), "bernoulli"), bounds=(-3, 3),
            method="monte_carlo", draws=20,
        )  # fmt: skip
