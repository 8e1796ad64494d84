"""Kronecker factors by curvlinops, written to curvlinops_values.json.

Run by hand in an environment of its own, as the peers of a library break one another:

    pip install torch curvlinops-for-pytorch==3.0.1
    python tests/cross_library/curvlinops_values.py

Weights and data are stored beside the values: nothing depends on how numbers are drawn.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from curvlinops import EKFACLinearOperator, KFACLinearOperator
from torch import nn

CASES = {
    "mlp, classes": dict(kind="mlp", sharing="expand", loss="classes"),
    "mlp, numbers": dict(kind="mlp", sharing="expand", loss="numbers"),
    "positions, expand": dict(kind="mean", sharing="expand", loss="classes"),
    "positions, reduce": dict(kind="mean", sharing="reduce", loss="classes"),
    "convolution, expand": dict(kind="convolution", sharing="expand", loss="classes"),
    "convolution, reduce": dict(kind="convolution", sharing="reduce", loss="classes"),
}


class Mean(nn.Module):
    """A layer at each position, a nonlinearity, the mean over positions, a head."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)).mean(1))


def network(kind):
    """A model in float64, and inputs for it."""
    if kind == "mlp":
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double(), (8, 3)
    if kind == "mean":
        return Mean().double(), (6, 4, 3)
    layers = nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    return nn.Sequential(*layers).double(), (12, 2, 3, 3)


def compute(case):
    """KFAC and EKFAC with the exact expectation over labels: diagonals, products with sin(i j)."""
    torch.manual_seed(0)
    model, shape = network(case["kind"])
    x = torch.randn(shape, dtype=torch.float64)
    y = torch.randint(3, shape[:1]) if case["loss"] == "classes" else torch.randn(
        shape[0], 3, dtype=torch.float64
    )  # fmt: skip
    loss = nn.CrossEntropyLoss() if case["loss"] == "classes" else nn.MSELoss(reduction="sum")
    parameters = list(model.parameters())
    settings = dict(
        fisher_type="type-2", kfac_approx=case["sharing"], separate_weight_and_bias=False
    )
    found = {}
    for name, kind in (("kfac", KFACLinearOperator), ("ekfac", EKFACLinearOperator)):
        op = kind(model, loss, parameters, [(x, y)], **settings)
        matrix = op @ torch.eye(op.shape[1], dtype=torch.float64)
        probes = torch.outer(torch.arange(len(matrix)).double(), torch.tensor([1.0, 2.0])).sin()
        found[name] = {"diagonal": matrix.diag().tolist(), "product": (matrix @ probes).tolist()}
    theta = torch.cat([p.detach().reshape(-1) for p in parameters])
    return {**case, "x": x.tolist(), "theta": theta.tolist(), **found}


def main():
    cases = {name: compute(case) for name, case in CASES.items()}
    versions = {name: version(name) for name in ("torch", "curvlinops-for-pytorch")}
    path = Path(__file__).parent / "curvlinops_values.json"
    path.write_text(json.dumps({"versions": versions, "cases": cases}))


if __name__ == "__main__":
    main()
