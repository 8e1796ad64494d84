"""Redraw the tables of README.md from the files in results/: `python benchmarks/page.py`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a case, or "widths".
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

FOLDER = Path(__file__).parent
PAGE, RESULTS = FOLDER / "README.md", FOLDER / "results"
SLOT = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {"full": "floor", "causal": "floor, known zeros left out"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def spread(figures: dict[str, float]) -> str:
    """The smallest and the largest."""
    return f"{number(figures['min'])}–{number(figures['max'])}"


def describe(figures: dict[str, Any]) -> str:
    """The machine and the versions, in a sentence."""
    m, v = figures["machine"], dict(figures["versions"])
    v.pop("lightlike")
    libraries = ", ".join(f"{name} {version}" for name, version in v.items())
    return (
        f"Threads: {m['torch_threads']} on {m['cores']} cores ({m['cpu_capability']}), "
        f"{m['memory_gib']:.0f} GiB; {libraries}."
    )


def draw_gram(figures: dict[str, Any]) -> str:
    """The table of a case, and what cannot be told in a table."""
    memory, floor = figures["memory_beyond_result_mib"], figures["floor"]
    rows = []
    for name, s in figures["seconds"].items():
        extra = memory.get(name)
        compared = (figures[key][name]["median"] for key in ("ratio_to_ours", "ratio_to_equal"))
        mib = "" if extra is None else f"{max(0.0, extra):,.0f}"
        taken = [str(len(s["all"])), number(s["median"]), spread(s)]
        rows.append([name, *taken, *(number(r) for r in compared), mib])
    for kind, title in NAMES.items():
        if kind in floor:
            seconds = floor[kind]["seconds"]
            ratio = number(1 / floor[kind]["ours_over_floor"]["median"])
            rows.append([title, "", number(seconds["median"]), spread(seconds), ratio, "", ""])
    case = figures["case"]
    lines = [
        "{title}: {observations:,} observations, K = {rows:,}, D = {parameters:,}.".format(**case),
        "",
        table(["", "runs", "median s", "range s", "÷ ours", "÷ equal", "MiB"], rows),
        "",
    ]
    for kind, title in NAMES.items():
        if kind in floor:
            parts = floor[kind]["operations"].items()
            counted = ", ".join(f"{part} {count / 1e9:,.2f}" for part, count in parts)
            times = number(floor[kind]["ready_over_floor"]["median"])
            lines.append(f"- {title.capitalize()}: 10⁹ operations for {counted}. A ready Fisher "
                         f"takes {times} times as long.")  # fmt: skip
    rates = floor["operations_per_second"].items()
    speeds = "; ".join(f"{name}: {rate['median'] / 1e9:.0f}" for name, rate in rates)
    lines.append(f"- GFLOP/s in float64 — {speeds}.")
    planned = figures["planned_beyond_result_mib"]
    lines.append(f"- Memory that the plan foresees for ours: {planned:,.0f} MiB beyond the result.")
    apart = figures["eigenvalue_difference"].items()
    if apart:
        found = "; ".join(f"{name}: {value:.1e}" for name, value in apart)
        lines.append(f"- Largest difference of an eigenvalue, relative to the largest — {found}.")
    lines += [f"- {name} does not run: `{why}`." for name, why in figures["refusals"].items()]
    return "\n".join([*lines, f"- {describe(figures)}"])


def draw_widths(figures: dict[str, Any]) -> str:
    """The table of time and memory against width."""
    rows = []
    for f in figures["widths"]:
        seconds, peak = f["seconds_per_row"], f["memory_beyond_result_mib"]
        micro = {key: seconds[key] * 1e6 for key in ("median", "min", "max")}
        rows.append(
            [
                f"{f['width']:,}",
                f"{f['parameters']:,}",
                number(micro["median"]),
                spread(micro),
                number(seconds["median"] / f["parameters"] * 1e12),
                "" if peak is None else number(max(0.0, peak)),
                number(f["model_mib"]),
                number(f["factors_mib"]),
                number(f["jacobian_mib"]),
            ]
        )
    header = [
        "width", "D", "µs a row", "range", "ns a row and 1,000 D", "MiB", "model", "rows, factored",
        "A",
    ]  # fmt: skip
    return "\n".join([table(header, rows), "", describe(figures)])


def redraw(page: str, results: Path) -> str:
    """The page with every table drawn anew; one without figures says so."""

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        file = results / ("widths.json" if name == "widths" else f"gram-{name}.json")
        if not file.exists():
            return f"{match[1]}\nNot measured yet.\n\n{match[3]}"
        figures = json.loads(file.read_text())
        drawn = draw_widths(figures) if name == "widths" else draw_gram(figures)
        return f"{match[1]}\n{drawn}\n\n{match[3]}"

    return SLOT.sub(fill, page)


def main(
    results: Annotated[Path, typer.Option(help="Folder of the figures.")] = RESULTS,
    check: Annotated[bool, typer.Option(help="Only say whether the page is up to date.")] = False,
    show: Annotated[bool, typer.Option(help="Print the page and leave the file alone.")] = False,
) -> None:
    """Redraw the tables of the page from the files with figures."""
    page = PAGE.read_text()
    drawn = redraw(page, results)
    if show:
        sys.stdout.write(drawn)
    elif check and drawn != page:
        typer.echo("The page is not what its figures say: run python benchmarks/page.py")
        raise typer.Exit(1)
    elif not check:
        PAGE.write_text(drawn)


if __name__ == "__main__":
    typer.run(main)
