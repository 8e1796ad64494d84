"""The 20 largest eigenvalues of a network's Fisher matrix, against curvlinops with SciPy's eigsh.

All start from the model and its data, so that set-up counts. Products are in float32 unless a
contender says float64; vectors and scalars are in float64, for ARPACK too. Errors are relative to
λ_1, against eigsh to 1e-12 with products in float64, computed once. Only ours makes sure, at a
chance of 1e-6, that no eigenvalue was missed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from machine import machine, versions
from nets import NETS, Net
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.sparse.linalg import LinearOperator, eigsh
from timing import Contender, ratios, round_robin, summary
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import lightlike

OURS, OURS64, PEER = "lightlike", "lightlike, float64", "curvlinops and eigsh"
COUNT, TOLERANCE = 20, 1e-7
# Products that a search takes, roughly: it decides whether a linearisation pays.
EXPECTED = 80
RESULTS = Path(__file__).parent / "results"

Found = tuple[NDArray[np.float64], int]


class Flat(nn.Module):
    """Outputs with every observation in a row of its own, as a mean over all of them needs it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x).flatten(0, -2)
        return found


def ours(net: Net, dtype: str) -> Found:
    """Eigenvalues and the number of products."""
    model, batches, likelihood = net
    products = lightlike.fisher(model, batches, likelihood).products(EXPECTED, dtype=dtype)
    found = lightlike.lanczos(products, COUNT, tolerance=TOLERANCE)
    return found.eigenvalues.numpy(), found.products


def by_eigsh(product: Callable[[Tensor], Tensor], size: int, tolerance: float) -> Found:
    """ARPACK in float64, from a fixed start."""
    count = 0

    def matvec(v: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal count
        count += 1
        return product(torch.from_numpy(v.ravel())).double().numpy()

    operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    values, _ = eigsh(operator, k=COUNT, which="LA", tol=tolerance, v0=start)
    return np.sort(values)[::-1].copy(), count


def peer(net: Net) -> Found:
    """curvlinops' generalised Gauss–Newton matrix, which is the Fisher matrix here."""
    from curvlinops import GGNLinearOperator

    model, batches, _ = net
    data = [(x, y.flatten()) for x, y in batches]
    flat = Flat(model)
    # Forward mode needs attention by plain products, from the operator's own checks on.
    with sdpa_kernel(SDPBackend.MATH):
        operator = GGNLinearOperator(
            flat,
            nn.CrossEntropyLoss(),
            list(flat.parameters()),
            data,
            num_data=sum(len(x) for x, _ in data),
        )
        return by_eigsh(lambda v: (operator @ v.float()).detach(), operator.shape[0], TOLERANCE)


def reference(net: Net) -> NDArray[np.float64]:
    """What errors are counted from."""
    model, batches, likelihood = net
    products = lightlike.fisher(model, batches, likelihood).products(3 * EXPECTED)
    return by_eigsh(lambda v: products @ v, products.shape[0], 1e-12)[0]


def measure(case: str, repeats: int, threads: int, console: Console) -> dict[str, Any]:
    """All figures of a case."""
    torch.set_num_threads(threads)
    net = NETS[case]()
    work = {
        OURS: lambda: ours(net, "float32"),
        OURS64: lambda: ours(net, "float64"),
        PEER: lambda: peer(net),
    }
    last: dict[str, Found] = {}

    def keep(name: str) -> Callable[[], object]:
        return lambda: last.__setitem__(name, work[name]())

    with console.status("reference") as status:
        exact = reference(net)
        # Long work is worth no warm-up, and what does not compete one round.
        contenders = [
            Contender(name, keep(name), 1 if name == OURS64 else repeats) for name in work
        ]
        seconds = round_robin(contenders, repeats, status.update)
    return {
        "case": case,
        "parameters": sum(p.numel() for p in net[0].parameters()),
        "count": COUNT,
        "tolerance": TOLERANCE,
        "repeats": repeats,
        "machine": machine(),
        "versions": versions("lightlike", "torch", "scipy", "curvlinops-for-pytorch"),
        "seconds": {n: {**summary(s), "all": s} for n, s in seconds.items()},
        "ratio_to_ours": {n: summary(ratios(s, seconds[OURS])) for n, s in seconds.items()},
        "products": {n: found[1] for n, found in last.items()},
        "error": {n: float(abs(f[0] - exact).max() / exact[0]) for n, f in last.items()},
        "eigenvalues": exact.tolist(),
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(title=f"{figures['case']}, D = {figures['parameters']:,}: top {COUNT}")
    for column in ("", "runs", "median s", "÷ ours", "products", "error / λ₁"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, s in figures["seconds"].items():
        table.add_row(
            name,
            str(len(s["all"])),
            f"{s['median']:.2f}",
            f"{figures['ratio_to_ours'][name]['median']:.2f}",
            str(figures["products"][name]),
            f"{figures['error'][name]:.1e}",
        )
    console.print(table)


def main(
    case: Annotated[str, typer.Argument(help=f"One of {', '.join(NETS)}.")],
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 3,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Where to write the figures; results/leading-CASE.json."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for all contenders.")] = 2,
) -> None:
    """Time the largest eigenvalues of a case against curvlinops."""
    if case not in NETS:
        raise typer.BadParameter(f"{case!r} is not one of {', '.join(NETS)}")
    console = Console()
    figures = measure(case, repeats, threads, console)
    show(figures, console)
    json_file = json_file or RESULTS / f"leading-{case}.json"
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
