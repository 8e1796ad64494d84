"""The Gram matrix of the whitened Jacobian of an MLP, against peers: see README.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cases import Case, digits_mlp
from machine import machine, versions
from peers import as_matrix, explicit_gram, nngeometry_gram
from rich.console import Console
from rich.table import Table
from timing import Contender, peak_memory, ratios, round_robin, summary
from torch import Tensor

import lightlike

OURS, READY, PEER = "lightlike, from the model", "lightlike, Fisher ready", "nngeometry, float32"
EXPLICIT32, EXPLICIT64 = "explicit Jacobian, float32", "explicit Jacobian, float64"
EIGENVALUES, PRODUCT = "eigvalsh of the result", "matrix product"
INNER = 256
MIB = 2**20


def ours(case: Case) -> Tensor:
    """A Aᵀ through the public interface, survey of the data and checks included."""
    return lightlike.fisher(case.model, (case.x,), "categorical").root.gram()


def prepare_ours(small: bool) -> Callable[[], object]:
    """For the measurement of memory."""
    return partial(ours, digits_mlp(20) if small else digits_mlp())


def prepare_peer(small: bool) -> Callable[[], object]:
    """For the measurement of memory."""
    case = digits_mlp(20) if small else digits_mlp()
    return partial(nngeometry_gram, case.model, case.x)


def operations(case: Case) -> dict[str, float]:
    """Floating-point operations that no layer-wise method in reverse mode can do without."""
    n, k = len(case.x), case.rows
    layers = list(pairwise(case.widths))
    return {
        "forward pass": 2.0 * n * sum(i * o for i, o in layers),
        # The first layer's input needs no gradient, and no weight's gradient is ever formed.
        "backward passes": 2.0 * k * sum(i * o for i, o in layers[1:]),
        # Half of 2 K² (sum of widths): the result is symmetric.
        "contraction of gradients": float(k * k * sum(o for _, o in layers)),
        "contraction of activations": float(n * n * sum(i for i, _ in layers)),
    }


def agreement(case: Case, result: Tensor, explicit: Tensor | None) -> dict[str, float]:
    """Largest differences of eigenvalues from ours, relative to the largest eigenvalue."""
    mine = torch.linalg.eigvalsh(result)
    others = {PEER: as_matrix(nngeometry_gram(case.model, case.x)).double()}
    if explicit is not None:
        others[EXPLICIT64] = explicit
    found = {
        name: float((torch.linalg.eigvalsh(gram) - mine).abs().max() / mine[-1])
        for name, gram in others.items()
    }
    return found


def contenders(case: Case, result: Tensor, explicit: bool | None) -> list[Contender]:
    """What is timed, in order."""
    ready = lightlike.fisher(case.model, (case.x,), "categorical")
    factor = torch.randn(case.rows, INNER, dtype=torch.float64)
    found = [
        Contender(OURS, partial(ours, case)),
        Contender(READY, lambda: ready.root.gram()),
        Contender(PEER, partial(nngeometry_gram, case.model, case.x)),
        Contender(PRODUCT, lambda: factor @ factor.T),
        Contender(EIGENVALUES, lambda: torch.linalg.eigvalsh(result)),
    ]
    if explicit is not False:
        work = partial(explicit_gram, case.model, case.x, torch.float32)
        found.append(Contender(EXPLICIT32, work, rounds=1))
    return found


def measure(case: Case, repeats: int, explicit: bool | None, console: Console) -> dict[str, Any]:
    """All figures of the benchmark."""
    with console.status("memory, in child processes") as status:
        memory = {OURS: peak_memory(prepare_ours), PEER: peak_memory(prepare_peer)}
        result = ours(case)
        reference = None
        report = status.update
        seconds = round_robin(contenders(case, result, explicit), repeats, report)
        if explicit:
            kept: list[Tensor] = []
            work = partial(explicit_gram, case.model, case.x, torch.float64)
            slow = Contender(EXPLICIT64, lambda: kept.append(work()), rounds=1)
            seconds |= round_robin([slow], 1, report)
            reference = kept[0]
        report("comparing eigenvalues")
        agrees = agreement(case, result, reference)
    counted = operations(case)
    rates = [2.0 * case.rows**2 * INNER / s for s in seconds[PRODUCT]]
    floors = [sum(counted.values()) / rate for rate in rates]
    result_bytes = {OURS: 8 * case.rows**2, PEER: 4 * case.rows**2}
    return {
        "case": {"observations": len(case.x), "rows": case.rows, "parameters": case.parameters},
        "repeats": repeats,
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy", "nngeometry"),
        "seconds": {name: {**summary(s), "all": s} for name, s in seconds.items()},
        "ratio_to_ours": {n: summary(ratios(s, seconds[OURS])) for n, s in seconds.items()},
        "floor": {
            "operations": counted,
            "operations_per_second": summary(rates),
            "seconds": summary(floors),
            "ours_over_floor": summary(ratios(seconds[OURS], floors)),
            "ready_over_floor": summary(ratios(seconds[READY], floors)),
        },
        "eigenvalue_difference": agrees,
        "memory_beyond_result_mib": {
            name: None if peak is None else round((peak - result_bytes[name]) / MIB, 1)
            for name, peak in memory.items()
        },
        "result_mib": {name: round(size / MIB, 1) for name, size in result_bytes.items()},
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    case, floor = figures["case"], figures["floor"]
    table = Table(title="Gram matrix, K = {rows:,}, D = {parameters:,}".format(**case))
    table.add_column("", no_wrap=True)
    for column in ("runs", "median s", "min s", "max s", "÷ ours", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in figures["seconds"].items():
        extra = figures["memory_beyond_result_mib"].get(name)
        ratio = figures["ratio_to_ours"][name]["median"]
        memory = "" if extra is None else f"{extra:.0f}"
        table.add_row(name, str(len(s["all"])), *_three(s), f"{ratio:.2f}", memory)
    ratio = 1 / floor["ours_over_floor"]["median"]
    table.add_row("floor: operations ÷ rate", "", *_three(floor["seconds"]), f"{ratio:.2f}", "")
    console.print(table)
    rate = floor["operations_per_second"]["median"] / 1e9
    console.print(f"Rate of the matrix product: {rate:.0f} GFLOP/s in float64.")
    for name, difference in figures["eigenvalue_difference"].items():
        console.print(f"Eigenvalues against ours, {name}: {difference:.1e} of the largest")


def _three(figures: dict[str, float]) -> list[str]:
    return [f"{figures[key]:.3f}" for key in ("median", "min", "max")]


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the figures.")
    ] = None,
    explicit: Annotated[
        bool | None,
        typer.Option(
            help="The explicit Jacobian in float64 too (7 GB), or not at all; by default in "
            "float32 only, once."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; 1 is the steadiest where others use the machine."),
    ] = None,
) -> None:
    """Time the Gram matrix of a 64-256-256-10 network on 500 digits against peers."""
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    console.width = max(console.width, 100)
    figures = measure(digits_mlp(), repeats, explicit, console)
    show(figures, console)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
