"""Learning coefficients that are known, against what sampling finds: see README.md.

Reduced-rank regression y = B A x at a truth of rank r (Aoyagi & Watanabe 2005), normal crossings
y = x Π w_j^k_j, and regular models. Labels are the truth's own outputs on inputs with xᵀx = n I, so
that L_n(θ) − L_n(θ̂) is the Kullback–Leibler divergence and n β a number that can be chosen. At
finite n β the slope of the free energy is not λ yet; method="limit" extrapolates.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import lightlike

RESULTS = Path(__file__).parent / "results"


class Crossing(nn.Module):
    """y = x Π_j w_j^{k_j}, at the origin: λ = min 1/(2 k_j), m the number of minimisers."""

    def __init__(self, *powers: int) -> None:
        super().__init__()
        self.powers = powers
        self.w = nn.Parameter(torch.zeros(len(powers), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        for w, power in zip(self.w, self.powers, strict=True):
            x = x * w**power
        return x


class ReducedRank(nn.Module):
    """y = B A x with A: H × M and B: N × H, both with r unit entries."""

    def __init__(self, M: int, H: int, N: int, r: int) -> None:
        super().__init__()
        A, B = torch.zeros(H, M, dtype=torch.float64), torch.zeros(N, H, dtype=torch.float64)
        A.diagonal()[:r] = B.diagonal()[:r] = 1.0
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.A.T @ self.B.T


@dataclass(frozen=True)
class Case:
    """A model with its known λ and m, and the n β at which it is sampled, coldest last."""

    name: str
    model: nn.Module
    inputs: int
    coefficient: float
    multiplicity: int
    samples: tuple[float, ...]


def reduced_rank(M: int, H: int, N: int, r: int, samples: tuple[float, ...]) -> Case:
    """With λ and m from Aoyagi & Watanabe's theorem."""
    multiplicity = 1
    if N + r <= M + H and M + r <= N + H and H + r <= M + N:
        value = -((H + r) ** 2) - M**2 - N**2 + 2 * (H + r) * (M + N) + 2 * M * N
        multiplicity = 1 + (M + H + N + r) % 2
        coefficient = (value + multiplicity - 1) / 8
    elif N + r > M + H:
        coefficient = (H * M - H * r + N * r) / 2
    elif M + r > N + H:
        coefficient = (H * N - H * r + M * r) / 2
    else:
        coefficient = M * N / 2
    name = f"B A x, M = {M}, H = {H}, N = {N}, r = {r}"
    return Case(name, ReducedRank(M, H, N, r), M, coefficient, multiplicity, samples)


# Regular points are near their limit early; others take what the sampler can reach.
REGULAR = (60.0, 250.0, 1e3)
SINGULAR = (1e2, 1e3, 1e4, 1e5, 1e6)
# Deeper crossings are cheap, and slow to converge.
DEEP = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

CASES = (
    Case("linear, D = 3", nn.Linear(3, 1, bias=False).double(), 3, 1.5, 1, (20.0, *REGULAR)),
    Case("linear, D = 12", nn.Linear(4, 3, bias=False).double(), 4, 6.0, 1, (20.0, *REGULAR)),
    Case("a² x", Crossing(2), 1, 0.25, 1, DEEP),
    Case("a b x", Crossing(1, 1), 1, 0.5, 2, DEEP),
    Case("a b² x", Crossing(1, 2), 1, 0.25, 1, DEEP),
    reduced_rank(2, 1, 1, 0, SINGULAR),
    reduced_rank(2, 2, 2, 0, DEEP[:-1]),
    reduced_rank(3, 2, 3, 0, DEEP[:-1]),
    reduced_rank(2, 6, 2, 0, SINGULAR),
    reduced_rank(1, 1, 1, 1, REGULAR),
    reduced_rank(2, 1, 2, 1, REGULAR),
    reduced_rank(2, 2, 2, 1, SINGULAR[:-1]),
    reduced_rank(2, 3, 2, 1, SINGULAR[:-1]),
    reduced_rank(2, 2, 3, 1, SINGULAR[:-1]),
    reduced_rank(2, 2, 2, 2, REGULAR),
    reduced_rank(2, 3, 4, 2, REGULAR),
)


