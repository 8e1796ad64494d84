"""Sections of the report of a training run."""

from __future__ import annotations

from lightlike.assess.history import History, Snapshot
from lightlike.figures.history import plot_history
from lightlike.length.description import UNITS
from lightlike.present.page import (
    ABSENT,
    Head,
    Number,
    Section,
    Table,
    between,
    nats,
    real,
    whole,
)
from lightlike.present.rendering import drawn

# Rows of the table; of longer runs as many, evenly spread.
MOST = 40


def history_sections(history: History) -> list[Section]:
    """Curves and snapshots."""
    if not len(history):
        return [Section("snapshots", "Snapshots", f"{ABSENT} nothing was measured.")]
    columns = {name: history.column(name) for name in Snapshot.__dataclass_fields__}
    charts = {unit: plot_history(columns, units=unit) for unit in UNITS}
    return [
        Section(
            "curves",
            "Along the run",
            "Lengths are of the labels of the tracked data.",
            figures=[drawn("history", "Dimension, length and loss by step", charts)],
        ),
        Section("snapshots", "Snapshots", history_lead(history), table=history_table(history)),
    ]


def _chosen(history: History) -> list[Snapshot]:
    count = len(history)
    if count <= MOST:
        return list(history.snapshots)
    places = sorted({round(i * (count - 1) / (MOST - 1)) for i in range(MOST)})
    return [history.snapshots[place] for place in places]


def history_lead(history: History) -> str:
    """How many snapshots there are, and what they took."""
    seconds = sum(history.column("seconds"))
    shown = len(_chosen(history))
    part = "" if shown == len(history) else f", {shown} of them shown"
    return f"{len(history):,} snapshots{part}; measuring took {seconds:,.1f} seconds in all."


def history_table(history: History) -> Table:
    """One row a snapshot; of a long run a part, evenly spread."""
    heads = [Head("step", number=False), Head("dimension"), Head("length", unit=True),
             Head("fit", unit=True), Head("complexity", unit=True), Head("effective dimension"),
             Head("loss")]  # fmt: skip
    return Table(heads, [_row(snapshot) for snapshot in _chosen(history)])


def _row(s: Snapshot) -> list[Number]:
    return [
        whole(s.step),
        Number(between(s.lower, s.upper), sort=float(s.dimension)),
        *(
            Number(ABSENT) if v is None else nats(v, bare=True)
            for v in (s.length, s.fit, s.complexity)
        ),
        real(s.effective_dimension, ".1f"),
        real(s.loss),
    ]
