"""KFAC and EKFAC against curvlinops, stored by another run."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import lightlike as ll
from oracles import networks as nets

STORED = json.loads((Path(__file__).parent / "curvlinops_values.json").read_text())
CASES = STORED["cases"]


def network(kind):
    if kind == "mlp":
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    if kind == "mean":
        return nets.Call(
            lambda self, x: self.head(torch.tanh(self.body(x)).mean(1)),
            body=nn.Linear(3, 4), head=nn.Linear(4, 3),
        )  # fmt: skip
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_products_and_diagonals_agree(name, corrected):
    case = CASES[name]
    model = network(case["kind"]).double()
    theta = torch.tensor(case["theta"], dtype=torch.float64)
    nn.utils.vector_to_parameters(theta, model.parameters())
    x = torch.tensor(case["x"], dtype=torch.float64)
    likelihood = "categorical" if case["loss"] == "classes" else "gaussian"
    F = ll.fisher(model, (x,), likelihood)
    M = F.kronecker(sharing=case["sharing"], eigenvalue_correction=corrected)
    # The sum of squares is twice the NLL of unit variance, of all observations together.
    unit = 1.0 if case["loss"] == "classes" else 2.0 * len(x)
    stored = case["ekfac" if corrected else "kfac"]
    probes = torch.outer(torch.arange(len(theta)).double(), torch.tensor([1.0, 2.0])).sin()
    for found, key in ((M.diagonal(), "diagonal"), (M @ probes, "product")):
        expected = torch.tensor(stored[key], dtype=torch.float64)
        assert float((unit * found - expected).norm()) <= 1e-6 * float(expected.norm())