def design(width: int) -> Tensor:
    """Inputs (n, width) with xᵀx = n I."""
    rows = max(2 * width, 2)
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(columns).Q * math.sqrt(rows)


def measure(
    case: Case, chains: int, draws: int, burn_in: int, steps: int, seed: int
) -> dict[str, Any]:
    """One estimate, or why there is none."""
    x = design(case.inputs)
    with torch.no_grad():
        y = case.model(x)
    start = time.process_time()
    known = {
        "case": case.name,
        "known": case.coefficient,
        "multiplicity": case.multiplicity,
        "half_parameters": sum(p.numel() for p in case.model.parameters()) / 2,
        "samples": case.samples,
    }
    try:
        found = lightlike.learning_coefficient(
            case.model, (x, y), "gaussian", method="limit", chains=chains, draws=draws,
            temperature=[t / len(x) for t in case.samples], burn_in=burn_in, steps=steps, seed=seed,
        )  # fmt: skip
    except lightlike.errors.SamplingError as error:
        return {**known, "error": str(error), "cpu_seconds": time.process_time() - start}
    assert found.limit is not None
    return {
        **known,
        "value": found.value,
        "stderr": found.stderr,
        "regular": found.regular,
        "rank_bound": found.rank_bound,
        "slopes": found.slopes,
        "slope_stderrs": [d.temperature * d.loss_stderr for d in found.diagnostics],
        "laws": [asdict(law) for law in found.limit.laws],
        "rhat": max(d.rhat for d in found.diagnostics),
        "effective_draws": min(d.effective_draws for d in found.diagnostics),
        "virial": max(abs(d.virial or 0.0) / (d.virial_stderr or 1.0) for d in found.diagnostics),
        "cpu_seconds": time.process_time() - start,
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(title="Learning coefficients, known and estimated")
    columns = ("case", "λ", "m", "slope", "λ̂", "±", "z", "off %", "rank/2", "D/2", "R̂", "CPU s")
    for column in columns:
        justify = "left" if column == "case" else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for f in figures["cases"]:
        head = (f["case"], f"{f['known']:g}", str(f["multiplicity"]))
        if "error" in f:
            table.add_row(*head, "refused", *[""] * 7, f"{f['cpu_seconds']:.0f}")
            continue
        off = f["value"] - f["known"]
        numbers = (f"{f['slopes'][-1]:.3f}", f"{f['value']:.3f}", f"{f['stderr']:.2g}")
        against = (f"{off / f['stderr']:+.1f}", f"{100 * off / f['known']:+.1f}")
        rest = (f"{f['rank_bound']:g}", f"{f['half_parameters']:g}", f"{f['rhat']:.3f}")
        table.add_row(*head, *numbers, *against, *rest, f"{f['cpu_seconds']:.0f}")
    console.print(table)


def main(
    chains: Annotated[int, typer.Option(min=2, help="Chains.")] = 32,
    draws: Annotated[int, typer.Option(min=8, help="Draws of each chain.")] = 200,
    burn_in: Annotated[int, typer.Option(min=0, help="Draws before.")] = 150,
    steps: Annotated[int, typer.Option(min=1, help="Most leapfrog steps a draw.")] = 16,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    only: Annotated[str, typer.Option(help="Only cases with this in their name.")] = "",
    json_file: Annotated[Path, typer.Option("--json", help="Where to write the figures.")] = RESULTS
    / "learning-coefficients.json",
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Known learning coefficients against estimates."""
    torch.set_num_threads(threads)
    console = Console()
    console.width = max(console.width, 120)
    found = []
    for case in CASES:
        if only in case.name:
            with console.status(case.name):
                found.append(measure(case, chains, draws, burn_in, steps, seed))
    figures = {
        "chains": chains,
        "draws": draws,
        "burn_in": burn_in,
        "steps": steps,
        "seed": seed,
        "machine": machine(),
        "versions": versions("lightlike", "torch"),
        "cases": found,
    }
    show(figures, console)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
