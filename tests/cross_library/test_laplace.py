"""The Gaussian razor against laplace-torch's evidence with the full GGN, stored by another run."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import lightlike as ll

STORED = json.loads((Path(__file__).parent / "laplace_values.json").read_text())
CASES = STORED["cases"]


def tempered(case):
    """The likelihood to the power 1/T, as laplace-torch has it: a Gaussian keeps its constant."""
    t, noise = case["temperature"], case["noise"]
    if case["task"] == "classification":

        class Classes(ll.likelihoods.Categorical):
            def nll(self, outputs, targets):
                return super().nll(outputs, targets) / t

            def root(self, outputs):
                return super().root(outputs) / t**0.5

        return Classes()

    class Numbers(ll.likelihoods.Gaussian):
        def nll(self, outputs, targets):
            constant = super().nll(targets, targets)
            return constant + (super().nll(outputs, targets) - constant) / t

        def root(self, outputs):
            return super().root(outputs) / t**0.5

    return Numbers(noise**2)


def razor(case):
    a, b, c = case["widths"]
    model = nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Linear(b, c)).double()
    nn.utils.vector_to_parameters(
        torch.tensor(case["theta"], dtype=torch.float64), model.parameters()
    )
    kind = torch.int64 if case["task"] == "classification" else torch.float64
    data = torch.tensor(case["x"], dtype=torch.float64), torch.tensor(case["y"], dtype=kind)
    F = ll.fisher(model, data, tempered(case))
    precision = torch.tensor(case["precision"], dtype=torch.float64)
    prior = (
        ll.priors.PerParameter(1 / precision, mean=case["mean"])
        if precision.ndim
        else ll.priors.Isotropic(1 / float(precision), mean=case["mean"])
    )
    scatter = (precision * (F.problem.theta - case["mean"]).square()).sum()
    return ll.description_length(F, prior=prior), float(scatter)


@pytest.mark.parametrize("name", CASES)
def test_every_term_is_that_of_laplace_torch(name):
    case = CASES[name]
    L, scatter = razor(case)
    assert L.fit == pytest.approx(-case["log_likelihood"], rel=1e-12)
    assert L.complexity == pytest.approx(0.5 * case["log_det_ratio"], rel=1e-12)
    assert scatter == pytest.approx(case["scatter"], rel=1e-12)
    whole = L.fit + 0.5 * scatter + L.complexity
    assert whole == pytest.approx(-case["log_marginal_likelihood"], rel=1e-12)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["at_map"]])
def test_at_the_map_the_length_is_the_evidence(name):
    case = CASES[name]
    L, _ = razor(case)
    assert L.total == pytest.approx(-case["log_marginal_likelihood"], rel=1e-10)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case["at_map"]])
def test_elsewhere_the_razor_takes_the_slope_into_account(name):
    """Laplace's formula leaves it out, and is too long by ½ rᵀ(N Î + Σ⁻¹)⁻¹r."""
    L, _ = razor(CASES[name])
    assert L.total < -CASES[name]["log_marginal_likelihood"] - 1e-3
