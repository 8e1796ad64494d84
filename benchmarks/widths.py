"""Time and memory of the Gram matrix as a network grows, for a fixed number of rows: see README.md.

Back-propagating a row costs operations in proportion to D; multiplying it with the others only in
proportion to the widths, about √D. Memory beyond the model is that of the rows in factored form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from cases import digits
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from timing import Contender, peak_memory, round_robin, summary
from torch import Tensor, nn

import lightlike

WIDTHS = (64, 128, 256, 512, 1_024, 2_048)
HIDDEN, CLASSES, OBSERVATIONS = 3, 10, 100
ROWS = OBSERVATIONS * (CLASSES - 1)
MIB = 2**20
RESULTS = Path(__file__).parent / "results"


def network(width: int) -> nn.Module:
    """ReLU layers 64-w-w-w-10 at their initialisation: nothing here depends on the values."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for ins, outs in pairwise((64, *[width] * HIDDEN, CLASSES)):
            layers += [nn.Linear(ins, outs), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def work(width: int) -> Callable[[], Tensor]:
    """A Aᵀ of a Fisher that is ready, so that the copy of the model in float64 is not counted."""
    fisher = lightlike.fisher(network(width), (digits(OBSERVATIONS)[0],), "categorical")
    root = fisher.root
    assert root.shape[0] == ROWS  # also takes the survey of the data
    return root.gram


def prepare(width: int, threads: int, small: bool) -> Callable[[], object]:
    """For the measurement of memory, in a process of its own."""
    torch.set_num_threads(threads)
    return work(WIDTHS[0] if small else width)


def measure(
    widths: tuple[int, ...], repeats: int, threads: int, console: Console
) -> dict[str, Any]:
    """All figures."""
    torch.set_num_threads(threads)
    with console.status("memory, in child processes") as status:
        peaks = {w: peak_memory(partial(prepare, w, threads)) for w in widths}
        contenders = [Contender(str(w), work(w)) for w in widths]
        seconds = round_robin(contenders, repeats, status.update)
    found = []
    for width in widths:
        parameters = sum(p.numel() for p in network(width).parameters())
        by_row = [s / ROWS for s in seconds[str(width)]]
        peak = peaks[width]
        found.append(
            {
                "width": width,
                "parameters": parameters,
                "seconds_per_row": {**summary(by_row), "all": by_row},
                "model_mib": 8 * parameters / MIB,
                "factors_mib": 8 * ROWS * (HIDDEN * width + CLASSES) / MIB,
                "jacobian_mib": 8 * ROWS * parameters / MIB,
                "memory_beyond_result_mib": None if peak is None else (peak - 8 * ROWS**2) / MIB,
            }
        )
    return {
        "hidden_layers": HIDDEN,
        "observations": OBSERVATIONS,
        "rows": ROWS,
        "result_mib": 8 * ROWS**2 / MIB,
        "repeats": repeats,
        "machine": machine(),
        "versions": versions("lightlike", "torch"),
        "widths": found,
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(title=f"Gram matrix of {figures['rows']} rows against width")
    for column in ("width", "D", "µs a row", "ns a row and 1,000 D", "MiB", "model", "A"):
        table.add_column(column, justify="right", no_wrap=True)
    for f in figures["widths"]:
        seconds, peak = f["seconds_per_row"]["median"], f["memory_beyond_result_mib"]
        table.add_row(
            f"{f['width']:,}",
            f"{f['parameters']:,}",
            f"{seconds * 1e6:.1f}",
            f"{seconds / f['parameters'] * 1e12:.0f}",
            "" if peak is None else f"{peak:.0f}",
            f"{f['model_mib']:.1f}",
            f"{f['jacobian_mib']:,.0f}",
        )
    console.print(table)


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    largest: Annotated[int, typer.Option(help="Leave out wider networks.")] = WIDTHS[-1],
    json_file: Annotated[Path, typer.Option("--json", help="Where to write the figures.")] = RESULTS
    / "widths.json",
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
) -> None:
    """Time per row and memory of the Gram matrix as an MLP grows in width."""
    console = Console()
    console.width = max(console.width, 100)
    widths = tuple(w for w in WIDTHS if w <= largest)
    figures = measure(widths, repeats, threads, console)
    show(figures, console)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
