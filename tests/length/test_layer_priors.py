"""One variance a layer: rules, and variances by the evidence."""

import math

import numpy as np
import pytest
import torch
from linear_evidence import Regression
from scipy.optimize import minimize, minimize_scalar
from torch import nn

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, PriorError
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.layer_evidence import LayerEvidence, layers_of
from lightlike.length.priors import Isotropic, PerLayer, PerParameter
from oracles.networks import Call, fill, mlp, normal

NOISE = 0.3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.head(torch.tanh(self.body(x))) * self.gain


@pytest.fixture(scope="module", name="F")
def fisher():
    x = normal(20, 3)
    return ll.fisher(Net(), (x, (x[:, 0] > 0).long()), "categorical")


RULES = {
    "layers": {"body.0": 0.1, "body.2": 0.2, "head": 0.3, "": 0.4},
    "expressions": {r"^body\.0": 0.1, r"body": 0.2, "head.*": 0.3, ".*": 0.4},
    "a name before its layer": {"body.0": 0.1, "body.2": 0.2, "head": 0.3, "gain": 0.4},
    "numpy": {"body.0": np.float64(0.1), "body.2": 0.2, "head": np.float32(0.3), "": 0.4},
}


@pytest.mark.parametrize("case", RULES)
def test_rules(F, case):
    found = PerLayer(RULES[case], mean=0.5).resolve(F.problem)
    expected = {"body.0": 0.1, "body.2": 0.2, "head": 0.3, "gain": 0.4}
    for name, part in F.problem.selection.split(found.variance).items():
        value = next(v for key, v in expected.items() if name.startswith(key))
        assert part.flatten().tolist() == pytest.approx([value] * part.numel(), rel=1e-7), name
    assert (found.mean == 0.5).all()
    assert found.description["name"] == "per_layer"
    assert not PerLayer(RULES[case]).by_evidence


def test_names_go_before_layers_and_layers_before_expressions(F):
    prior = PerLayer({".*": 1.0, "body.0": 2.0, "body.0.bias": 3.0, "body": 4.0})
    with pytest.raises(PriorError, match="'body' gives no parameter its variance"):
        prior.resolve(F.problem)
    found = PerLayer({".*": 1.0, "body.0": 2.0, "body.0.bias": 3.0}).resolve(F.problem)
    parts = {n: float(p.mean()) for n, p in F.problem.selection.split(found.variance).items()}
    assert parts == {
        "gain": 1.0, "body.0.weight": 2.0, "body.0.bias": 3.0, "body.2.weight": 1.0,
        "body.2.bias": 1.0, "head.weight": 1.0, "head.bias": 1.0,
    }  # fmt: skip


