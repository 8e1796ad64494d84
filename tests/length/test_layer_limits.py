"""Layers whose evidence is largest at a limit: believed where the network bears it out."""

import math

import numpy as np
import pytest
import torch
from linear_evidence import Regression
from scipy.optimize import minimize, minimize_scalar
from torch import nn

import lightlike as ll
from lightlike.demos import load_digits, train_mlp
from lightlike.errors import PriorError
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.layer_descent import lowest
from lightlike.length.layer_evidence import LayerEvidence, Layers, ModeEvidence
from lightlike.length.priors import PerLayer
from oracles.networks import Call

NOISE = 0.3


class Blocks:
    """y = X_1 θ_1 + X_2 θ_2 + noise with labels that the first block alone has made."""

    def __init__(self, sizes=(6, 5), N=40, seed=7):
        g = np.random.default_rng(seed)
        self.sizes = sizes
        X = [g.standard_normal((N, d)) for d in sizes]
        Y = X[0] @ (2.0 * g.standard_normal(sizes[0])) + NOISE**0.5 * g.standard_normal(N)
        self.r = Regression(np.concatenate(X, 1), Y, NOISE)

    def evidence(self, variances):
        """−log p exactly; a variance of 0 leaves a block out."""
        return self.r.evidence(np.repeat(np.maximum(variances, 1e-300), self.sizes), 0.0)

    def fisher(self, theta):
        edges = np.cumsum([0, *self.sizes])
        layers = [nn.Linear(d, 1, bias=False).double() for d in self.sizes]
        for layer, part in zip(layers, np.split(theta, edges[1:-1]), strict=True):
            layer.weight.data = torch.as_tensor(part)[None]

        def forward(self, x):
            return self.a(x[:, : edges[1]]) + self.b(x[:, edges[1] :])

        model = Call(forward, a=layers[0], b=layers[1])
        return ll.fisher(model, self.r.data, ll.likelihoods.Gaussian(NOISE))


@pytest.mark.parametrize("method", ["gram", "metric"])
@pytest.mark.parametrize("theta", [0.0, 2.0])
def test_a_limit_of_0_in_a_linear_model(theta, method):
    """The exact evidence is that of the first block alone, wherever θ̂ is."""
    blocks = Blocks()
    best = minimize_scalar(
        lambda t: blocks.evidence([math.exp(t), 0.0]),
        bounds=(-8, 6), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert blocks.evidence([math.exp(best.x), 1e-3]) > best.fun
    F = blocks.fisher(np.full(11, theta))
    args = F.decomposition(method), expand(F.problem)
    found = gaussian_razor(F.problem, PerLayer("evidence"), *args)
    assert found.prior["variance"] == {"a": pytest.approx(math.exp(best.x), rel=1e-4), "b": 0.0}
    assert found.prior["limits"] == {"b": 0.0}
    assert found.prior["fitted_by"] == "evidence"
    assert found.total == pytest.approx(best.fun, rel=1e-9)
    assert found.tuning_cost == pytest.approx(math.log(40))


def test_the_limit_is_told_and_can_be_given():
    F = Blocks().fisher(np.full(11, 2.0))
    found = ll.description_length(F, prior=PerLayer("evidence"))
    assert "largest with layer 'b' held at the prior mean: variance 0" in found.validity
    again = ll.description_length(F, prior=PerLayer(found.prior["variance"]))
    assert again.total == pytest.approx(found.total, rel=1e-12)
    assert "limits" not in again.prior
    row = ll.lengths.table(F, prior=PerLayer("evidence"), include=["gaussian"])["gaussian"]
    assert "held at the prior mean" in row.note


def fitted_network(seed=0):
    """A small tanh network trained on labels of a teacher."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 4, generator=g, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0.3).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)
        )
    model = model.double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval(), x, y


def test_a_network_that_does_not_bear_out_the_limit(untouched):
    """Laplace's evidence at θ̂ in its place, against a naive minimisation of it."""
    model, x, y = fitted_network()
    with untouched(model, x, y):
        F = ll.fisher(model, (x, y), "categorical")
        found = ll.description_length(F, prior=PerLayer("evidence"))
    assert found.prior["fitted_by"] == "laplace"
    assert found.prior["limits"]
    assert "which the network itself does not bear out" in found.validity
    names = ["0", "2", "4"]
    theta, H = F.problem.theta.numpy(), 60 * F.dense().numpy()
    parts = [p.numel() for p in model.parameters()]
    sizes = [parts[0] + parts[1], parts[2] + parts[3], parts[4] + parts[5]]
    squares = [float(p @ p) for p in np.split(theta, np.cumsum(sizes)[:-1])]

    def naive(t):
        spread = np.repeat(np.exp(0.5 * t), sizes)
        M = np.eye(len(theta)) + spread[:, None] * H * spread
        return 0.5 * float(np.array(squares) @ np.exp(-t)) + 0.5 * np.linalg.slogdet(M)[1]

    best = minimize(
        naive, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10}
    )
    variances = [found.prior["variance"][name] for name in names]
    assert variances == pytest.approx(np.exp(best.x), rel=1e-4)
    assert found.total == pytest.approx(
        ll.description_length(F, prior=PerLayer(dict(zip(names, variances, strict=True)))).total
    )
    m = ll.measure(model, (x, y), "categorical", prior=PerLayer("evidence"), progress=False)
    assert any("does not bear out" in warning for warning in m.warnings)


