"""One self-contained HTML file: a verdict, the numbers, and what each of them is worth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lightlike.assess.comparison import Comparison
from lightlike.assess.history import History
from lightlike.assess.measurement import Measurement
from lightlike.errors import StoreError, choice_error
from lightlike.present.words import (
    GLOSSARY,
    comparison_verdict,
    history_verdict,
    measurement_verdict,
)
from lightlike.store import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from lightlike.present.page import Section

MARK = b'name="generator" content="lightlike'


def report(
    result: Measurement | Comparison | History,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    figures: Mapping[str, Figure] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a report of a measurement, a comparison or a training run.

    One HTML file that needs no network: verdict, key numbers with their kind, the length term by
    term in nats and bits, spectrum, rank against tolerance, sources of null directions, saturation,
    layers, checks with remedies, what to reproduce it with, the data of each figure as CSV, a
    glossary. What was not measured is a dash, with how to ask for it.

    Args:
        result: From `lightlike.measure`, `lightlike.load` or `lightlike.compare`, or a tracker's
            history.
        path: Where to write it; replaced whole or not at all.
        title: Of the page.
        figures: More figures by caption, from `.plot()` or `lightlike.present.plots`, such as a
            walk.
        overwrite: Whether to replace a file that is not a report of this kind.

    Returns:
        The path.

    Raises:
        StoreError: if it cannot be written, or something else stands there.
        ChoiceError: if the result is of another kind.
    """
    # matplotlib and jinja2 are loaded when there is something to draw.
    from lightlike.present.comparing import comparison_sections
    from lightlike.present.following import history_sections
    from lightlike.present.measuring import measurement_sections
    from lightlike.present.page import Section
    from lightlike.present.rendering import render

    if not isinstance(path, str | os.PathLike):
        raise choice_error("path", path, ["the path of a file"])
    extra = _more(figures or {})
    if isinstance(result, Measurement):
        sections = measurement_sections(result)
        verdict = measurement_verdict(result)
        units = result.length.units
        heading = title or f"A network of {result.parameters:,} parameters"
    elif isinstance(result, Comparison):
        sections = comparison_sections(result)
        verdict = comparison_verdict(result)
        units = result.units
        heading = title or f"{len(result.entries)} networks on {result.observations:,} observations"
    elif isinstance(result, History):
        sections = history_sections(result)
        verdict = history_verdict(result)
        units = "nats"
        heading = title or f"A training run, {len(result)} times measured"
    else:
        raise choice_error("result", result, ["a Measurement", "a Comparison", "a History"])
    words = Section("glossary", "Glossary", words=GLOSSARY)
    page = render(heading, verdict, [*sections[:-1], *extra, sections[-1], words], units)
    target = Path(path)
    if not overwrite and target.is_file() and MARK not in target.read_bytes()[:4096]:
        raise StoreError(
            f"{str(target)!r} exists and is not a report.",
            "It would be lost.",
            "Name another file, or pass overwrite=True.",
        )
    write_bytes(target, page.encode())
    return target


def _more(figures: Mapping[str, Figure]) -> list[Section]:
    from lightlike.present.page import Section
    from lightlike.present.rendering import drawn

    found = [
        drawn(f"figure-{place}", caption, chart)
        for place, (caption, chart) in enumerate(figures.items(), 1)
    ]
    return [Section("more", "More figures", figures=found)] if found else []
