"""Single questions against all eigenvalues, on the network of gram.py: see README.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cases import Case, mlp
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from timing import Contender, peak_memory, ratios, round_robin, summary
from torch import Tensor

import lightlike as ll
from lightlike.spectrum.symmetric import SymmetricMatrix

GRAM, COUNT, LENGTH = "Gram matrix, from the model", "dimension above ε", "length, total"
SUMS, SOFT, EIGENVALUES = "trace and participation ratio", "effective dimension", "eigvalsh"
LAZY, EAGER = "all of Gram, dimension, total", "the same by way of eigenvalues"
MIB = 2**20


@dataclass(frozen=True)
class Answers:
    """What both ways are asked for."""

    dimension: int
    total: float
    participation: float
    effective: float


def fisher(case: Case) -> ll.Fisher:
    """Î on the digits with their labels."""
    y = torch.tensor(load_digits().target[: len(case.x)])
    return ll.fisher(case.model, (case.x, y), "categorical")


def by_factors(case: Case) -> ll.Fisher:
    """Gram matrix, dimension and total; no eigenvalue."""
    F = fisher(case)
    ll.dimension(F, above=1 / len(case.x))
    ll.description_length(F)
    return F


def by_eigenvalues(case: Case) -> ll.Fisher:
    """The same, eigenvalues first."""
    F = fisher(case)
    len(ll.spectrum(F))
    ll.dimension(F, above=1 / len(case.x))
    ll.description_length(F)
    return F


def answers(F: ll.Fisher, above: float) -> Answers:
    """All answers, in the way that F stands."""
    spectrum, length = ll.spectrum(F), ll.description_length(F)
    total = length.total
    assert total is not None
    return Answers(
        dimension=int(ll.dimension(F, above=above)),
        total=total,
        participation=spectrum.participation_ratio(),
        effective=length.effective_dimension,
    )


def prepare(way: Callable[[Case], object], small: bool) -> Callable[[], object]:
    """For the measurement of memory."""
    return partial(way, mlp(20) if small else mlp())


def contenders(case: Case) -> list[Contender]:
    """What is timed, in order; single questions with the Gram matrix at hand."""
    F, above = fisher(case), 1 / len(case.x)
    matrix: Tensor = F.decomposition().matrix
    length = ll.description_length(F)
    return [
        Contender(GRAM, lambda: fisher(case).decomposition().matrix),
        Contender(COUNT, lambda: ll.dimension(F, above=above)),
        Contender(LENGTH, lambda: ll.description_length(F).total),
        Contender(SUMS, lambda: sums(matrix)),
        Contender(SOFT, lambda: length.effective_dimension),
        Contender(EIGENVALUES, lambda: torch.linalg.eigvalsh(matrix)),
        Contender(LAZY, partial(by_factors, case)),
        Contender(EAGER, partial(by_eigenvalues, case)),
    ]


def sums(matrix: Tensor) -> tuple[float, float]:
    """Trace and participation ratio of a fresh object, so that neither is remembered."""
    fresh = SymmetricMatrix(matrix)
    return fresh.trace, fresh.participation_ratio()


def agreement(case: Case) -> dict[str, float]:
    """Answers of the two ways: counts of dimensions, and relative differences of the rest."""
    above = 1 / len(case.x)
    lazy, eager = (answers(way(case), above) for way in (by_factors, by_eigenvalues))
    return {
        "dimension_by_inertia": lazy.dimension,
        "dimension_by_eigenvalues": eager.dimension,
        "total": abs(lazy.total / eager.total - 1),
        "participation_ratio": abs(lazy.participation / eager.participation - 1),
        "effective_dimension": abs(lazy.effective / eager.effective - 1),
    }


def measure(case: Case, repeats: int, console: Console) -> dict[str, Any]:
    """All figures of the benchmark."""
    with console.status("memory, in child processes") as status:
        memory = {
            name: peak_memory(partial(prepare, way))
            for name, way in ((LAZY, by_factors), (EAGER, by_eigenvalues))
        }
        seconds = round_robin(contenders(case), repeats, status.update)
        status.update("comparing the answers")
        agrees = agreement(case)
    return {
        "case": {
            "observations": len(case.x),
            "rows": case.rows,
            "parameters": case.parameters,
            "above": 1 / len(case.x),
        },
        "repeats": repeats,
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy"),
        "seconds": {name: {**summary(s), "all": s} for name, s in seconds.items()},
        "ratio_to_eigvalsh": {
            n: summary(ratios(s, seconds[EIGENVALUES])) for n, s in seconds.items()
        },
        "ways": summary(ratios(seconds[EAGER], seconds[LAZY])),
        "agreement": agrees,
        "memory_mib": {n: None if m is None else round(m / MIB, 1) for n, m in memory.items()},
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(title="Questions, K = {rows:,}, D = {parameters:,}".format(**figures["case"]))
    table.add_column("", no_wrap=True)
    for column in ("median s", "min s", "max s", "÷ eigvalsh", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in figures["seconds"].items():
        memory = figures["memory_mib"].get(name)
        times = [f"{s[key]:.3f}" for key in ("median", "min", "max")]
        ratio = f"{figures['ratio_to_eigvalsh'][name]['median']:.2f}"
        table.add_row(name, *times, ratio, "" if memory is None else f"{memory:.0f}")
    console.print(table)
    console.print(f"The way of eigenvalues takes {figures['ways']['median']:.1f} times as long.")
    agrees = figures["agreement"]
    console.print(
        "Dimension above ε: {dimension_by_inertia} by inertia, {dimension_by_eigenvalues} by "
        "eigenvalues; relative differences: total {total:.0e}, participation ratio "
        "{participation_ratio:.0e}, effective dimension {effective_dimension:.0e}.".format(**agrees)
    )


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the figures.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; set OMP_NUM_THREADS to the same, for SciPy."),
    ] = None,
) -> None:
    """Time single questions to a 64-256-256-10 network on 500 digits against eigenvalues."""
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    console.width = max(console.width, 100)
    figures = measure(mlp(), repeats, console)
    show(figures, console)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
