"""Sections on where null directions come from, and on how the dimension grows with the data."""

from __future__ import annotations

from lightlike.figures.bars import plot_sources
from lightlike.figures.curves import plot_saturation
from lightlike.geometry.saturation import Saturation
from lightlike.geometry.symmetry.explanation import ExplanationSummary
from lightlike.present.page import ABSENT, Head, Number, Section, Table, counted, whole
from lightlike.present.rendering import drawn


def sources_section(e: ExplanationSummary | None) -> Section:
    """Null directions by their sources, or how to ask for them."""
    title = "Why the others change nothing"
    if e is None:
        text = f"{ABSENT} not measured. Ask with ll.measure(…, explain=True), or ll.explain(F)."
        return Section("sources", title, text)
    return Section(
        "sources",
        title,
        "Each direction was held against the network and found to change no prediction; dependent "
        "ones count once, under the first source that has them.",
        figures=[drawn("sources", "Null directions by source", plot_sources(e))],
        table=sources_table(e),
        notes=e.notes,
    )


def sources_table(e: ExplanationSummary) -> Table:
    """One row a source, and what has none."""
    heads = [
        Head("source", number=False), Head("where", number=False), Head("dimension"),
        Head("share"), Head("verified"), Head("claimed"),
    ]  # fmt: skip
    rows = [
        [
            Number(s.kind),
            Number(s.where or "the whole model"),
            whole(s.dimension),
            _share(s.dimension, e.radical),
            whole(s.verified),
            whole(s.claimed),
        ]
        for s in e.listed
    ]
    rest = [Number("unexplained"), Number(""), whole(e.unexplained),
            _share(e.unexplained, e.radical), Number(ABSENT), Number(ABSENT)]  # fmt: skip
    return Table(heads, [*rows, rest])


def _share(part: int, radical: int) -> Number:
    share = part / radical if radical else 0.0
    return Number(f"{share:.1%}", sort=share, share=share)


def saturation_section(s: Saturation | None) -> Section:
    """The dimension against observations, or how to ask for it."""
    title = "How much data it takes"
    if s is None:
        text = (
            f"{ABSENT} not measured. Ask with ll.measure(…, saturation=True), or ll.saturation(F)."
        )
        return Section("saturation", title, text)
    return Section(
        "saturation",
        title,
        f"{s.verdict} Subsets are nested, in random order (seed {s.seed}).",
        figures=[drawn("saturation", "Dimension against observations", plot_saturation(s))],
        table=saturation_table(s),
        folded=True,
    )


def saturation_table(s: Saturation) -> Table:
    """One row a subset."""
    heads = [Head("observations", number=False), Head("rows"), Head("dimension"), Head("kind")]
    listed = zip(s.sizes, s.rows, s.dimensions, strict=True)
    return Table(heads, [[whole(n), whole(k), counted(d), Number(d.kind)] for n, k, d in listed])
