"""Results with many rows, as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rich import box
from rich.table import Table

from lightlike.geometry.dimension import Dimension
from lightlike.terminal import plain_text

WIDTH = 100


def render(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    texts: int = 1,
    breaks: Collection[int] = (),
) -> str:
    """A table in plain text; columns of numbers are flush right.

    Args:
        title: The line above it.
        columns: Headings.
        rows: Cells.
        notes: Lines below it.
        texts: Columns of text, ahead of those of numbers.
        breaks: Rows that a line stands above.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(columns):
        table.add_column(heading, justify="right" if index >= texts else "left", overflow="fold")
    for place, row in enumerate(rows):
        if place in breaks:
            table.add_section()
        table.add_row(*row)
    return plain_text(title, table, *notes, width=WIDTH)


def dimension_cells(dimension: Dimension) -> dict[str, Any]:
    """Its numbers as columns of a data frame."""
    d = dimension
    return {"dimension": d.value, "lower": d.lower, "upper": d.upper, "kind": d.kind, "gap": d.gap}


def cells(dimension: Dimension) -> tuple[str, str]:
    """A dimension with its bounds if they differ, and what it is worth."""
    text = f"{dimension.value:,}"
    if dimension.lower != dimension.upper:
        text += f" ({dimension.lower:,} to {dimension.upper:,})"
    return text, dimension.kind
