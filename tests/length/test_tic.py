import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError, ModelError, UndefinedError
from lightlike.length import information, observed
from oracles.reference import whitened


def losses(name, out, y):
    if name == "categorical":
        return nn.functional.cross_entropy(out, y, reduction="none")
    if name == "bernoulli":
        return nn.functional.binary_cross_entropy_with_logits(out, y, reduction="none").sum(1)
    if name == "poisson":
        return (out.exp() - y * out + torch.lgamma(y + 1)).sum(1)
    return 0.5 * ((out - y).square() + np.log(2 * np.pi)).sum(1)


def labels(name, n, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if name == "categorical":
        return torch.randint(width, (n,), generator=generator)
    y = torch.randn(n, width, generator=generator, dtype=torch.float64)
    if name == "bernoulli":
        return (y > 0).double()
    return y.abs().round() if name == "poisson" else y


def network(widths=(2, 3, 2), n=40, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(widths[0], widths[1]), nn.Tanh(), nn.Linear(widths[1], widths[2])
    ).double()
    return model, torch.randn(n, widths[0], dtype=torch.float64)


def taught(name):
    """A small network at a strict minimum: labels drawn from it, then Newton's method."""
    model, x = network((1, 1, 1), 300, seed=4)
    with torch.no_grad():
        for p, value in zip(model.parameters(), (1.5, 0.4, 2.0, 0.3), strict=True):
            p.fill_(value)
    y = LIKELIHOODS[name].sample(model(x).detach(), torch.Generator().manual_seed(1))
    for _ in range(40):
        hessian, gradients, before = naive(model, x, y, name)
        values, vectors = np.linalg.eigh(hessian)
        step = vectors @ (vectors.T @ gradients.mean(0) / np.maximum(np.abs(values), 1e-4))
        theta = nn.utils.parameters_to_vector(model.parameters()).detach()
        for shrink in 0.5 ** np.arange(20):
            moved = theta - shrink * torch.from_numpy(step)
            nn.utils.vector_to_parameters(moved, model.parameters())
            if losses(name, model(x), y).sum().item() <= before:
                break
        if np.abs(gradients.mean(0)).max() < 1e-13:
            break
    return model, x, y


LIKELIHOODS = {
    "gaussian": ll.likelihoods.Gaussian(),
    "bernoulli": ll.likelihoods.Bernoulli(),
    "poisson": ll.likelihoods.Poisson(),
}


def naive(model, x, y, name):
    """Mean Hessian and per-observation gradients by plain automatic differentiation."""
    named = {n: p.detach() for n, p in model.named_parameters()}
    sizes = [p.numel() for p in named.values()]
    theta = torch.cat([p.reshape(-1) for p in named.values()])

    def split(vector):
        parts = zip(named.items(), vector.split(sizes), strict=True)
        return {n: part.view(p.shape) for (n, p), part in parts}

    def total(vector):
        return losses(name, functional_call(model, split(vector), (x,)), y)

    hessian = torch.autograd.functional.hessian(lambda v: total(v).mean(), theta)
    gradients = torch.autograd.functional.jacobian(total, theta)
    return hessian.numpy(), gradients.numpy(), float(total(theta).sum())


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "poisson"])
def test_hessian_and_scores(name):
    model, x, y = taught(name)
    F = ll.fisher(model, [(x[:110], y[:110]), (x[110:], y[110:])], name)
    hessian, gradients, nll = naive(model, x, y, name)
    found = observed.observe(F.problem, "test")
    assert np.abs(found.hessian.numpy() - hessian).max() < 1e-12 * np.abs(hessian).max()
    assert np.linalg.eigvalsh(hessian)[0] > 0
    trace = np.einsum("ni,ij,nj->", gradients, np.linalg.inv(hessian), gradients) / 300
    length = ll.lengths.tic(F)
    assert length.record["curvature"] == "hessian"
    assert length.record["decrement"] < 1e-9
    assert length.fit == pytest.approx(nll, rel=1e-12)
    assert length.penalty == pytest.approx(trace, rel=1e-9)
    # The Fisher matrix in its place is another number.
    assert ll.lengths.tic(F, method="ggn").penalty != pytest.approx(trace, rel=1e-6)


