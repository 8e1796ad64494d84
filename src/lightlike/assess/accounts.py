"""What a measurement takes in only when asked: sources of null directions, and saturation."""

from __future__ import annotations

from dataclasses import dataclass

from lightlike.errors import choice_error
from lightlike.geometry.counting import demand_float64
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.saturation import Saturation
from lightlike.geometry.saturation import saturation as saturate
from lightlike.geometry.symmetry.explain import certified
from lightlike.geometry.symmetry.explain import explain as name_directions
from lightlike.geometry.symmetry.explanation import ExplanationSummary
from lightlike.metric.fisher import Fisher
from lightlike.spectrum.spectrum import Spectrum


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
    memory: int,
) -> Accounts:
    """What was asked for, from a spectrum that is there."""
    summary = None
    if explain:
        explanation = name_directions(F, spectrum=spectrum)
        dimension = certified(dimension, explanation, F.root)
        summary = explanation.summary()
    course = saturate(F, seed=seed, memory=memory) if saturation else None
    return Accounts(dimension, summary, course)
