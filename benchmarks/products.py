"""Products with the Fisher matrix against peers and against one gradient: see README.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from machine import machine, versions
from product_cases import MAKERS, ProductCase, make_case
from product_peers import PEERS, Product, gradient, reference
from rich.console import Console
from rich.table import Table
from timing import Contender, ratios, round_robin, summary
from torch import Tensor

import lightlike as ll

RESULTS = Path(__file__).parent / "results"
MANY = 1000
DTYPES = {"float32": torch.float32, "float64": torch.float64}
GRADIENT, KEPT, PLAIN = "one gradient", "lightlike, kept", "lightlike, nothing kept"


def named(name: str, dtype: str) -> str:
    """A contender's name with its type."""
    return f"{name}, {dtype}"


def vector(case: ProductCase, seed: int = 1) -> Tensor:
    """A random v (D,)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(case.parameters, generator=generator, dtype=torch.float64)


def fisher(case: ProductCase) -> ll.Fisher:
    """Î, the data surveyed."""
    F = ll.fisher(case.model, (case.x, case.y), "categorical")
    assert F.root.shape[0]
    return F


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds."""
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def products(case: ProductCase) -> tuple[dict[str, Product], dict[str, Any], dict[str, str]]:
    """What multiplies, what it took to set up, and who cannot."""
    v = vector(case)
    F, survey = timed(lambda: fisher(case))
    found: dict[str, Product] = {}
    setup: dict[str, Any] = {"lightlike, survey of the data": survey}
    refusals: dict[str, str] = {}
    for dtype in DTYPES:
        kept = F.products(MANY, dtype=dtype)
        _, first = timed(partial(kept.__matmul__, v))
        setup[named(KEPT, dtype)] = {
            "seconds": kept.setup_seconds,
            "first_product_and_setup": first,
            "way": kept.way,
            "reason": kept.reason,
            "kept_mib": kept.kept_bytes / 2**20,
        }
        found[named(KEPT, dtype)] = kept.__matmul__
        plain = F.products(MANY, dtype=dtype, memory=0)
        _, first = timed(partial(plain.__matmul__, v))
        setup[named(PLAIN, dtype)] = {"seconds": plain.setup_seconds, "way": plain.way}
        found[named(PLAIN, dtype)] = plain.__matmul__
        for peer, make in PEERS.items():
            name = named(peer, dtype)
            if dtype == "float64" and peer != "curvlinops":
                continue
            try:
                product, seconds = timed(partial(make, case, DTYPES[dtype]))
                product(v)
            except Exception as error:  # whatever a peer raises is its answer
                said = f"{type(error).__name__}: {error}".splitlines()[0]
                refusals[name] = said[:200]
            else:
                found[name], setup[name] = product, {"seconds": seconds}
    return found, setup, refusals


def errors(case: ProductCase, found: dict[str, Product]) -> dict[str, float]:
    """Distance of each one's product from the reference in float64, relative to its norm.

    nngeometry does not divide by N; it is compared after that.
    """
    v = vector(case, 2)
    expected = reference(case)(v)
    apart = {}
    for name, product in found.items():
        result = product(v).detach().double()
        if name.startswith("nngeometry"):
            result = result * (expected @ result) / (result @ result)
        apart[name] = float((result - expected).norm() / expected.norm())
    return apart


def measure(name: str, repeats: int, threads: int, console: Console) -> dict[str, Any]:
    """All figures of a case."""
    torch.set_num_threads(threads)
    case = make_case(name)
    with console.status(f"{name}: setting up") as status:
        found, setup, refusals = products(case)
        v = vector(case)

        def repeated(work: Callable[[], object]) -> Callable[[], object]:
            return lambda: [work() for _ in range(case.inner)][-1]

        contenders = [
            Contender(named(GRADIENT, dtype), repeated(gradient(case, kind)))
            for dtype, kind in DTYPES.items()
        ]
        contenders += [
            Contender(other, repeated(partial(product, v))) for other, product in found.items()
        ]
        taken = round_robin(contenders, repeats, lambda text: status.update(f"{name}: {text}"))
        seconds = {n: [s / case.inner for s in some] for n, some in taken.items()}
        status.update(f"{name}: errors")
        apart = errors(case, found)
    figures: dict[str, Any] = {
        "case": {"name": name, "title": case.title, "parameters": case.parameters},
        "observations": len(case.y),
        "repeats": repeats,
        "machine": machine(),
        "versions": versions(
            "lightlike", "torch", "curvlinops-for-pytorch", "hessian-eigenthings", "nngeometry"
        ),
        "seconds": {n: {**summary(s), "all": s} for n, s in seconds.items()},
        "gradients": {
            n: summary(ratios(s, seconds[named(GRADIENT, n.rpartition(", ")[2])]))
            for n, s in seconds.items()
        },
        "ratio_to_ours": {
            n: summary(ratios(s, seconds[named(KEPT, n.rpartition(", ")[2])]))
            for n, s in seconds.items()
        },
        "setup": setup,
        "pays_from": {},
        "error": apart,
        "refusals": refusals,
    }
    for dtype in DTYPES:
        middle = figures["seconds"]
        spared = middle[named(PLAIN, dtype)]["median"] - middle[named(KEPT, dtype)]["median"]
        spent = setup[named(KEPT, dtype)]["seconds"]
        figures["pays_from"][dtype] = spent / spared if spared > 0 else None
    return figures


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as a table."""
    title = "{title}, D = {parameters:,}".format(**figures["case"])
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for column in ("median ms", "min", "max", "gradients", "÷ ours", "set-up s", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in figures["seconds"].items():
        setup, apart = figures["setup"].get(name), figures["error"].get(name)
        table.add_row(
            name,
            *(f"{1e3 * s[key]:.2f}" for key in ("median", "min", "max")),
            f"{figures['gradients'][name]['median']:.2f}",
            f"{figures['ratio_to_ours'][name]['median']:.2f}",
            "" if setup is None else f"{setup['seconds']:.2f}",
            "" if apart is None else f"{apart:.1e}",
        )
    console.print(table)
    for dtype, count in figures["pays_from"].items():
        text = "never" if count is None else f"from {count:.1f} products on"
        console.print(f"Keeping pays {text} in {dtype}.")
    for name, why in figures["refusals"].items():
        console.print(f"{name} does not run: {why}", markup=False)


def main(
    case: Annotated[str, typer.Argument(help=f"One of {', '.join(MAKERS)}, or all.")],
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads, for all contenders.")] = 2,
    folder: Annotated[Path, typer.Option("--results", help="Where to write figures.")] = RESULTS,
) -> None:
    """Time products with the Fisher matrix of a case against peers."""
    if case not in (*MAKERS, "all"):
        raise typer.BadParameter(f"{case!r} is not one of {', '.join(MAKERS)}, all")
    console = Console()
    console.width = max(console.width, 110)
    for name in MAKERS if case == "all" else [case]:
        figures = measure(name, repeats, threads, console)
        show(figures, console)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
        (folder / f"products-{name}.json").write_text(text)


if __name__ == "__main__":
    typer.run(main)
