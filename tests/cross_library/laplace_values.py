"""Marginal likelihoods by laplace-torch with the full GGN, written to laplace_values.json.

Run by hand in an environment of its own, as the peers of a library break one another:

    pip install torch laplace-torch==0.3
    python tests/cross_library/laplace_values.py

Model, data and settings are stored beside the values: nothing depends on how numbers are drawn.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from laplace import Laplace
from laplace.curvature import CurvlinopsGGN
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CASES = {
    "classes at the MAP": dict(task="classification", widths=(3, 4, 3), n=30, precision=0.7),
    "classes anywhere": dict(task="classification", widths=(2, 5, 4), n=25, precision=2.0, steps=0),
    "classes, D > N": dict(task="classification", widths=(5, 8, 3), n=6, precision=1.5),
    "classes, warm": dict(
        task="classification", widths=(3, 4, 2), n=20, precision=0.5, temperature=2.5, steps=0
    ),
    "numbers at the MAP": dict(
        task="regression", widths=(2, 4, 2), n=25, precision=1.3, noise=0.4
    ),
    "numbers, a precision each": dict(
        task="regression", widths=(2, 3, 1), n=40, precision="each", noise=0.7, steps=20
    ),
    "numbers, another mean": dict(
        task="regression", widths=(3, 3, 1), n=12, precision=0.9, noise=0.3, mean=0.25, steps=5
    ),
    "numbers, cold": dict(
        task="regression", widths=(2, 4, 1), n=30, precision=1.0, noise=0.5, temperature=0.4,
        steps=0,
    ),
}  # fmt: skip


def network(widths):
    a, b, c = widths
    return nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Linear(b, c)).double()


def train(model, x, y, case, precision, mean):
    """LBFGS to the maximum of the (tempered) posterior, or a few steps towards it."""
    temperature = case.get("temperature", 1.0)
    steps = case.get("steps", 2000)
    if not steps:
        return
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss():
        optimiser.zero_grad()
        out = model(x)
        if case["task"] == "classification":
            fit = nn.functional.cross_entropy(out, y, reduction="sum")
        else:
            fit = (out - y).square().sum() / (2 * case["noise"] ** 2)
        theta = nn.utils.parameters_to_vector(model.parameters())
        total = fit / temperature + 0.5 * (precision * (theta - mean).square()).sum()
        total.backward()
        return total

    for _ in range(5 if steps > 1000 else 1):
        optimiser.step(loss)


def measure(seed, case):
    torch.manual_seed(seed)
    model = network(case["widths"])
    inputs, _, outputs = case["widths"]
    x = torch.randn(case["n"], inputs)
    y = (
        torch.randint(outputs, (case["n"],))
        if case["task"] == "classification"
        else torch.randn(case["n"], outputs)
    )
    size = sum(p.numel() for p in model.parameters())
    precision = torch.rand(size) + 0.5 if case["precision"] == "each" else case["precision"]
    mean = case.get("mean", 0.0)
    train(model, x, y, case, precision, mean)
    laplace = Laplace(
        model, case["task"], subset_of_weights="all", hessian_structure="full",
        backend=CurvlinopsGGN, prior_precision=precision, prior_mean=mean,
        sigma_noise=case.get("noise", 1.0), temperature=case.get("temperature", 1.0),
    )  # fmt: skip
    laplace.fit(DataLoader(TensorDataset(x, y), batch_size=7))
    value = laplace.log_marginal_likelihood()
    ratio = laplace.log_det_posterior_precision - laplace.log_det_prior_precision
    return {
        **{key: case.get(key) for key in ("task", "widths", "noise")},
        "temperature": case.get("temperature", 1.0),
        "mean": mean,
        "at_map": case.get("steps", 2000) > 1000,
        "precision": precision.tolist() if isinstance(precision, torch.Tensor) else precision,
        "x": x.tolist(),
        "y": y.tolist(),
        "theta": nn.utils.parameters_to_vector(model.parameters()).tolist(),
        "log_marginal_likelihood": float(value),
        "log_likelihood": float(laplace.log_likelihood),
        "log_det_ratio": float(ratio),
        "scatter": float(laplace.scatter),
    }


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    found = {
        "versions": {name: version(name) for name in ("laplace-torch", "torch")},
        "cases": {name: measure(seed, case) for seed, (name, case) in enumerate(CASES.items())},
    }
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(found, indent=1) + "\n")
