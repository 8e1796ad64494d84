"""Which network to keep: measurements of several on the same data, side by side."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from lightlike.assess.likeness import asked_prior, check_alike
from lightlike.assess.measurement import Measurement, load
from lightlike.errors import ChoiceError, ComparisonError, choice_error
from lightlike.geometry.symmetry.explanation import ExplanationSummary
from lightlike.length.description import UNITS, check_units
from lightlike.results import Result, frame_of, plain
from lightlike.terminal import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Standard errors by which a difference must exceed zero before it says anything.
CLEAR = 2.0


@dataclass(frozen=True)
class Entry:
    """One network's row.

    Attributes:
        name: As given.
        total: Description length of the labels.
        difference: `total` minus that of the best; 0 for the best.
        stderr: Standard error of the difference.
        fit: NLL_total(θ̂).
        complexity: Half the log-determinant.
        displacement: What it costs that θ̂ is not the prior mean.
        dimension: d̂.
        lower: Certain lower bound of the dimension.
        upper: Certain upper bound of the dimension.
        kind: What the dimension is worth.
        parameters: D.
        held_out: Nats or bits per observation on held-out data, or None.
        notes: What to keep in mind about this measurement.
        explanation: Null directions by their sources, or None if they were not sought.
    """

    name: str
    total: float
    difference: float
    stderr: float
    fit: float
    complexity: float
    displacement: float
    dimension: int
    lower: int
    upper: int
    kind: str
    parameters: int
    held_out: float | None
    notes: tuple[str, ...]
    explanation: ExplanationSummary | None = None


@dataclass(frozen=True)
class Comparison(Result):
    """Networks sorted by the description length that they give the same labels.

    Attributes:
        entries: The best first.
        units: "nats" or "bits".
        observations: N.
        likelihood: Name and settings, the same for all.
        prior: The same for all, but for fitted numbers.
        data: SHA-256 of the data.
        warnings: What to keep in mind.
    """

    entries: tuple[Entry, ...]
    units: str
    observations: int
    likelihood: dict[str, object]
    prior: dict[str, object]
    data: str
    warnings: tuple[str, ...]

    @property
    def best(self) -> Entry:
        """The entry with the shortest length."""
        return self.entries[0]

    def to_frame(self) -> Any:
        """The entries as a pandas DataFrame, one row a network, by name.

        Raises:
            DependencyError: if pandas is not installed.
        """
        apart = ("notes", "explanation")
        rows = [{k: v for k, v in plain(e).items() if k not in apart} for e in self.entries]
        return frame_of(rows, index="name")

    def plot(self, ax: Any = None) -> Figure:
        """Differences to the best with their standard errors, as a figure.

        Args:
            ax: Axes to draw in; a figure of its own unless given.
        """
        # Matplotlib takes longer to load than all the rest of this package.
        from lightlike.figures.forest import plot_forest

        rows = [(e.name, e.difference, e.stderr) for e in self.entries]
        return plot_forest(rows, self.units, ax=ax)

    def table(self) -> Table:
        """A table for a terminal."""
        table = Table(box=None, pad_edge=False, header_style="")
        table.add_column("network", overflow="fold")
        for header in (self.units, "± ", "length", "fit", "complexity", "dimension", "parameters"):
            table.add_column(header.strip(), justify="right", no_wrap=True)
        held_out = any(e.held_out is not None for e in self.entries)
        if held_out:
            table.add_column("held out", justify="right", no_wrap=True)
        for e in self.entries:
            row: list[Text | str] = [
                Text(e.name),
                "best" if e is self.best else f"+{e.difference:.1f}",
                "" if e is self.best else f"{e.stderr:.1f}",
                f"{e.total:.1f}",
                f"{e.fit:.1f}",
                f"{e.complexity:.1f}",
                f"{e.dimension:,}" if e.lower == e.upper else f"{e.lower:,}–{e.upper:,}",
                f"{e.parameters:,}",
            ]
            if held_out:
                row.append("—" if e.held_out is None else f"{e.held_out:.4f}")
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        # Never so narrow that numbers are cut; a terminal wraps the lines itself.
        width = max(100, shutil.get_terminal_size().columns)
        table = plain_text(self.table(), width=width)
        return "\n".join([table, *(f"note: {warning}" for warning in self.warnings)])


def compare(
    measurements: Mapping[str, Measurement | str | os.PathLike[str]],
    *,
    held_out: Mapping[str, float] | None = None,
    units: str | None = None,
) -> Comparison:
    """Sort measurements of networks on the same data by description length.

    The difference of two lengths carries the standard error √(N Var_i(ℓ_i^a − ℓ_i^b)) of the paired
    difference of their fits, ℓ_i = −log p(y_i | x_i), as in differences of cross-validated scores
    (Vehtari, Gelman & Gabry 2017, doi:10.1007/s11222-016-9696-4), and those of lengths that are
    themselves estimates, added in squares. What the complexities would vary by from one sample
    to the next is not in it.

    Args:
        measurements: By name: results of `lightlike.measure`, or paths of saved ones.
        held_out: NLL per observation in nats on held-out data, by name.
        units: "nats" or "bits"; those of the first measurement unless given.

    Raises:
        ComparisonError: if data, likelihood or prior differ, or one has no labels.
        ChoiceError: for an unknown unit, or a held-out score of a network that is not there.
        StoreError: if a saved result cannot be read.
    """
    if not isinstance(measurements, Mapping):
        raise choice_error("measurements", measurements, ["a mapping from names to measurements"])
    if not measurements:
        raise ComparisonError(
            "There is nothing to compare.",
            "A comparison needs at least one measurement.",
            'Give a mapping such as {"small": m1, "large": m2}.',
        )
    read = {
        str(name): m if isinstance(m, Measurement) else load(m) for name, m in measurements.items()
    }
    if len(read) < len(measurements):
        raise ComparisonError(
            "Two networks have one name.",
            "One of them would be left out silently.",
            "Give each its own.",
        )
    first = next(iter(read.values()))
    units = units or first.length.units
    check_units(units)
    scores = {str(name): float(score) for name, score in (held_out or {}).items()}
    if any(not math.isfinite(score) for score in scores.values()):
        raise choice_error("held_out", held_out, ["finite numbers, nats per observation"])
    if unknown := [name for name in scores if name not in read]:
        raise ChoiceError(
            f"held_out has an entry {unknown[0]!r}, which is none of the networks.",
            "It would be left out silently.",
            f"The names are: {', '.join(map(repr, read))}.",
        )
    for name, m in read.items():
        check_alike(next(iter(read)), first, name, m)
    ordered = sorted(read, key=lambda name: _total(read[name]))
    entries = tuple(
        _entry(name, read[name], read[ordered[0]], units, scores.get(name)) for name in ordered
    )
    return Comparison(
        entries,
        units,
        first.observations,
        first.likelihood,
        asked_prior(first),
        first.record["fingerprint"]["data"],
        tuple(_warnings(entries, units)),
    )


def _entry(
    name: str, m: Measurement, best: Measurement, units: str, held_out: float | None
) -> Entry:
    length, factor = m.length.to(units), UNITS[units]
    if held_out is None:
        held_out = _recorded(m)
    assert length.total is not None
    assert length.fit is not None
    assert length.displacement is not None
    stderr = 0.0
    if m is not best:
        stderr = factor * paired_error(m, best)
    return Entry(
        name=name,
        total=length.total,
        difference=length.total - _total(best) * factor,
        stderr=stderr,
        fit=length.fit,
        complexity=length.complexity,
        displacement=length.displacement,
        dimension=int(m.dimension),
        lower=m.dimension.lower,
        upper=m.dimension.upper,
        kind=m.dimension.kind,
        parameters=m.parameters,
        held_out=None if held_out is None else held_out * factor,
        notes=m.warnings,
        explanation=m.explanation,
    )


def paired_error(one: Measurement, other: Measurement) -> float:
    """Standard error in nats of a difference of lengths; what bounds leave open counts as one."""
    apart, lengths = _losses(one) - _losses(other), [m.length.to("nats") for m in (one, other)]
    n = len(apart)
    variance = n * float(apart.var(correction=1)) if n > 1 else math.inf
    return math.sqrt(variance + sum(x.stderr**2 + x.error**2 for x in lengths))


def _losses(m: Measurement) -> Tensor:
    assert m.nll is not None
    return m.nll


def _total(m: Measurement) -> float:
    total = m.length.to("nats").total
    assert total is not None
    return total


def _recorded(m: Measurement) -> float | None:
    """The held-out score that is in the record, if any."""
    found = m.record.get("held_out")
    score = found.get("nll") if isinstance(found, dict) else None
    return float(score) if isinstance(score, int | float) else None


def _warnings(entries: tuple[Entry, ...], units: str) -> list[str]:
    found = []
    best, others = entries[0], entries[1:]
    near = [e.name for e in others if e.difference <= CLEAR * e.stderr]
    if near:
        names = ", ".join(near[:4]) + (" …" if len(near) > 4 else "")
        found.append(
            f"{names}: within {CLEAR:g} standard errors of {best.name}; another sample of data "
            "could turn the order."
        )
    if others:
        cost = math.log(len(entries)) * UNITS[units]
        found.append(
            f"The best of {len(entries)} is chosen on the labels it codes: naming it costs up to "
            f"{cost:.1f} {units}, which is not in its length."
        )
    open_ends = [e.name for e in entries if e.notes]
    if open_ends:
        found.append(f"Measurements with notes of their own: {', '.join(open_ends)}.")
    return found
