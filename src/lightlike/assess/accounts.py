"""What a measurement takes in only when asked: sources of null directions, and saturation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightlike.checkpoint import Checkpoint
from lightlike.errors import choice_error
from lightlike.geometry.counting import demand_float64
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.saturation import Saturation, saturate
from lightlike.geometry.symmetry.explain import certified
from lightlike.geometry.symmetry.explain import explain as name_directions
from lightlike.geometry.symmetry.explanation import ExplanationSummary
from lightlike.metric.fisher import Fisher
from lightlike.spectrum.spectrum import Spectrum

# Names of their states.
EXPLANATION, SATURATION = "explanation", "saturation"


@dataclass(frozen=True)
class Accounts:
    """The dimension, bounded from above where directions were named, and what was asked for.

    Attributes:
        dimension: The dimension.
        explanation: Null directions by their sources, or None.
        saturation: The dimension against observations, or None.
    """

    dimension: Dimension
    explanation: ExplanationSummary | None
    saturation: Saturation | None


def check_accounts(F: Fisher, *, exact: bool, explain: bool, saturation: bool) -> None:
    """Refuse what cannot be had before anything long is computed.

    Raises:
        ChoiceError: for either where the route has no exact rank, and for saturation in float32.
    """
    for name, asked in (("explain", explain), ("saturation", saturation)):
        if not isinstance(asked, bool):
            raise choice_error(name, asked, ["True", "False"])
        if asked and not exact:
            raise choice_error(name, asked, ["False with a method that does not decide the rank"])
    if saturation:
        demand_float64(F, "The saturation")


def account_for(
    F: Fisher,
    dimension: Dimension,
    spectrum: Spectrum,
    *,
    explain: bool,
    saturation: bool,
    seed: int,
    memory: float,
    checkpoint: Checkpoint | None = None,
) -> Accounts:
    """What was asked for, from a spectrum that is there; each kept for a run that goes on.

    Args:
        F: What is measured.
        dimension: As the spectrum has it.
        spectrum: Of F.
        explain: Whether to name null directions.
        saturation: Whether to follow the dimension against observations.
        seed: Of their order.
        memory: Bytes that may be used.
        checkpoint: Where states are kept; None to keep nothing.
    """
    if checkpoint is not None and (explain or saturation):
        checkpoint.flush()  # what follows may take longer than all before
    summary = None
    if explain:
        dimension, summary = _explained(F, dimension, spectrum, checkpoint)
    course = _saturated(F, seed, memory, checkpoint) if saturation else None
    return Accounts(dimension, summary, course)


def _explained(
    F: Fisher, dimension: Dimension, spectrum: Spectrum, checkpoint: Checkpoint | None
) -> tuple[Dimension, ExplanationSummary]:
    found = None if checkpoint is None else checkpoint.get(EXPLANATION)
    if found is not None:
        facts = found[1]
        return (
            Dimension.from_dict(facts["dimension"]),
            ExplanationSummary.from_dict(facts["summary"]),
        )
    explanation = name_directions(F, spectrum=spectrum)
    dimension, summary = certified(dimension, explanation, F.root), explanation.summary()
    if checkpoint is not None:
        facts = {"dimension": dimension.to_dict(), "summary": summary.to_dict()}
        checkpoint.put(EXPLANATION, {}, facts)
    return dimension, summary


def _saturated(F: Fisher, seed: int, memory: float, checkpoint: Checkpoint | None) -> Saturation:
    """Subset after subset, from those that an earlier run has found."""
    if checkpoint is None:
        return saturate(F, seed=seed, memory=memory)
    whole, parts = f"{SATURATION}-{seed}", f"{SATURATION}-{seed}-subsets"
    if (found := checkpoint.get(whole)) is not None:
        return Saturation.from_dict(found[1]["saturation"])
    known: dict[int, Dimension] = {}
    if (found := checkpoint.get(parts)) is not None:
        known = {int(n): Dimension.from_dict(d) for n, d in found[1]["known"].items()}

    def keep(dimensions: Mapping[int, Dimension]) -> None:
        facts = {"known": {str(n): d.to_dict() for n, d in dimensions.items()}}
        checkpoint.offer(parts, lambda: ({}, facts))

    course = saturate(F, seed=seed, memory=memory, known=known, keep=keep)
    checkpoint.put(whole, {}, {"saturation": course.to_dict()})
    return course
