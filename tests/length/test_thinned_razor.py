"""The razor from a sample of columns: its displacement against dense algebra."""

import math

import pytest
import torch

import lightlike as ll
from lightlike.errors import PriorError
from lightlike.length.gaussian import expand
from lightlike.length.thinned import preconditioned, thinned_razor
from lightlike.metric.twice import root_product
from oracles import networks as nets

X = nets.normal(40, 5, seed=1)
Y = torch.arange(40) % 4
TOKENS = torch.randint(6, (4, 3), generator=nets.generator(3))
LABELS = torch.tensor([[1, 2, -100], [0, -100, -100], [4, 1, 1], [2, 0, 3]])


def dense_displacement(F, prior):
    """½ zᵀz − ½ (b + z)ᵀ(I + N Σ^½ Î Σ^½)⁻¹(b + z), written out."""
    resolved, problem = prior.resolve(F.problem), F.problem
    sigma = resolved.variance.sqrt()
    B = F.root.dense() * sigma
    z = (problem.theta - resolved.mean) / sigma
    r = sigma * expand(problem).gradient + z
    H = torch.eye(len(z), dtype=z.dtype) + problem.survey.observations * B.T @ B
    return float(0.5 * z @ z - 0.5 * r @ torch.linalg.solve(H, r))


PRIORS = {
    "one variance": ll.priors.Isotropic(2.0),
    "wide": ll.priors.Isotropic(1e4),
    "mean": ll.priors.Isotropic(0.5, mean={"0.weight": torch.ones(48, 5)}),
    "layers": ll.priors.PerLayer({"0": 0.3, "2": 3.0}),
}


@pytest.mark.parametrize("name", PRIORS)
def test_displacement(name):
    model = nets.fill(nets.mlp([5, 48, 4], "tanh"), 0)
    prior = PRIORS[name]
    if name == "mean":
        state = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
        prior = ll.priors.Isotropic(0.5, mean={**state, **prior.mean})
    F = ll.fisher(model, [(X[:25], Y[:25]), (X[25:], Y[25:])], "categorical")
    razor = thinned_razor(F, prior, expand(F.problem), ll.Columns(0.25, 4))
    exact = dense_displacement(F, prior)
    assert razor.displacement.products < 40
    assert 0 < razor.displacement.error <= 1e-3
    low = razor.displacement.value
    assert low - 1e-8 <= exact <= low + razor.displacement.error + 1e-8


def test_root_product():
    """Rows of labels that do not count are left out, as in A."""
    model = nets.fill(nets.language_model(6, 4, 3, 2, nets.Attention, False), 0)
    for data in ([(TOKENS[:3], LABELS[:3]), (TOKENS[3:], LABELS[3:])], (TOKENS,)):
        F = ll.fisher(model, data, "categorical")
        v = torch.linspace(-1, 1, F.shape[0], dtype=torch.float64)
        assert torch.allclose(root_product(F.problem, v), F.root.dense() @ v, rtol=1e-10)


def test_preconditioned_search():
    """One product with the matrix itself; certain bounds with any other."""
    random = torch.randn(30, 50, generator=nets.generator(0), dtype=torch.float64)
    gram, y, n = random @ random.T, random.sum(1), 7
    P = torch.eye(30, dtype=torch.float64) + n * gram
    exact = 0.5 * n * float(y @ torch.linalg.solve(P, y))
    rough = P + 0.3 * P.diagonal().diag()
    for near, most in ((P, 2), (rough, 40)):
        inverse = torch.linalg.inv(near)
        found = preconditioned(y, lambda w: n * gram @ w, lambda w, M=inverse: M @ w, n)
        assert found.products <= most
        assert found.value - 1e-9 <= exact <= found.value + found.error + 1e-9
        assert math.isclose(found.value, exact, rel_tol=1e-6)


def test_fitted_variances_are_refused():
    F = ll.fisher(nets.fill(nets.mlp([5, 8, 4], "tanh"), 0), (X, Y), "categorical")
    with pytest.raises(PriorError, match="not fitted to a sample"):
        thinned_razor(F, ll.priors.Isotropic("evidence"), expand(F.problem))