BAD = {
    "missing": ({"body": 1.0}, "no variance for parameter 'gain'"),
    "unused": ({".*": 1.0, "tail": 1.0}, "'tail' gives no parameter"),
    "expression": ({"(": 1.0, ".*": 1.0}, "neither a layer nor a regular expression"),
    "not a text": ({3: 1.0, ".*": 1.0}, "neither a layer nor a regular expression"),
    "negative": ({".*": -1.0}, "the variance -1.0"),
    "infinite": ({".*": math.inf}, "the variance inf"),
    "nan": ({".*": math.nan}, "the variance nan"),
    "none": ({".*": None}, "the variance None"),
    "fitted": ({".*": "fitted"}, "the variance 'fitted'"),
    "all zero": ({".*": 0.0}, "All prior variances are zero"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rules(F, case):
    rules, message = BAD[case]
    with pytest.raises(PriorError, match=message):
        PerLayer(rules).resolve(F.problem)


@pytest.mark.parametrize("variance", ["fitted", 1.0, None])
def test_unknown_choices(variance):
    with pytest.raises(ChoiceError, match="a mapping from layers"):
        PerLayer(variance)


def test_the_same_as_each_parameter_on_its_own(F):
    rules = {"body.0": 0.1, "body.2": 2.0, "head": 0.0, "gain": 0.4}
    length = ll.description_length(F, prior=PerLayer(rules))
    vector = PerLayer(rules).resolve(F.problem).variance
    same = ll.description_length(F, prior=PerParameter(vector))
    assert length.total == same.total
    assert length.tuning_cost == 0


class Blocks:
    """y = X_1 θ_1 + X_2 θ_2 + noise, θ_l ~ N(0, σ_l²), and its exact evidence."""

    def __init__(self, sizes=(6, 5), N=40, seed=1, variances=(4.0, 0.3)):
        g = np.random.default_rng(seed)
        self.X = [g.standard_normal((N, d)) for d in sizes]
        thetas = [s**0.5 * g.standard_normal(d) for s, d in zip(variances, sizes, strict=True)]
        y = sum(X @ t for X, t in zip(self.X, thetas, strict=True))
        self.sizes, self.Y = sizes, y + NOISE**0.5 * g.standard_normal(N)
        self.r = Regression(np.concatenate(self.X, 1), self.Y, NOISE)

    def spread(self, variances):
        return np.repeat(variances, self.sizes)

    def evidence(self, variances, mean=0.0):
        return self.r.evidence(self.spread(variances), mean)

    def best(self):
        found = minimize(
            lambda t: self.evidence(np.exp(t)), [0.0, 0.0], method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000},
        )  # fmt: skip
        return np.exp(found.x), found.fun

    def fisher(self, theta):
        parts = np.split(theta, np.cumsum(self.sizes)[:-1])
        layers = [nn.Linear(d, 1, bias=False).double() for d in self.sizes]
        for layer, part in zip(layers, parts, strict=True):
            layer.weight.data = torch.as_tensor(part)[None]
        edges = np.cumsum([0, *self.sizes])

        def forward(self, x):
            named = (self.a, self.b)
            return sum(f(x[:, edges[i] : edges[i + 1]]) for i, f in enumerate(named))

        model = Call(forward, a=layers[0], b=layers[1])
        return ll.fisher(model, self.r.data, ll.likelihoods.Gaussian(NOISE))


@pytest.mark.parametrize("method", ["gram", "metric"])
@pytest.mark.parametrize("shape", [((6, 5), 40), ((30, 25), 20)], ids=["D<K", "D>K"])
def test_fitted_variances_minimise_the_exact_evidence(shape, method):
    blocks = Blocks(*shape)
    variances, minimum = blocks.best()
    for theta in (np.zeros(sum(blocks.sizes)), np.full(sum(blocks.sizes), 3.0)):
        F = blocks.fisher(theta)
        args = F.decomposition(method), expand(F.problem)
        length = gaussian_razor(F.problem, PerLayer("evidence"), *args)
        assert list(length.prior["variance"]) == ["a", "b"]
        assert list(length.prior["variance"].values()) == pytest.approx(variances, rel=1e-5)
        assert length.total == pytest.approx(minimum, rel=1e-9)
        assert length.tuning_cost == pytest.approx(math.log(len(blocks.Y)))
        assert length.prior["fitted_by"] == "evidence"
        # MacKay's fixed point, written out.
        spread = blocks.spread(list(length.prior["variance"].values()))
        P = blocks.r.X.T @ blocks.r.X / NOISE + np.diag(1 / spread)
        mean = blocks.r.posterior_mean(spread)
        determined = 1 - np.diag(np.linalg.inv(P)) / spread
        for part in np.split(np.arange(len(mean)), [blocks.sizes[0]]):
            fixed = mean[part] @ mean[part] / determined[part].sum()
            assert fixed == pytest.approx(spread[part[0]], rel=1e-5)


@pytest.mark.parametrize("method", ["gram", "metric"])
def test_some_given_and_some_fitted(method):
    blocks = Blocks()
    F = blocks.fisher(np.ones(11))
    args = F.decomposition(method), expand(F.problem)
    length = gaussian_razor(F.problem, PerLayer({"a": 0.3, "b": "evidence"}), *args)
    best = minimize_scalar(
        lambda t: blocks.evidence([0.3, math.exp(t)]),
        bounds=(-8, 3), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert length.prior["variance"] == {"a": 0.3, "b": pytest.approx(math.exp(best.x), rel=1e-5)}
    assert length.total == pytest.approx(best.fun, rel=1e-9)
    assert length.tuning_cost == pytest.approx(0.5 * math.log(40))


def test_the_gradient_is_that_of_finite_differences_and_vanishes_at_the_optimum(F):
    problem, decomposition, expansion = F.problem, F.decomposition(), expand(F.problem)
    prior = PerLayer({"gain": 0.5, "body.0.bias": 0.0, ".*": "evidence"}, mean=Net().state_dict())
    resolved, groups = prior.resolve(problem), prior.groups(problem.selection)
    assert list(groups) == ["body.0", "body.2", "head"]
    evidence = LayerEvidence(
        layers_of(problem, resolved, groups, decomposition, expansion.gradient)
    )
    g = np.random.default_rng(0)
    for t in (np.zeros(3), g.standard_normal(3)):
        point, step = evidence(t), 1e-5
        slopes = [
            (evidence(t + step * e).value - evidence(t - step * e).value) / (2 * step)
            for e in np.eye(3)
        ]
        assert 0.5 * (point.gamma - point.moved) == pytest.approx(slopes, rel=1e-6, abs=1e-8)

        def total(t):
            names = dict(zip(groups, np.exp(t).tolist(), strict=True))
            rules = {"gain": 0.5, "body.0.bias": 0.0} | names
            return ll.description_length(F, prior=PerLayer(rules, prior.mean)).total

        # The same function as the razor itself, up to a constant.
        differences = [evidence(t + e).value - point.value for e in np.eye(3)]
        assert differences == pytest.approx([total(t + e) - total(t) for e in np.eye(3)], abs=1e-9)
    blocks = Blocks()
    G = blocks.fisher(np.ones(11))
    fitted = ll.description_length(G, prior=PerLayer("evidence"))
    t = np.log(list(fitted.prior["variance"].values()))
    for e in np.eye(2):
        up, down = (blocks.evidence(np.exp(t + s * e)) for s in (1e-3, -1e-3))
        assert abs(up - down) / 2e-3 < 1e-4
        assert min(up, down) > fitted.total


def test_never_longer_than_with_one_variance_for_all():
    x = normal(60, 3, seed=3)
    model = fill(mlp([3, 5, 2], "tanh"), 1)
    mean = {
        k: v + (0.3 if "0" in k else 1.0) * normal(*v.shape, seed=4)
        for k, v in model.state_dict().items()
    }
    p = torch.softmax(model.double()(x), -1)
    y = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    F = ll.fisher(model, (x, y), "categorical")
    one = ll.description_length(F, prior=Isotropic("evidence", mean))
    each = ll.description_length(F, prior=PerLayer("evidence", mean))
    assert each.total < one.total
    given = PerLayer(each.prior["variance"], mean)
    assert ll.description_length(F, prior=given).total == pytest.approx(each.total, rel=1e-10)


def test_what_cannot_be_fitted(F, monkeypatch):
    x = normal(9, 3)
    bare = ll.fisher(Net(), (x,), "categorical")
    with pytest.raises(PriorError, match="needs labels"):
        ll.description_length(bare, prior=PerLayer("evidence"))
    idle = Call(lambda self, x: self.used(x), used=nn.Linear(3, 2), idle=nn.Linear(3, 2))
    labels = torch.arange(9) % 2
    with pytest.raises(PriorError, match="No output depends on layer 'idle'"):
        ll.description_length(
            ll.fisher(idle, (x, labels), "categorical"),
            prior=PerLayer("evidence", mean={k: v + 1 for k, v in idle.state_dict().items()}),
        )
    single = ll.fisher(Net(), (x, labels), "categorical", dtype="float32")
    with pytest.raises(PriorError, match="in float64 only"):
        ll.description_length(single, prior=PerLayer("evidence"))
    with pytest.raises(PriorError, match="not fitted to sketches"):
        ll.measure(
            Net(), (x, x[:, :2]), "gaussian", prior=PerLayer("evidence"), progress=False,
            method=ll.Sketch(draws=1, repetitions=2),
        )  # fmt: skip
    decomposition = F.decomposition()
    monkeypatch.setattr(decomposition, "budget", 1e3)
    with pytest.raises(CapacityError, match="Gram matrices of 4 layers, 20 × 20 each"):
        ll.description_length(F, prior=PerLayer("evidence"))


def test_measured_saved_and_printed(tmp_path):
    blocks = Blocks()
    F = blocks.fisher(np.ones(11))
    m = ll.measure(
        F.problem.evaluator.model, blocks.r.data, ll.likelihoods.Gaussian(NOISE),
        prior=PerLayer("evidence"), progress=False, out=tmp_path / "m.safetensors",
    )  # fmt: skip
    assert "per_layer prior" in str(m)
    again = ll.load(tmp_path / "m.safetensors")
    assert again.length.prior == m.length.prior
    assert again.to_dict() == m.to_dict()


def test_one_gram_matrix_a_layer_and_no_more_sweeps(monkeypatch):
    calls = []
    gram = ll.Root.gram
    monkeypatch.setattr(
        ll.Root, "gram", lambda self, budget=None: calls.append(self.layer) or gram(self, budget)
    )
    count = 0

    def counted(self, t, call=LayerEvidence.__call__):
        nonlocal count
        count += 1
        return call(self, t)

    monkeypatch.setattr(LayerEvidence, "__call__", counted)
    blocks = Blocks((30, 25), 20)
    ll.description_length(blocks.fisher(np.ones(55)), prior=PerLayer("evidence"))
    # The whole one, one of each layer, and that of the length under the fitted prior.
    assert sorted(map(str, calls)) == ["None", "None", "a", "b"]
    assert count > 3
