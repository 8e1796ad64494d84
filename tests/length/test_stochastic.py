"""The razor by stochastic quadrature against the exact one."""

import math

import pytest
import torch

import lightlike as ll
from lightlike.errors import PriorError
from lightlike.length.gaussian import expand
from lightlike.length.stochastic import stochastic_razor
from lightlike.metric.operator import FisherOperator, ScaledOperator
from lightlike.spectrum.quadrature import Quadrature
from oracles import networks as nets
from oracles.reference import whitened

X = nets.normal(40, 4, seed=1)
Y = torch.arange(40) % 3
OPTIONS = Quadrature(probes=40, deflate=6)


def network(seed=0):
    return nets.fill(nets.mlp([4, 7, 3], "tanh"), seed)


@pytest.fixture(scope="module")
def measured():
    return ll.fisher(network(), (X, Y), "categorical")


PRIORS = {
    "isotropic": ll.priors.Isotropic(0.5),
    "elsewhere": ll.priors.Isotropic(2.0, mean=0.3),
    "per layer": ll.priors.PerLayer({"0": 0.2, ".*": 1.5}),
    "frozen": ll.priors.PerParameter(
        {"0.weight": 0.4, "0.bias": 0.0, "2.weight": 1.0, "2.bias": 2.0}
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_against_the_exact_razor(measured, name):
    F = measured
    exact = ll.description_length(F, prior=PRIORS[name])
    found = stochastic_razor(FisherOperator(F), PRIORS[name], expand(F.problem), OPTIONS, seed=3)
    length = found.length
    assert length.kind == "estimated"
    assert length.fit == exact.fit
    # Conjugate gradients give a certain lower bound, and what it lacks at most.
    lacking = exact.displacement - length.displacement
    assert -1e-8 <= lacking <= length.displacement_error + 1e-8
    missed = abs(length.complexity - exact.complexity) - length.complexity_error
    assert missed < 4 * length.stderr
    assert 0 < length.stderr < 0.05 * exact.complexity
    low, high = found.interval(1 - 1e-5)
    assert low < exact.total < high
    soft = found.effective_dimension
    assert abs(soft.value - exact.effective_dimension) < 4 * soft.stderr + soft.bracket
    assert length.effective_dimension == soft.value


def test_what_was_not_counted_is_none(measured):
    F = measured
    found = stochastic_razor(FisherOperator(F), PRIORS["isotropic"], expand(F.problem), OPTIONS)
    length = found.length
    assert (length.dimension, length.dimension_term, length.spectrum_term) == (None, None, None)
    bits = length.to("bits")
    assert bits.complexity == pytest.approx(length.complexity / math.log(2))
    assert bits.stderr == pytest.approx(length.stderr / math.log(2))
    assert ll.DescriptionLength.from_dict(length.to_dict()) == length
    assert length.error == length.complexity_error + length.displacement_error


def test_without_labels():
    F = ll.fisher(network(), (X,), "categorical")
    found = stochastic_razor(FisherOperator(F), PRIORS["isotropic"], expand(F.problem), OPTIONS)
    assert (found.length.total, found.displacement) == (None, None)
    low, high = found.interval(0.999)
    assert low < ll.description_length(F, prior=PRIORS["isotropic"]).complexity < high


def test_variances_of_layers_are_not_fitted(measured):
    F = measured
    with pytest.raises(PriorError, match="not fitted"):
        stochastic_razor(FisherOperator(F), ll.priors.PerLayer("evidence"), expand(F.problem))


def test_a_kept_state_goes_on(measured):
    F = measured
    operator, prior, expansion = FisherOperator(F), PRIORS["per layer"], expand(F.problem)
    states = []
    options = Quadrature(probes=6, block=2)
    whole = stochastic_razor(operator, prior, expansion, options, keep=states.append)
    again = stochastic_razor(operator, prior, expansion, options, state=states[1])
    assert again.length == whole.length
    assert again.complexity == whole.complexity


def test_operators(measured):
    F = measured
    operator = FisherOperator(F)
    A = torch.as_tensor(whitened(network(), [(X, None)], "categorical"))
    dense = A.T @ A
    block = nets.normal(F.shape[0], 3, seed=7)
    assert torch.allclose(operator @ block, dense @ block, atol=1e-12)
    assert torch.allclose(operator @ block[:, 0], dense @ block[:, 0], atol=1e-12)
    sigma = torch.linspace(0.0, 2.0, F.shape[0], dtype=torch.float64)
    scaled = ScaledOperator(operator, sigma)
    expected = (sigma[:, None] * dense * sigma) @ block
    assert torch.allclose(scaled @ block, expected, atol=1e-12)
    assert torch.allclose(scaled @ block[:, 1], expected[:, 1], atol=1e-12)
