"""How often intervals of stochastic quadrature hold the exact value, and whether it is biased.

    python benchmarks/calibration.py [seeds]

Marchenko–Pastur matrices, whose Shannon transform has a closed form, and Fisher matrices of
networks trained on handwritten digits: trace, log-determinant, razor and counts of eigenvalues, by
probes of many seeds, against exact eigenvalues. The log is results/calibration.json.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine
from sklearn.datasets import load_digits
from torch import nn

import lightlike as ll
from lightlike.spectrum.quadrature import quadrature
from lightlike.spectrum.trace import trace

RESULTS = Path(__file__).parent / "results"
LEVEL = 0.9


def shannon(g: float, c: float) -> float:
    """∫ log(1 + gλ) of Marchenko and Pastur's law of ratio c (Tulino & Verdú 2004)."""
    high, low = (math.sqrt(g * (1 + s * math.sqrt(c)) ** 2 + 1) for s in (1, -1))
    Q = (high - low) ** 2
    return math.log(1 + g - Q / 4) + math.log(1 + g * c - Q / 4) / c - Q / (4 * c * g)


def wishart(n: int, d: int) -> torch.Tensor:
    X = torch.as_tensor(np.random.default_rng(n * d).standard_normal((n, d)))
    return X.T @ X / n


def digits(hidden: int, steps: int) -> ll.Fisher:
    """A network on digits of half the resolution, after some steps of training."""
    pixels, labels = load_digits(return_X_y=True)
    halved = pixels.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16
    x, y = torch.tensor(halved[:200]).float(), torch.tensor(labels[:200])
    torch.manual_seed(hidden)
    model = nn.Sequential(nn.Linear(16, hidden), nn.Tanh(), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return ll.fisher(model.eval(), (x, y), "categorical")


def cases() -> dict[str, tuple[torch.Tensor, float, float]]:
    """Matrix, c of log det(I + c F), and ε of a count, by name."""
    nets = {"digits, 4 tanh": digits(4, 100), "digits, 5 tanh, untrained": digits(5, 0)}
    found = {
        "Marchenko–Pastur 160 × 80": (wishart(160, 80), 100.0, 0.8),
        "Marchenko–Pastur 40 × 100": (wishart(40, 100), 100.0, 1.5),
    }
    for name, F in nets.items():
        found[name] = (F.dense(), float(F.problem.survey.observations), 1e-3)
    return found


def study(
    F: torch.Tensor, scale: float, eps: float, options: ll.Quadrature, seeds: int
) -> dict[str, dict[str, float]]:
    """Coverage, bias and errors of every quantity over the seeds."""
    values = torch.linalg.eigvalsh(F).clamp_min(0)
    truths = {
        "trace": float(values.sum()),
        "log det": float(torch.log1p(scale * values).sum()),
        "razor": 0.5 * float(torch.log1p(scale * values).sum()),
    }
    if not options.deflate:
        truths |= {"count": float((values > eps).sum()), "XTrace": float(values.sum())}
    hits = dict.fromkeys(truths, 0)
    errors: dict[str, list[float]] = {name: [] for name in truths}
    widths: dict[str, list[float]] = {name: [] for name in truths}
    brackets: dict[str, list[float]] = {name: [] for name in truths}
    products = []
    for seed in range(seeds):
        density = quadrature(F, options, scale=scale, seed=seed)
        products.append(density.products)
        logdet = density.logdet(scale)
        estimates = {
            "trace": density.trace, "log det": logdet, "razor": logdet.times(0.5),
        }  # fmt: skip
        if not options.deflate:  # neither depends much on what is taken out
            counted = quadrature(F, options, above=eps, seed=seed)
            estimates["count"] = counted.above(eps)
            estimates["XTrace"] = trace(F, 2 * options.probes, seed=seed)
        for name, estimate in estimates.items():
            low, high = estimate.interval(LEVEL)
            slack = 1e-9 * truths[name]
            hits[name] += low - slack <= truths[name] <= high + slack
            errors[name].append(float(estimate) - truths[name])
            widths[name].append(high - low)
            brackets[name].append(getattr(estimate, "bracket", 0.0))
    found = {}
    for name, truth in truths.items():
        spread = float(np.std(errors[name]))
        found[name] = {
            "exact": truth,
            "coverage": hits[name] / seeds,
            "bias": float(np.mean(errors[name])),
            "bias in its standard errors": float(np.mean(errors[name]))
            / max(spread / math.sqrt(seeds), 1e-12 * truth),
            "deviation": spread,
            "mean width": float(np.mean(widths[name])),
            "mean bracket": float(np.mean(brackets[name])),
        }
    found["cost"] = {"products": float(np.mean(products)), "rows": float(len(values))}
    return found


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    torch.set_num_threads(1)
    start, log = time.process_time(), {}
    for name, (F, scale, eps) in cases().items():
        for deflate in (0, 10):
            options = ll.Quadrature(probes=12, deflate=deflate, steps=len(F))
            log[f"{name}, {deflate} taken out"] = study(F, scale, eps, options, seeds)
    n, d, g = 1600, 800, 50.0
    large = quadrature(wishart(n, d), ll.Quadrature(probes=12), scale=g).logdet(g)
    record = {
        "machine": machine(),
        "level": LEVEL,
        "seeds": seeds,
        "closed form": {
            "limit of log det": d * shannon(g, d / n), "estimate": large.value,
            "standard error": large.stderr, "bracket": large.bracket,
        },
        "cases": log,
        "CPU seconds": round(time.process_time() - start, 1),
    }  # fmt: skip
    (RESULTS / "calibration.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    for name, found in log.items():
        print(name, found["cost"])
        for quantity, row in found.items():
            if quantity != "cost":
                print(
                    f"  {quantity:8} covered {row['coverage']:.3f}   bias "
                    f"{row['bias in its standard errors']:+.2f} s.e.   deviation "
                    f"{row['deviation']:.3g}   bracket {row['mean bracket']:.2g}"
                )
    print(record["closed form"], record["CPU seconds"])


if __name__ == "__main__":
    main()