def test_hessian_of_classes():
    """Softmax logits have null directions: shifts of the last layer, which pay nothing."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3).double()
    x, y = torch.randn(50, 3, dtype=torch.float64), labels("categorical", 50, 3)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-12)

    def loss():
        optimiser.zero_grad()
        total = losses("categorical", model(x), y).mean()
        total.backward()
        return total

    optimiser.step(loss)
    hessian, gradients, nll = naive(model, x, y, "categorical")
    trace = (
        gradients @ np.linalg.pinv(hessian, rcond=1e-10, hermitian=True) * gradients
    ).sum() / 50
    F = ll.fisher(model, (x, y), "categorical")
    for method in ("hessian", "ggn"):  # one matrix, as logits are linear in the parameters
        length = ll.lengths.tic(F, method=method)
        assert length.record["rank"] == 8
        assert length.total == pytest.approx(nll + trace, rel=1e-10)
    found = ll.lengths.criteria(F)
    assert found["tic"] == ll.lengths.tic(F, method="hessian").total
    assert found["tic_ggn"] == ll.lengths.tic(F, method="ggn").total
    assert found["aic"] == pytest.approx(nll + 12)


@pytest.mark.parametrize("name", ["categorical", "gaussian", "bernoulli", "poisson"])
@pytest.mark.parametrize(("widths", "n"), [((2, 3, 2), 40), ((4, 9, 3), 7)])
def test_metric_against_pseudo_inverse(name, widths, n):
    """At any point; with more parameters than rows (D > K) and with fewer."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(widths[0], widths[1]), nn.Tanh(), nn.Linear(widths[1], widths[2])
    ).double()
    x, y = torch.randn(n, widths[0], dtype=torch.float64), labels(name, n, widths[2])
    A = whitened(copy.deepcopy(model), [(x, y)], name)
    _, gradients, nll = naive(model, x, y, name)
    trace = (gradients @ np.linalg.pinv(A.T @ A, rcond=1e-11, hermitian=True) * gradients).sum() / n
    length = ll.lengths.tic(ll.fisher(model, (x, y), name), method="ggn")
    assert length.total == pytest.approx(nll + trace, rel=1e-6)
    # By leverages: the projector on the columns of A does not square its condition.
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    U = U[:, s > 1e-12 * s[0]]
    S = gradients @ np.linalg.pinv(A, rcond=1e-12) / np.sqrt(n)
    assert length.penalty == pytest.approx(((S @ U) ** 2).sum(), rel=1e-7)


def test_linear_regression_in_closed_form():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 6)), rng.standard_normal(40)
    H = X @ np.linalg.pinv(X)
    r = Y - H @ Y
    model = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(np.linalg.pinv(X) @ Y)[None])
    data = torch.from_numpy(X), torch.from_numpy(Y)[:, None]
    F = ll.fisher(model, data, ll.likelihoods.Gaussian(0.3))
    for method in ("hessian", "ggn"):
        length = ll.lengths.tic(F, method=method)
        assert length.penalty == pytest.approx((r**2 * np.diag(H)).sum() / 0.3, rel=1e-11)
    low = ll.fisher(model, data, ll.likelihoods.Gaussian(0.3), dtype="float32")
    assert ll.lengths.tic(low).total == pytest.approx(length.total, rel=1e-12)


