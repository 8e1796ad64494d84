"""The Gram matrix of the whitened Jacobian against peers, one case at a time: see README.md."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cases import CASES, Case
from floor import GEMM_OPERATIONS, SIDE, operations
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from timing import Contender, peak_memory, ratios, round_robin, summary
from torch import Tensor

import lightlike

OURS, READY = "lightlike, from the model", "lightlike, Fisher ready"
OURS32 = "lightlike, float32"
NNGEOMETRY, TANGENTS = "nngeometry, float32", "neural-tangents, float32"
NNGEOMETRY64, TANGENTS64 = "nngeometry, float64", "neural-tangents, float64"
EXPLICIT32, EXPLICIT64 = "explicit Jacobian, float32", "explicit Jacobian, float64"
EIGENVALUES, PRODUCT = "eigvalsh of the result", "product K × 256, fresh result"
RATE = f"product of {SIDE:,}², result ready"
INNER = 256
MIB = 2**20
RESULTS = Path(__file__).parent / "results"


def ours(case: Case, dtype: str = "float64") -> Tensor:
    """A Aᵀ through the public interface, survey of the data and checks included."""
    return lightlike.fisher(case.model, (case.x,), "categorical", dtype=dtype).root.gram()


def work(contender: str, case: Case) -> Callable[[], object]:
    """What a contender does on a case; peers are imported only where they take part."""
    if contender == OURS:
        return partial(ours, case)
    if contender == OURS32:
        return partial(ours, case, "float32")
    if contender == READY:
        ready = lightlike.fisher(case.model, (case.x,), "categorical")
        return lambda: ready.root.gram()
    dtype = torch.float32 if contender.endswith("float32") else torch.float64
    if contender in (TANGENTS, TANGENTS64):
        from peers_jax import prepare_tangents

        return prepare_tangents(case.kind, case.model, case.x, dtype)
    from peers import explicit_gram, nngeometry_gram

    if contender in (NNGEOMETRY, NNGEOMETRY64):
        return partial(nngeometry_gram, case.model, case.x, dtype)
    return partial(explicit_gram, case.model, case.x, dtype)


# Samples of the instance that loads libraries and finds out who can do the case at all.
SMALL = {"mlp": 20, "cnn": 20, "gpt-1664": 1, "gpt-4992": 1}


def prepare(contender: str, name: str, threads: int, small: bool) -> Callable[[], object]:
    """For the measurement of memory, in a process of its own."""
    torch.set_num_threads(threads)
    return work(contender, CASES[name](SMALL[name] if small else None))


def entrants(name: str, explicit: bool) -> tuple[list[str], dict[str, str]]:
    """Who can do the case, and why the others cannot, from a small instance of it."""
    case = CASES[name](SMALL[name])
    able, refusals = [OURS, READY, OURS32], {}
    for contender in (NNGEOMETRY, NNGEOMETRY64, TANGENTS, TANGENTS64):
        try:
            work(contender, case)()
        except Exception as error:  # whatever a peer raises is its answer
            refusals[contender] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        else:
            able.append(contender)
    return able + [EXPLICIT32, EXPLICIT64] * explicit, refusals


def difference(mine: Tensor, other: Tensor) -> float:
    """Largest difference of eigenvalues relative to the largest of mine."""
    return float((torch.linalg.eigvalsh(other) - mine).abs().max() / mine[-1])


def agreement(case: Case, able: list[str], result: Tensor, reference: bool) -> dict[str, float]:
    """How far the contenders' eigenvalues are from ours.

    The tangent kernel J Jᵀ has no likelihood; with a Gaussian one of variance 1 it is N A Aᵀ.
    """
    mine = torch.linalg.eigvalsh(result)
    found = {OURS32: difference(mine, ours(case, "float32"))}
    if NNGEOMETRY in able:
        from peers import as_matrix, nngeometry_gram

        gram = as_matrix(nngeometry_gram(case.model, case.x))
        found[NNGEOMETRY] = difference(mine, gram.double())
    if TANGENTS in able:
        from peers_jax import prepare_tangents, tangents_as_matrix

        kernel = prepare_tangents(case.kind, case.model, case.x, torch.float32)()
        tangents = tangents_as_matrix(kernel)
        gaussian = lightlike.fisher(case.model, (case.x,), "gaussian").root.gram()
        eigenvalues = torch.linalg.eigvalsh(gaussian) * case.observations
        found[TANGENTS] = difference(eigenvalues, tangents.double())
    if reference:
        explicit = work(EXPLICIT64, case)()
        assert isinstance(explicit, Tensor)
        found[EXPLICIT64] = difference(mine, explicit)
    return found


def contenders(case: Case, able: list[str], result: Tensor) -> list[Contender]:
    """What is timed, in order."""
    factor = torch.randn(case.rows, INNER, dtype=torch.float64)
    left, right, out = (torch.randn(SIDE, SIDE, dtype=torch.float64) for _ in range(3))
    return [
        *(Contender(name, work(name, case)) for name in able),
        Contender(PRODUCT, lambda: factor @ factor.T),
        Contender(RATE, lambda: torch.mm(left, right, out=out)),
        Contender(EIGENVALUES, lambda: torch.linalg.eigvalsh(result)),
    ]


def floor(case: Case, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Operations over the machine's rate, and what the contenders take over that."""
    rates = {
        RATE: [GEMM_OPERATIONS / s for s in seconds[RATE]],
        PRODUCT: [2.0 * case.rows**2 * INNER / s for s in seconds[PRODUCT]],
    }
    found: dict[str, Any] = {"operations_per_second": {n: summary(r) for n, r in rates.items()}}
    for causal in (False, True) if case.causal else (False,):
        counted = operations(case.layers, case.attentions, len(case.x), case.rows, causal=causal)
        floors = [sum(counted.values()) / rate for rate in rates[RATE]]
        found["causal" if causal else "full"] = {
            "operations": counted,
            "seconds": summary(floors),
            "ours_over_floor": summary(ratios(seconds[OURS], floors)),
            "ready_over_floor": summary(ratios(seconds[READY], floors)),
        }
    return found


