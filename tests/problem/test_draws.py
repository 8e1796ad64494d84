import math

import mpmath
import numpy as np
import pytest
import torch

import lightlike as ll
from lightlike.errors import ModelError
from lightlike.metric.drawing import sketched
from lightlike.problem.draws import Draws
from lightlike.problem.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
)
from oracles import networks as nets
from oracles.reference import score_root

PLACES = [(i, p) for i in range(40) for p in range(5)]
LIKELIHOODS = {
    "categorical": Categorical(),
    "gaussian": Gaussian(0.3),
    "bernoulli": Bernoulli(),
    "poisson": Poisson(),
    "heteroscedastic": HeteroscedasticGaussian(),
}


class Tempered(Categorical):
    """Softmax at half the temperature: the ancestor's closed form is not its own."""

    def root(self, outputs):
        return 2 * super().root(2 * outputs)

    def nll(self, outputs, targets):
        return super().nll(2 * outputs, targets)


class Redundant(Gaussian):
    """A root with more columns than outputs."""

    def root(self, outputs):
        half = super().root(outputs) / math.sqrt(2)
        return torch.cat([half, -half], -1)


class TooNarrow(Gaussian):
    def sketch(self, outputs, draws):
        return super().sketch(outputs, draws)[..., :1]


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
def test_draws_have_mean_zero_and_variance_one_over_r(distribution):
    r, size, n = 3, 4, 4000
    found = Draws(r, 7, 0, distribution).vectors([(i, 0) for i in range(n)], size)
    assert found.shape == (n, size, r)
    flat = math.sqrt(r) * found.reshape(n, -1)
    assert float(flat.mean(0).abs().max()) < 5 / math.sqrt(n)
    covariance = flat.T @ flat / n - torch.eye(size * r)
    assert float(covariance.abs().max()) < 5 * math.sqrt(2 / n)
    fourth = float((flat**4).mean())
    assert fourth == pytest.approx(3 if distribution == "normal" else 1, rel=0.1)


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
def test_draws_are_nested(distribution):
    few = Draws(2, 5, 1, distribution).vectors(PLACES, 6)
    many = Draws(7, 5, 1, distribution).vectors(PLACES, 6)
    torch.testing.assert_close(many[..., :2] * math.sqrt(7), few * math.sqrt(2), rtol=1e-15, atol=0)


def test_draws_depend_on_the_place_alone():
    every = Draws(2, 5).vectors(PLACES, 6)
    for index in (0, 17, 199):
        assert torch.equal(Draws(2, 5).vectors([PLACES[index]], 6)[0], every[index])
    assert len({tuple(v.reshape(-1).tolist()) for v in every}) == len(PLACES)


def test_seeds_repetitions_and_places_are_unrelated():
    """Correlations between whole streams are those of independent numbers."""
    streams = [
        Draws(8, seed, repetition).vectors([place], 500).reshape(-1).numpy()
        for seed, repetition, place in [
            (0, 0, (0, 0)), (1, 0, (0, 0)), (-1, 0, (0, 0)), (2**63, 0, (0, 0)), (0, 1, (0, 0)),
            (0, 0, (1, 0)), (0, 0, (0, 1)), (1, 1, (1, 1)),
        ]
    ]  # fmt: skip
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert abs(correlations).max() < 4.5 / math.sqrt(4000)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_closed_form_has_the_covariance_of_the_score(name):
    """With the unit vectors as draws it is the root itself, whose outer product is Λ."""
    likelihood = LIKELIHOODS[name]
    h = nets.normal(3, 6, seed=2)
    eye = torch.eye(6, dtype=torch.float64).expand(3, 6, 6)
    L = likelihood.sketch(h, eye)
    for one, o in zip(L, h, strict=True):
        R = score_root(name, o.numpy(), 0.3)
        np.testing.assert_allclose((one @ one.T).numpy(), R.T @ R, rtol=1e-9, atol=1e-14)
    assert likelihood.root(h).shape[-1] == likelihood.columns(6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_closed_form_agrees_with_the_general_one(name):
    """Both are L Ξ for one L with L Lᵀ = Λ, up to an orthogonal factor on the draws' side."""
    likelihood = LIKELIHOODS[name]
    h = nets.normal(3, 6, seed=3)
    eye = torch.eye(6, dtype=torch.float64).expand(3, 6, 6)
    closed, general = likelihood.sketch(h, eye), Likelihood.sketch(likelihood, h, eye)
    torch.testing.assert_close(closed @ closed.mT, general @ general.mT, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("h", [[0.0, 1.0, -2.0], [60.0, 0.0, -8.0], [90.0, 1.0, 0.0]])
def test_softmax_draws_suffer_no_cancellation(h):
    xi = [0.3, -1.7, 0.9]
    (found,) = Categorical().sketch(
        torch.tensor([h], dtype=torch.float64), torch.tensor([xi], dtype=torch.float64)[..., None]
    )
    with mpmath.workdps(80):
        weights = [mpmath.exp(v) for v in h]
        q = [mpmath.sqrt(w / sum(weights)) for w in weights]
        inner = sum(a * b for a, b in zip(q, map(mpmath.mpf, xi), strict=True))
        expected = [float(a * (b - a * inner)) for a, b in zip(q, map(mpmath.mpf, xi), strict=True)]
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-13)


def test_a_subclass_with_its_own_root_is_drawn_from_that():
    likelihood = Tempered()
    assert likelihood.columns(5) is None
    h = nets.normal(2, 5, seed=4)
    eye = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    L, root = likelihood.sketch(h, eye), likelihood.root(h)
    torch.testing.assert_close(L @ L.mT, root @ root.mT, rtol=1e-13, atol=1e-15)
    assert not torch.allclose(L @ L.mT, Categorical().root(h) @ Categorical().root(h).mT)


def test_a_root_wider_than_the_outputs_is_drawn_from_whole():
    model, x = nets.fill(nets.mlp([3, 4, 3], "tanh"), 0), nets.normal(5, 3)
    exact = ll.fisher(model, (x,), Redundant()).root
    assert exact.shape[0] == 5 * 6
    draws = Draws(2, 3)
    S = sketched(exact, draws).dense()
    xi = draws.vectors([(i, 0) for i in range(5)], 6)
    expected = xi.mT @ exact.dense().view(5, 6, -1)
    torch.testing.assert_close(S, expected.flatten(0, 1), rtol=1e-11, atol=1e-13)


def test_a_sketch_of_another_shape_is_refused():
    model = nets.fill(nets.mlp([3, 4, 3], "tanh"), 0)
    F = ll.fisher(model, (nets.normal(5, 3),), TooNarrow())
    with pytest.raises(ModelError, match=r"TooNarrow.sketch gives shape \(5, 3, 1\)"):
        F.sketch(ll.Sketch(draws=2)).trace()


def test_a_wide_softmax_never_makes_its_root(monkeypatch):
    monkeypatch.setattr(Categorical, "root", lambda *_: pytest.fail("an m × (m − 1) root was made"))
    model = nets.fill(nets.mlp([3, 2, 5000], "tanh"), 0)
    m = ll.measure(
        model, (nets.normal(4, 3),), "categorical", method=ll.Sketch(draws=1, repetitions=2),
        progress=False,
    )  # fmt: skip
    assert m.rows == 4 * 4999
    assert 0 < int(m.dimension) <= 4