def test_small_eigenvalues_take_singular_vectors():
    """Columns of A whose eigenvalues lie below 1e-10 of the largest."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 4)) * [1.0, 1.0, 1e-6, 1e-6]
    Y = rng.standard_normal(30)
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    F = ll.fisher(model, (torch.from_numpy(X), torch.from_numpy(Y)[:, None]), "gaussian")
    leverage = np.diag(X @ np.linalg.pinv(X, rcond=1e-13))
    assert ll.lengths.tic(F, method="ggn").penalty == pytest.approx(
        (Y**2 * leverage).sum(), rel=1e-8
    )


def test_ignored_labels_count_nowhere():
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    x, y = torch.randn(20, 2, dtype=torch.float64), labels("categorical", 20, 3)
    y[[0, 5, 19]] = -100
    kept = y >= 0
    a = ll.lengths.tic(ll.fisher(model, (x, y), "categorical"))
    b = ll.lengths.tic(ll.fisher(model, (x[kept], y[kept]), "categorical"))
    assert a.total == pytest.approx(b.total, rel=1e-12)


def test_a_rare_class_is_not_taken_for_rounding():
    """A label at probability e⁻⁶⁰ lies in the range of its score's covariance all the same."""
    model = nn.Linear(1, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [-60.0], [1.0]]))
    x, y = torch.ones(3, 1, dtype=torch.float64), torch.tensor([0, 2, 1])
    length = ll.lengths.tic(ll.fisher(model, (x, y), "categorical"), method="ggn")
    p = torch.softmax(torch.tensor([0.0, -60.0, 1.0], dtype=torch.float64), 0)
    # One set of logits, three labels: Σ (1/p_y − 1) / 3.
    assert length.penalty == pytest.approx(float((1 / p - 1).sum() / 3), rel=1e-9)


def test_mistakes(monkeypatch):
    model, x = network()
    y = labels("gaussian", 40, 2)
    F = ll.fisher(model, (x, y), "gaussian")
    with pytest.raises(ChoiceError, match="'ggn'"):
        ll.lengths.tic(F, method="newton")
    with pytest.raises(UndefinedError, match="needs labels"):
        ll.lengths.tic(ll.fisher(model, (x,), "gaussian"))
    monkeypatch.setattr(observed, "LARGEST", 5)
    monkeypatch.setattr(information, "LARGEST", 5)
    with pytest.raises(CapacityError, match="Hessian of 17 parameters"):
        ll.lengths.tic(F, method="hessian")
    assert ll.lengths.tic(F).record["curvature"] == "ggn"
    assert ll.lengths.criteria(F)["tic"] is None


def test_away_from_a_minimum_the_hessian_has_no_inverse():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = torch.randn(20, 2, dtype=torch.float64)
    F = ll.fisher(model, (x, 5 * x[:, :1] ** 2), "gaussian")
    with pytest.raises(UndefinedError, match="is no minimum"):
        ll.lengths.tic(F, method="hessian")
    assert ll.lengths.criteria(F)["tic"] is None
    assert ll.lengths.criteria(F)["tic_ggn"] > 0


class Wrong(ll.likelihoods.Gaussian):
    """A root that leaves out the second output."""

    def root(self, outputs):
        return torch.ones_like(outputs).unsqueeze(-1) * torch.tensor([[1.0], [0.0]]).double()


def test_a_score_outside_its_covariance():
    model, x = network()
    y = labels("gaussian", 40, 2)
    with pytest.raises(UndefinedError, match="range of its covariance"):
        ll.lengths.tic(ll.fisher(model, (x, y), Wrong()), method="ggn")


class Detached(torch.autograd.Function):
    """A square whose backward pass forgets that it depends on its input."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * g.detach()


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        return Detached.apply(self.layer(x))


def test_wrong_second_derivatives_are_noticed():
    torch.manual_seed(0)
    F = ll.fisher(Squared(), (torch.randn(9, 2), torch.rand(9, 1)), "gaussian")
    with pytest.raises(ModelError, match="second derivatives"):
        ll.lengths.tic(F, method="hessian")


def test_everything_is_left_as_it_was(untouched):
    model, x = network(n=10)
    y = labels("gaussian", 10, 2)
    with untouched(model, x, y):
        F = ll.fisher(model, (x, y), "gaussian")
        ll.lengths.tic(F, method="ggn")
        ll.lengths.criteria(F)
