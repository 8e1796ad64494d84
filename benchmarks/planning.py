"""Plans against what measurements then take, each in a fresh process: see README.md."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import cases
import nets
import torch
import typer
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_diabetes, load_digits
from timing import high_water, lower_mark
from torch import Tensor, nn
from torch.nn import functional

import lightlike as ll

RESULTS = Path(__file__).parent / "results" / "planning.json"
MIB = 2**20
# Seconds and bytes below which constants dominate, and runs are counted in a group of their own.
SHORT, SMALL = 1.0, 50 * MIB
# Factors that a plan is to keep within.
TIME, MEMORY = 1.5, 1.25

Subject = tuple[nn.Module, Any, str]


class Tied(nn.Module):
    """A causal transformer of one block whose head is its table of tokens."""

    def __init__(self, symbols: int, tokens: int, features: int) -> None:
        super().__init__()
        self.token, self.position = (nn.Embedding(n, features) for n in (symbols, tokens))
        self.block = cases.TransformerBlock(features, 4)
        self.after = nn.LayerNorm(features)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position(places)
        return functional.linear(self.after(self.block(x)), self.token.weight)


def mlp(samples: int | None) -> Subject:
    """64-256-256-10 on digits in one batch."""
    case = cases.mlp(samples or 500)
    return case.model, (case.x, _digits(len(case.x))), "categorical"


def cnn(samples: int | None) -> Subject:
    """Two convolutions on digits, in batches of 64."""
    case = cases.cnn(samples or 300)
    y = _digits(len(case.x))
    return case.model, list(zip(case.x.split(64), y.split(64), strict=True)), "categorical"


def gpt(samples: int | None) -> Subject:
    """Four blocks of width 128 on sequences of characters, one batch."""
    case = cases.gpt(samples or 2, "gpt")
    return case.model, (case.x, case.x.roll(-1, 1)), "categorical"


def resnet(samples: int | None) -> Subject:
    """Six residual blocks with batch normalisation on noise, in batches of 16."""
    model, batches, likelihood = nets.resnet()
    x, y = (t[: samples or 48] for t in batches[0])
    return model, list(zip(x.split(16), y.split(16), strict=True)), likelihood


def regression(samples: int | None) -> Subject:
    """10-40-40-1 with tanh on 442 people's diabetes, repeated with noise to 3,000, one number."""
    table = load_diabetes()
    draws = torch.Generator().manual_seed(0)
    pick = torch.randint(len(table.data), (samples or 3000,), generator=draws)
    x = torch.tensor(table.data * 20)[pick] + 0.1 * torch.randn(len(pick), 10, generator=draws)
    y = torch.tensor((table.target - table.target.mean()) / table.target.std())[pick, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [m for a, b in pairwise((10, 40, 40, 1)) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double(), (x, y), "gaussian"


def tied(samples: int | None) -> Subject:
    """One block of width 64 with tied embeddings on sequences of 32 characters, batches of 2."""
    symbols = cases.text()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tied(len(cases.SYMBOLS), cases.TOKENS, 64)
    windows = symbols.unfold(0, cases.TOKENS + 1, cases.TOKENS)
    batches = windows[64:].split(16)
    cases.train(model, lambda s: (batches[s][:, :-1], batches[s][:, 1:]), 40)
    held = windows[: samples or 4].contiguous()
    x, y = held[:, :-1].contiguous(), held[:, 1:].contiguous()
    return model, list(zip(x.split(2), y.split(2), strict=True)), "categorical"


def _digits(observations: int) -> Tensor:
    return torch.tensor(load_digits().target[:observations])


SUBJECTS: dict[str, Callable[[int | None], Subject]] = {
    f.__name__: f for f in (mlp, cnn, gpt, resnet, regression, tied)
}


@dataclass(frozen=True)
class Run:
    """One measurement that is planned, then made."""

    case: str
    options: dict[str, Any] = field(default_factory=dict)
    samples: int | None = None

    @property
    def name(self) -> str:
        """Case and options, for people."""
        words = [str(v) if k == "method" else k for k, v in self.options.items()]
        return " ".join([self.case, *([] if self.samples is None else [str(self.samples)]), *words])


RUNS = [
    *(Run(name) for name in SUBJECTS),
    Run("mlp", samples=100),
    *(Run("regression", {"method": m}) for m in ("gram", "svd")),
    *(Run("mlp", {"method": m}) for m in ("sketch", "slq", "lanczos", "kronecker")),
    *(Run("gpt", {"method": m}) for m in ("sketch", "slq", "kronecker")),
    *(Run("cnn", {"method": m}) for m in ("sketch", "lanczos", "kronecker")),
    *(Run(name, {"explain": True}) for name in ("mlp", "cnn", "tied")),
    *(Run(name, {"saturation": True}) for name in ("cnn", "regression", "tied")),
    Run("cnn", {"layers": True, "projections": True}),
    Run("cnn", {"dtype": "float32"}),
]


def child(run: Run, threads: int | None, cpu: bool, sender: Connection) -> None:
    """Plan and measure in this process, after a small instance that loads the libraries."""
    if cpu:
        # The plan's own trials by the same clock.
        time.perf_counter = time.process_time
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    make, few = SUBJECTS[run.case], 12 if run.case not in ("gpt", "tied", "resnet") else 2
    ll.plan(*make(few), **run.options)
    ll.measure(*make(few), **run.options, progress=False)
    subject = make(run.samples)
    start = time.perf_counter()
    planned = ll.plan(*subject, **run.options)
    planning = time.perf_counter() - start
    gc.collect()
    # What was freed goes back, so that it is not there to be taken again.
    ctypes.CDLL(None).malloc_trim(0)
    before = lower_mark()
    wall, cpu = time.perf_counter(), time.process_time()
    made = ll.measure(*subject, **run.options, progress=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = high_water() - before
    sender.send(
        {
            "run": asdict(run),
            "name": run.name,
            "route": planned.method,
            "reason": made.record["reason"],
            "parameters": planned.parameters,
            "rows": planned.rows,
            "planned": {"seconds": planned.seconds, "bytes": planned.memory},
            "measured": {"seconds": wall, "cpu_seconds": cpu, "bytes": peak},
            "planning_seconds": planning,
            "stages": getattr(planned, "stages", {}),
        }
    )


def play(run: Run, threads: int | None, cpu: bool) -> dict[str, Any]:
    """The figures of one run, from a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(run, threads, cpu, sender))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    finally:
        process.join()
    return found


def ratios(found: dict[str, Any], clock: str) -> tuple[float, float]:
    """Planned over measured: time by a clock, and memory."""
    planned, measured = found["planned"], found["measured"]
    return planned["seconds"] / measured[clock], planned["bytes"] / measured["bytes"]


def summary(results: list[dict[str, Any]], clock: str) -> dict[str, Any]:
    """How many plans keep within the factors, of long or large runs and of the others."""
    found: dict[str, Any] = {}
    for what, index, bound, limit in (("time", 0, TIME, SHORT), ("memory", 1, MEMORY, SMALL)):
        key = clock if what == "time" else "bytes"
        for group in ("large", "small"):
            mine = [r for r in results if (r["measured"][key] >= limit) == (group == "large")]
            off = [abs(math.log(ratios(r, clock)[index])) for r in mine]
            found[f"{what}, {group}"] = {
                "runs": len(off),
                "within": sum(value <= math.log(bound) for value in off),
                "worst": math.exp(max(off, default=0.0)),
            }
    return found


def show(results: list[dict[str, Any]], clock: str, console: Console) -> None:
    """Print the figures."""
    table = Table(title=f"Plans against measurements ({clock})")
    for column in ("run", "route", "s planned", "s", "÷", "MiB planned", "MiB", "÷", "plan s"):
        table.add_column(column, justify="left" if column in ("run", "route") else "right")
    for r in results:
        time_ratio, memory_ratio = ratios(r, clock)
        table.add_row(
            r["name"], r["route"],
            f"{r['planned']['seconds']:.2f}", f"{r['measured'][clock]:.2f}", f"{time_ratio:.2f}",
            f"{r['planned']['bytes'] / MIB:.0f}", f"{r['measured']['bytes'] / MIB:.0f}",
            f"{memory_ratio:.2f}", f"{r['planning_seconds']:.2f}",
        )  # fmt: skip
    console.print(table)
    for name, part in summary(results, clock).items():
        console.print(
            f"{name}: {part['within']} of {part['runs']} within the factor, worst "
            f"{part['worst']:.2f}"
        )


def main(
    only: Annotated[str | None, typer.Option(help="Runs whose name has this in it.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; set OMP_NUM_THREADS to the same, for SciPy."),
    ] = None,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="CPU seconds, for one thread on a busy machine.")
    ] = False,
    json_file: Annotated[
        Path, typer.Option("--json", help="Where to write the figures.")
    ] = RESULTS,
) -> None:
    """Plan, measure, and compare."""
    clock = "cpu_seconds" if cpu else "seconds"
    console = Console()
    console.width = max(console.width, 120)
    results = []
    for run in RUNS:
        if only is None or only in run.name:
            with console.status(run.name):
                results.append(play(run, threads, cpu))
            show(results[-1:], clock, console)
    show(results, clock, console)
    figures = {
        "clock": clock,
        "factors": {"time": TIME, "memory": MEMORY},
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy"),
        "summary": summary(results, clock),
        "runs": results,
    }
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
