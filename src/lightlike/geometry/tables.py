"""Results with many rows, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from lightlike.geometry.dimension import Dimension
from lightlike.terminal import plain_text

WIDTH = 100


def render(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """A table in plain text; columns after the first are numbers, flush right.

    Args:
        title: The line above it.
        columns: Headings.
        rows: Cells.
        notes: Lines below it.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(columns):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return plain_text(title, table, *notes, width=WIDTH)


def cells(dimension: Dimension) -> tuple[str, str]:
    """A dimension with its bounds if they differ, and what it is worth."""
    text = f"{dimension.value:,}"
    if dimension.lower != dimension.upper:
        text += f" ({dimension.lower:,} to {dimension.upper:,})"
    return text, dimension.kind


def plain(dimension: Dimension) -> dict[str, Any]:
    """A dimension in types that JSON has; an infinite gap becomes None."""
    fields = dict(vars(dimension))
    return {**fields, "gap": None if fields["gap"] == float("inf") else fields["gap"]}
