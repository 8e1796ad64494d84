"""Sections of the report of a training run."""

from __future__ import annotations

from lightlike.assess.history import History, Snapshot
from lightlike.figures.history import plot_history
from lightlike.present.page import Head, Number, Section, Table, drawn, nats

# Rows of the table; of longer runs as many, evenly spread.
MOST = 40


def history_sections(history: History) -> list[Section]:
    """Curves and snapshots."""
    columns = {name: history.column(name) for name in Snapshot.__dataclass_fields__}
    return [
        Section(
            "curves",
            "Along the run",
            "Lengths are in nats, each of the labels of the tracked data.",
            figures=[drawn("history", "Dimension, length and loss by step", plot_history(columns))],
        ),
        Section("snapshots", "Snapshots", _lead(history), table=_table(history)),
    ]


def _chosen(history: History) -> list[Snapshot]:
    count = len(history)
    if count <= MOST:
        return list(history.snapshots)
    places = sorted({round(i * (count - 1) / (MOST - 1)) for i in range(MOST)})
    return [history.snapshots[place] for place in places]


def _lead(history: History) -> str:
    seconds = sum(history.column("seconds"))
    shown = len(_chosen(history))
    part = "" if shown == len(history) else f", {shown} of them shown"
    return f"{len(history):,} snapshots{part}; measuring took {seconds:,.1f} seconds in all."


def _table(history: History) -> Table:
    heads = [Head("step", number=False), Head("dimension"), Head("length"), Head("fit"),
             Head("complexity"), Head("effective dimension"), Head("loss")]  # fmt: skip
    return Table(heads, [_row(snapshot) for snapshot in _chosen(history)])


def _row(s: Snapshot) -> list[Number]:
    counted = f"{s.dimension:,}" if s.lower == s.upper else f"{s.lower:,} – {s.upper:,}"
    return [
        Number(f"{s.step:,}"),
        Number(counted, sort=float(s.dimension)),
        *(Number("—") if v is None else nats(v) for v in (s.length, s.fit, s.complexity)),
        Number(f"{s.effective_dimension:,.1f}", sort=s.effective_dimension),
        Number("—") if s.loss is None else Number(f"{s.loss:.4g}", sort=s.loss),
    ]
