"""What is laid out by rich, as plain text."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType


def plain_text(*parts: RenderableType, width: int) -> str:
    """Parts below one another, without colours, markup or blanks at the ends of lines."""
    out = StringIO()
    console = Console(file=out, width=width, color_system=None, markup=False, highlight=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