def test_no_layer_is_worth_a_variance():
    """Labels that no block explains: the error names a layer and the limit."""
    blocks = Blocks()
    g = np.random.default_rng(1)
    blocks.r = Regression(blocks.r.X, 1e-3 * g.standard_normal(40), NOISE)
    for theta in (0.0, 2.0):
        F = blocks.fisher(np.full(11, theta))
        with pytest.raises(PriorError, match=r"no maximum: .* layer 'a' goes to 0"):
            ll.description_length(F, prior=PerLayer("evidence"))


def test_a_variance_that_goes_to_infinity():
    far = Blocks().fisher(np.zeros(11))
    mean = {"a.weight": torch.full((1, 6), -1e9), "b.weight": torch.zeros(1, 5)}
    with pytest.raises(PriorError, match=r"no maximum: .* layer '[ab]' goes to infinity"):
        ll.description_length(far, prior=PerLayer("evidence", mean))


def random_layers(seed, sizes=(3, 4, 2), n=9):
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, d, generator=g, dtype=torch.float64) for d in sizes]
    B = torch.cat(parts, 1)
    c = 2.0 * torch.randn(n, generator=g, dtype=torch.float64)
    return Layers([p @ p.T for p in parts], None, c, lambda y: B.T @ y), sizes


@pytest.mark.parametrize("seed", range(6))
def test_the_descent_ends_where_the_conditions_of_a_minimum_hold(seed):
    """Derivatives vanish at positive variances and are not negative at 0; no neighbour is lower."""
    layers, _ = random_layers(seed)
    razor = LayerEvidence(layers)
    t, point = lowest(razor, np.zeros(3))
    free = t > -math.inf
    assert abs(point.gamma - point.moved)[free] == pytest.approx(0.0, abs=1e-4)
    assert (point.slope[~free] >= 0).all()
    for k in range(3):
        for step in (-0.05, 0.05):
            other = t.copy()
            other[k] = t[k] + step if free[k] else -6.0
            assert razor(other).value >= point.value - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_slopes_and_the_bound(seed):
    """Slopes by finite differences in σ², at 0 too; Laplace's evidence is never below the razor."""
    layers, sizes = random_layers(seed)
    g = np.random.default_rng(seed)
    u = g.standard_normal(sum(sizes))
    squares = np.array([float(p @ p) for p in np.split(u, np.cumsum(sizes)[:-1])])
    # The razor of a point at which the gradient is g = Bᵀe and θ̂ − μ = u.
    e = torch.as_tensor(g.standard_normal(9))
    B = torch.stack([layers.pull(row) for row in torch.eye(9, dtype=torch.float64)])
    c = e - B @ torch.as_tensor(u)
    razor = LayerEvidence(Layers(layers.grams, None, c, layers.pull))
    mode = ModeEvidence(layers, squares)
    for t in (g.standard_normal(3), np.array([-math.inf, 0.3, -1.0])):
        point, h = razor(t), 1e-6
        for k in range(3):
            with np.errstate(divide="ignore"):
                up = np.log(np.exp(t) + h * np.eye(3)[k])
            difference = (razor(up).value - point.value) / h
            assert difference == pytest.approx(point.slope[k], rel=1e-3, abs=1e-3)
        if (t > -math.inf).all():
            assert mode(t).value >= point.value - 0.5 * float(e @ e) - 1e-9
            other = t + 0.7 * g.standard_normal(3)
            middle = mode(0.5 * (t + other)).value
            assert middle <= 0.5 * (mode(t).value + mode(other).value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MLP", "CNN"])
def test_networks_on_digits(kind):
    """MacKay's fixed point at θ̂ by dense matrices: σ_l² = |θ̂_l|²/γ_l, γ_l = n_l − tr_l P⁻¹/σ_l²."""
    pytest.importorskip("sklearn")
    digits = load_digits()
    model = train_mlp(digits) if kind == "MLP" else convolutions(digits)
    x, y = (part[:60] for part in digits.train)
    F = ll.fisher(model, (x, y), "categorical")
    found = ll.description_length(F, prior=PerLayer("evidence"))
    assert found.prior["fitted_by"] == "laplace"
    assert "does not bear out" in found.validity
    theta, H = F.problem.theta, 60 * F.dense()
    spread = PerLayer(found.prior["variance"]).resolve(F.problem).variance
    inverse = torch.linalg.inv(H + torch.diag(1 / spread)).diagonal()
    for entries in F.problem.selection.layers().values():
        here = slice(entries[0].start, entries[-1].stop)
        variance = float(spread[here.start])
        gamma = float((1 - inverse[here] / variance).sum())
        assert float(theta[here].square().sum()) / gamma == pytest.approx(variance, rel=1e-3)


def convolutions(digits):
    """A small CNN, trained for a moment."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10),
        )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    x, y = digits.train
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()
