"""Text for terminals that are narrow, or that know no letters beyond ASCII."""

from __future__ import annotations

import codecs
import io
import os
import re
import shutil
import sys
import textwrap
import unicodedata

import typer

# What stands for signs that have no decomposition into simpler ones.
PLAIN = {
    "×": "x", "—": "-", "–": "-", "−": "-", "±": "+/-", "·": ".", "≤": "<=", "≥": ">=", "≈": "~",
    "…": "...", "→": "->", "√": "sqrt", "∞": "inf", "λ": "lambda", "γ": "gamma", "ε": "eps",
    "θ": "theta", "σ": "sigma", "Λ": "Lambda", "Σ": "Sum", "‖": "||", "“": '"', "”": '"',
    "‘": "'", "’": "'", "²": "^2", "³": "^3", "⁄": "/",
}  # fmt: skip
HANDLER = "lightlike-plain"
# Narrower than this no line is folded: words would be cut.
LEAST = 20


def simplified(text: str) -> str:
    """A text in ASCII: signs by their nearest equivalent, accents left out, "?" for the rest."""
    return "".join(_plain(sign) for sign in text)


def adapt() -> None:
    """Have stdout and stderr write plain letters for those that their encoding lacks."""
    codecs.register_error(HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, folded to the terminal's width if there is one."""
    stream = sys.stderr if err else sys.stdout
    # Click would write UTF-8 to a stream that says it knows ASCII only.
    if codecs.lookup(stream.encoding or "utf-8").name == "ascii":
        text = simplified(text)
    width = terminal_width(err=err)
    typer.echo(text if width is None else folded(text, width), err=err)


def one_paragraph(text: object) -> str:
    """A text without line breaks, which the messages of other libraries have."""
    return " ".join(str(text).split())


def terminal_width(*, err: bool = False) -> int | None:
    """Columns of the terminal, or of the variable COLUMNS; None where neither is there."""
    stream = sys.stderr if err else sys.stdout
    if not os.environ.get("COLUMNS", "").isdigit() and not stream.isatty():
        return None
    return shutil.get_terminal_size().columns


def folded(text: str, width: int) -> str:
    """Long lines broken at spaces, and gone on with below what follows their first column.

    Nothing is left out, and lines that fit are as they were.
    """
    if width < LEAST:
        return text
    return "\n".join(_fold(line, width) for line in text.split("\n"))


def _fold(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    # A label, two or more blanks, and what is said about it.
    found = re.match(r"\s*\S+(?: \S+)*?\s{2,}(?=\S)|\s*", line)
    indent = len(found.group()) if found else 0
    following = " " * (indent if indent <= width // 2 else 2)
    return textwrap.fill(
        line, width, subsequent_indent=following, break_on_hyphens=False, break_long_words=False,
        drop_whitespace=True, expand_tabs=False, replace_whitespace=False,
    )  # fmt: skip


def _plain(sign: str) -> str:
    if sign.isascii():
        return sign
    simple = unicodedata.normalize("NFKD", PLAIN.get(sign, sign))
    if unicodedata.combining(sign):
        return ""
    return "".join(c for s in simple for c in PLAIN.get(s, s) if c.isascii()) or "?"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # What an encoding other than ASCII may lack is in ASCII too.
    return simplified(error.object[error.start : error.end]), error.end
