"""Three ways of measuring, each a few options of `lightlike.measure`.

- *quick*: no ranks of layers, nothing kept for re-analysis. The cheapest exact route that fits;
  where none does, stochastic quadrature ("slq"), whose result is marked as an estimate.
- *standard*: what `measure` does unless told otherwise. Exact or refused, layers where cheap.
- *exact*: exact or refused, in float64, with every layer's rank, the sources of null directions
  ("explain") and the dimension against observations ("saturation").

Options that are given stand, whatever the preset; what contradicts "exact" is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightlike.assess.exacting import Asked
from lightlike.assess.parts import is_exact
from lightlike.assess.planning import Plan, plan_for
from lightlike.errors import CapacityError, ChoiceError, choice_error
from lightlike.metric.fisher import fisher
from lightlike.problem.likelihoods import Likelihood

QUICK, STANDARD, EXACT = "quick", "standard", "exact"
PRESETS: dict[str, dict[str, Any]] = {
    QUICK: {"layers": False, "projections": False},
    STANDARD: {},
    EXACT: {"layers": True, "explain": True, "saturation": True},
}
# The route that a quick measurement takes where no exact one fits.
FALLBACK = "slq"


def check_preset(name: Any) -> str:
    """A preset's name.

    Raises:
        ChoiceError: if there is none of that name.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise choice_error("preset", name, [*map(repr, PRESETS)])
    return name


def settle(
    model: nn.Module,
    data: Any,
    likelihood: str | Likelihood,
    options: dict[str, Any],
    preset: str = STANDARD,
) -> tuple[dict[str, Any], Plan]:
    """The options of a measurement under a preset, and its plan.

    Args:
        model: See `lightlike.measure`.
        data: See `lightlike.measure`.
        likelihood: See `lightlike.measure`.
        options: Other arguments of `measure` that are given.
        preset: "quick", "standard" or "exact".

    Raises:
        ChoiceError: for an unknown preset, or if the options contradict "exact".
        CapacityError: if no route that the preset allows fits.
    """
    settled = {**PRESETS[check_preset(preset)], **options}
    method, memory = settled.get("method", "auto"), settled.get("memory")
    if preset == EXACT:
        _check_exact(settled, method)
    F = fisher(
        model, data, likelihood, settled.get("parameters"), dtype=settled.get("dtype", "float64")
    )
    names = ("layers", "explain", "saturation", "projections")
    asked = Asked(**{name: settled[name] for name in names if name in settled})
    try:
        plan = plan_for(F, method, memory, asked)
    except CapacityError:
        if preset != QUICK or "method" in options or F.problem.dtype != torch.float64:
            raise
        plan = plan_for(F, FALLBACK, memory)
        if plan.memory > plan.budget:
            raise
        settled["method"] = FALLBACK
    return settled, plan


def _check_exact(options: dict[str, Any], method: Any) -> None:
    wrong = [] if is_exact(method) else [f"method = {method!r}"]
    if str(options.get("dtype", "float64")).removeprefix("torch.") != "float64":
        wrong.append(f"dtype = {str(options['dtype'])!r}")
    wrong += [f"{name} = false" for name in PRESETS[EXACT] if options.get(name) is False]
    if wrong:
        raise ChoiceError(
            f"The preset 'exact' was asked for together with {', '.join(wrong)}.",
            "The result would not be what the preset promises.",
            "Remove one of the two.",
        )
