"""What holds for every length, whatever the model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.length.priors import Isotropic, PerLayer, PerParameter
from oracles.networks import Call, fill, mlp, normal


def net(seed, widths=(3, 4, 2)):
    return fill(mlp(list(widths), "tanh"), seed)


def beside(one, two):
    """Two models on their own inputs, their outputs side by side."""

    def forward(self, x):
        return torch.cat([self.one(x[:, :3]), self.two(x[:, 3:])], -1)

    return Call(forward, one=one, two=two)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_lengths_of_independent_models_add_up(likelihood):
    x = normal(12, 6)
    y = torch.stack([(normal(12, seed=s) > 0).double() for s in range(4)], 1)
    models = [net(0), net(1)]
    priors = [PerLayer({"0": 0.3, "2": 0.8}), PerLayer({"0": 2.0, "2": 0.1})]
    fishers = [
        ll.fisher(model, (x[:, 3 * k :][:, :3], y[:, 2 * k :][:, :2]), likelihood)
        for k, model in enumerate(models)
    ]
    apart = [ll.description_length(F, prior=p) for F, p in zip(fishers, priors, strict=True)]
    rules = {"one.0": 0.3, "one.2": 0.8, "two.0": 2.0, "two.2": 0.1}
    G = ll.fisher(beside(*models), (x, y), likelihood)
    both = ll.description_length(G, prior=PerLayer(rules))
    for name in ("total", "fit", "displacement", "complexity", "dimension", "effective_dimension"):
        assert getattr(both, name) == pytest.approx(
            sum(getattr(part, name) for part in apart), rel=1e-9
        ), name
    for kind in ("laplace", "mean_field"):
        whole, *others = (
            ll.lengths.variational(F, prior=prior, posterior=kind, draws=16)
            for F, prior in ((G, PerLayer(rules)), *zip(fishers, priors, strict=True))
        )
        for name in ("displacement", "complexity"):
            parts = sum(getattr(other, name) for other in others)
            assert getattr(whole, name) == pytest.approx(parts, rel=1e-8)


def test_fitted_variances_of_independent_models_are_those_of_each():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(60, 6, generator=g, dtype=torch.float64)
    layers = [nn.Linear(3, 2, bias=False).double() for _ in range(2)]
    for k, layer in enumerate(layers):
        layer.weight.data = (1.0 + 2 * k) * torch.randn(2, 3, generator=g, dtype=torch.float64)
    model = beside(*layers)
    y = model(x).detach() + torch.randn(60, 4, generator=g, dtype=torch.float64)
    both = ll.description_length(ll.fisher(model, (x, y), "gaussian"), prior=PerLayer("evidence"))
    for k, name in enumerate(("one", "two")):
        F = ll.fisher(layers[k], (x[:, 3 * k :][:, :3], y[:, 2 * k :][:, :2]), "gaussian")
        alone = ll.description_length(F, prior=Isotropic("evidence"))
        assert both.prior["variance"][name] == pytest.approx(alone.prior["variance"], rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    scale=st.floats(-3, 3),
    likelihood=st.sampled_from(["categorical", "gaussian", "poisson"]),
)
def test_bounds_and_the_price_of_more_data(seed, n, scale, likelihood):
    x = normal(n, 3, seed=seed)
    F = ll.fisher(net(seed % 7), (x,), likelihood)
    g = torch.Generator().manual_seed(seed)
    variance = 10**scale * torch.rand(26, generator=g, dtype=torch.float64)
    length = ll.description_length(F, prior=PerParameter(variance))
    H = F.dense() * variance.sqrt()[:, None] * variance.sqrt()
    assert 0 <= length.complexity <= 0.5 * n * float(H.trace()) * (1 + 1e-9)
    # ∂C/∂log N = ½ γ, N in front of a metric that stays.
    step, eye = 1e-4, torch.eye(26, dtype=torch.float64)
    up, down = (0.5 * float(torch.logdet(eye + n * math.exp(s) * H)) for s in (step, -step))
    assert (up - down) / (2 * step) == pytest.approx(
        0.5 * length.effective_dimension, rel=1e-5, abs=1e-8
    )


def test_all_data_twice_is_one_e_fold_of_log_two():
    """The metric is a mean over observations: doubling them changes N and the fit alone."""
    x, y = normal(8, 3), torch.arange(8) % 2
    model = net(2)
    one = ll.fisher(model, (x, y), "categorical")
    two = ll.fisher(model, (torch.cat([x, x]), torch.cat([y, y])), "categorical")
    lengths = [ll.description_length(F, prior=Isotropic(0.6)) for F in (one, two)]
    assert lengths[1].fit == pytest.approx(2 * lengths[0].fit, rel=1e-12)
    s = ll.spectrum(one)
    assert lengths[1].complexity == pytest.approx(0.5 * s.logdet(0.6 * 16), rel=1e-9)
    gained = lengths[1].complexity - lengths[0].complexity
    gammas = [length.effective_dimension for length in lengths]
    assert 0.5 * gammas[0] * math.log(2) <= gained <= 0.5 * gammas[1] * math.log(2)


def test_zero_volume():
    """Of a model whose output moves with nothing the prior's whole mass predicts alike."""
    model = Call(lambda self, x: 0.0 * self.w.sum() + x, w=nn.Parameter(torch.ones(5)))
    x = normal(4, 2)
    F = ll.fisher(model, (x, x + 1), "gaussian")
    plain = ll.description_length(F, prior=Isotropic())
    assert (plain.complexity, plain.displacement, plain.dimension) == (0.0, 0.0, 0)
    length = ll.lengths.interpolating(F, prior=Isotropic(), epsilon=0.1, draws=10)
    assert (length.prior_term, length.stderr, length.total) == (0.0, 0.0, plain.fit)
    for kind in ("laplace", "mean_field", "screen"):
        found = ll.lengths.variational(F, prior=Isotropic(), posterior=kind, draws=16)
        assert found.total == pytest.approx(plain.fit, rel=1e-12)
    noise = ll.lengths.noise_variance(F, prior=Isotropic())
    assert noise.variance == pytest.approx(1.0, rel=1e-6)  # the mean square of the residuals
