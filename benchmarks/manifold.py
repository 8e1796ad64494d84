"""Radical and screen of the network of gram.py, beyond its spectrum: seconds of each question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cases import Case, mlp
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from timing import Contender, round_robin, summary

import lightlike as ll

SPECTRUM, SUBSPACES = "Gram matrix, eigenvalues, dimension", "subspaces"
PROJECTION, AGAIN = "first projection of a vector", "another projection"
RADICAL, SCREEN = "whether the radical contains it", "whether the screen contains it"
BASIS, SHARE, PARAMETERS = "first 100 vectors of the screen", "share by layer", "share by parameter"
EXPLANATION = "explanation"
VECTORS = 100
TARGET = Path(__file__).parent / "results" / "manifold.json"


def spectrum(case: Case) -> ll.Fisher:
    """Î with its eigenvalues and dimension known, which is where the others start."""
    F = ll.fisher(case.model, (case.x,), "categorical")
    int(ll.dimension(F))
    return F


def subspaces(F: ll.Fisher) -> tuple[Any, Any]:
    """Radical and screen with nothing kept from before but the spectrum."""
    # Eigenvectors are kept with the spectrum once something has asked for them.
    vars(F.decomposition()).pop("vectors", None)
    radical, screen = ll.subspaces(F)
    assert radical.dimension + screen.dimension == F.shape[0]
    return radical, screen


def contenders(case: Case) -> list[Contender]:
    """What is timed, in order."""
    F = spectrum(case)
    v = drawn(F)
    kept = subspaces(F)[0]
    kept.project(v)

    def ask(question: Callable[[Any, Any], object]) -> Callable[[], object]:
        return lambda: question(*subspaces(F))

    return [
        Contender(SPECTRUM, lambda: spectrum(case)),
        Contender(SUBSPACES, lambda: subspaces(F)),
        Contender(PROJECTION, ask(lambda radical, _: radical.project(v))),
        Contender(AGAIN, lambda: kept.project(v)),
        Contender(RADICAL, ask(lambda radical, _: radical.contains(v))),
        Contender(SCREEN, ask(lambda _, screen: screen.contains(v))),
        Contender(BASIS, ask(lambda _, screen: screen.basis(VECTORS))),
        Contender(SHARE, ask(lambda _, screen: screen.share())),
        Contender(PARAMETERS, ask(lambda _, screen: screen.share().parameters), rounds=1),
        Contender(EXPLANATION, lambda: ll.explain(F)),
    ]


def drawn(F: ll.Fisher) -> torch.Tensor:
    """A random direction."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(F.shape[0], generator=random, dtype=torch.float64)


def checks(case: Case) -> dict[str, float]:
    """What the answers are worth."""
    F = spectrum(case)
    radical, screen = subspaces(F)
    v = drawn(F)
    split = radical.split(v)
    basis = screen.basis(VECTORS)
    eye = torch.eye(VECTORS, dtype=torch.float64)
    share = screen.share()
    sums = {
        name: sum(float(share.coordinates[e.start : e.stop].sum()) for e in entries)
        for name, entries in F.problem.selection.layers().items()
    }
    explanation = ll.explain(F)
    return {
        "dimension": screen.dimension,
        "radical": radical.dimension,
        "residual of the projection, of s_1 |v|": split.residual,
        "its tolerance": split.tolerance,
        "deviation of the basis from orthonormal": float((basis.T @ basis - eye).abs().max()),
        "difference of both ways to a layer's share": max(
            abs(share.layers[name] - found / screen.dimension) for name, found in sums.items()
        ),
        "explained": explanation.explained,
        "unexplained": explanation.unexplained,
        "named and independent": explanation.certain,
    }


def measure(repeats: int, console: Console) -> dict[str, Any]:
    """All figures of the benchmark."""
    case = mlp()
    with console.status("preparing") as status:
        seconds = round_robin(contenders(case), repeats, status.update)
        status.update("checking the answers")
        worth = checks(case)
    return {
        "case": {
            "observations": len(case.x),
            "rows": case.rows,
            "parameters": case.parameters,
        },
        "repeats": repeats,
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy"),
        "seconds": {name: {**summary(s), "all": s} for name, s in seconds.items()},
        "checks": worth,
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(
        title="Beyond the spectrum, K = {rows:,}, D = {parameters:,}".format(**figures["case"])
    )
    table.add_column("", no_wrap=True)
    for column in ("median s", "min s", "max s"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in figures["seconds"].items():
        table.add_row(name, *(f"{s[key]:.3f}" for key in ("median", "min", "max")))
    console.print(table)
    for name, value in figures["checks"].items():
        console.print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value:.1e}")


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    json_file: Annotated[Path, typer.Option("--json", help="Where to write the figures.")] = TARGET,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; set OMP_NUM_THREADS to the same, for SciPy."),
    ] = None,
) -> None:
    """Time questions to the radical and screen of a 64-256-256-10 network on 500 digits."""
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    figures = measure(repeats, console)
    show(figures, console)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