def result_bytes(contender: str, case: Case) -> int:
    """Size of what a contender returns: float64 for ours; m rows an observation for tangents."""
    if contender in (TANGENTS, TANGENTS64):
        size = 4 if contender == TANGENTS else 8
        return size * (case.observations * case.classes) ** 2
    return (8 if contender in (OURS, OURS32, NNGEOMETRY64) else 4) * case.rows**2


def measure(
    name: str, repeats: int, threads: int, options: dict[str, bool], console: Console
) -> dict[str, Any]:
    """All figures of a case; options: explicit, reference, memory, agreement."""
    torch.set_num_threads(threads)
    with console.status("who takes part") as status:
        report = status.update
        able, refusals = entrants(name, options["explicit"])
        case = CASES[name](None)
        peaks: dict[str, int | None] = {}
        for contender in able if options["memory"] else []:
            # The explicit Jacobian takes A and more, and as long again to say so.
            if contender not in (READY, EXPLICIT32, EXPLICIT64):
                report(f"memory, in a child process: {contender}")
                peaks[contender] = peak_memory(partial(prepare, contender, name, threads))
        planned = lightlike.fisher(case.model, (case.x,), "categorical").root.footprint()
        result = ours(case)
        seconds = round_robin(contenders(case, able, result), repeats, report)
        report("comparing eigenvalues")
        agrees = {}
        if options["agreement"]:
            agrees = agreement(case, able, result, options["reference"])
    packages = ["lightlike", "torch", "numpy", "scipy", "nngeometry"]
    return {
        "case": {
            "name": case.name,
            "title": case.title,
            "observations": case.observations,
            "rows": case.rows,
            "parameters": case.parameters,
        },
        "repeats": repeats,
        "machine": machine(),
        "versions": versions(*packages, "jax", "neural-tangents"),
        "seconds": {n: {**summary(s), "all": s} for n, s in seconds.items()},
        "ratio_to_ours": {n: summary(ratios(s, seconds[OURS])) for n, s in seconds.items()},
        "ratio_to_equal": {
            n: summary(ratios(s, seconds[OURS32 if n.endswith("float32") else OURS]))
            for n, s in seconds.items()
        },
        "refusals": refusals,
        "floor": floor(case, seconds),
        "eigenvalue_difference": agrees,
        "memory_beyond_result_mib": {
            n: None if peak is None else round((peak - result_bytes(n, case)) / MIB, 1)
            for n, peak in peaks.items()
        },
        "planned_beyond_result_mib": round((planned.total - planned.result) / MIB, 1),
        "result_mib": {n: round(result_bytes(n, case) / MIB, 1) for n in peaks},
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(title="{title}: K = {rows:,}, D = {parameters:,}".format(**figures["case"]))
    table.add_column("", no_wrap=True)
    for column in ("runs", "median s", "min s", "max s", "÷ ours", "÷ equal", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in figures["seconds"].items():
        extra = figures["memory_beyond_result_mib"].get(name)
        compared = (figures[key][name]["median"] for key in ("ratio_to_ours", "ratio_to_equal"))
        memory = "" if extra is None else f"{extra:.0f}"
        table.add_row(name, str(len(s["all"])), *_three(s), *(f"{r:.2f}" for r in compared), memory)
    for kind in [k for k in ("full", "causal") if k in figures["floor"]]:
        part = figures["floor"][kind]
        ratio = 1 / part["ours_over_floor"]["median"]
        table.add_row(f"floor, {kind}", "", *_three(part["seconds"]), f"{ratio:.2f}", "", "")
    console.print(table)
    planned = figures["planned_beyond_result_mib"]
    console.print(f"Memory that the plan foresees for ours: {planned:.0f} MiB.")
    for name, rate in figures["floor"]["operations_per_second"].items():
        console.print(f"{name}: {rate['median'] / 1e9:.0f} GFLOP/s in float64")
    for name, why in figures["refusals"].items():
        console.print(f"{name} does not run: {why}", markup=False)
    for name, apart in figures["eigenvalue_difference"].items():
        console.print(f"Eigenvalues against ours, {name}: {apart:.1e} of the largest")


def _three(figures: dict[str, float]) -> list[str]:
    return [f"{figures[key]:.3f}" for key in ("median", "min", "max")]


def main(
    case: Annotated[str, typer.Argument(help=f"One of {', '.join(CASES)}.")],
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Where to write the figures; results/gram-CASE.json."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for all contenders.")] = 2,
    explicit: Annotated[bool, typer.Option(help="Time the explicit Jacobian, once.")] = True,
    reference: Annotated[
        bool, typer.Option(help="Compare with the explicit Jacobian in float64 (minutes).")
    ] = False,
    memory: Annotated[bool, typer.Option(help="Measure memory, in child processes.")] = True,
    agreement: Annotated[bool, typer.Option(help="Compare eigenvalues.")] = True,
) -> None:
    """Time the Gram matrix of a case against peers."""
    if case not in CASES:
        raise typer.BadParameter(f"{case!r} is not one of {', '.join(CASES)}")
    os.environ["NPROC"] = str(threads)  # jax reads it when it starts, here and in children
    console = Console()
    console.width = max(console.width, 100)
    options = {
        "explicit": explicit,
        "reference": reference,
        "memory": memory,
        "agreement": agreement,
    }
    figures = measure(case, repeats, threads, options, console)
    show(figures, console)
    json_file = json_file or RESULTS / f"gram-{case}.json"
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
