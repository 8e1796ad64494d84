"""What a walk through parameter space found."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightlike.geometry.predictions import Fidelity
from lightlike.problem.parameters import Selection
from lightlike.results import Result, fields_of, plain


@dataclass(frozen=True)
class WalkStep:
    """One point of a walk.

    Attributes:
        objective: Its value.
        squared_norm: |θ|².
        zeros: Weights that are exactly 0.
        distance: Length of the path from the start.
        divergence: Mean KL from the start's predictions, nats per observation.
        epsilon: ε of the step here; of the first step at the start.
        radical: Directions left free on the way here, D − #{λ > ε}; None at the start.
        radical_kind: "counted", or "at least" where it is D − K; None at the start.
    """

    objective: float
    squared_norm: float
    zeros: int
    distance: float
    divergence: float
    epsilon: float
    radical: int | None
    radical_kind: str | None


@dataclass(frozen=True)
class Control:
    """A straight line from the start, as long as the walk's way is as the crow flies.

    Attributes:
        name: "random", any direction of parameter space, or "random in the radical" of the start.
        displacement: |θ − θ_0| at its end.
        divergence: Mean KL there; infinite where outputs are not finite.
    """

    name: str
    displacement: float
    divergence: float


@dataclass(frozen=True, eq=False)
class Walk(Result):
    """A path on which an objective falls and predictions stay.

    Attributes:
        theta: Where it ended, (D,) float64.
        objective: Name of the objective.
        steps: The start and every point after it.
        stopped: Why it ended, in half a sentence.
        budget: Bound on the divergence, nats per observation.
        epsilon: ε of the last step: eigenvalues well below it were left free.
        divergence_kind: "exact", or "second-order" for a likelihood without a closed form.
        displacement: |θ − θ_0|.
        controls: Straight walks of that length in random directions.
        data: Predictions at both ends on the data that the walk was bound to.
        held_out: The same on held-out data, or None.
        seed: Of the controls.
        others: Frozen parameters and buffers, by canonical name.
        slots: The names that a state dict has, and the canonical name of each.
    """

    theta: Tensor
    objective: str
    steps: tuple[WalkStep, ...]
    stopped: str
    budget: float
    epsilon: float
    divergence_kind: str
    displacement: float
    controls: tuple[Control, ...]
    data: Fidelity
    held_out: Fidelity | None
    seed: int
    selection: Selection = field(repr=False)
    others: dict[str, Tensor] = field(repr=False)
    slots: dict[str, str] = field(repr=False)

    @property
    def divergence(self) -> float:
        """Mean KL(p_θ0 ‖ p_θ) at the end, nats per observation."""
        return self.steps[-1].divergence

    @property
    def distance(self) -> float:
        """Length of the path."""
        return self.steps[-1].distance

    @property
    def distance_per_divergence(self) -> float:
        """Displacement for each nat per observation; infinite where the divergence is 0."""
        spent = self.divergence
        return self.displacement / spent if spent > 0.0 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network, which `state_dict` has, in plain Python types."""
        return fields_of(self, "theta", "selection", "others", "slots")

    def _records(self) -> list[dict[str, Any]]:
        return [plain(step) for step in self.steps]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `model.load_state_dict` needs at the end, floating point in float64.

        The selected parameters by all of their names, and frozen ones and buffers as they were.
        """
        moved = self.selection.split(self.theta)
        return {
            slot: (moved[name] if name in moved else self.others[name]).clone()
            for slot, name in self.slots.items()
        }

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        kind = "" if self.divergence_kind == "exact" else f" ({self.divergence_kind})"
        lines = [
            f"walk: {self.objective}, {len(self.steps) - 1} steps",
            *_wrapped("  stopped      ", f"{self.stopped}."),
            f"  objective    {first.objective:.6g} -> {last.objective:.6g}",
            f"  |θ|²         {first.squared_norm:.6g} -> {last.squared_norm:.6g}",
            f"  zeros        {first.zeros:,} -> {last.zeros:,} of {len(self.theta):,}",
            f"  displacement {self.displacement:.4g}",
            f"  divergence   {last.divergence:.3g} nats per observation{kind}, "
            f"budget {self.budget:.3g}",
            *(f"    {c.name}: {c.divergence:.3g}" for c in self.controls),
        ]
        for name, found in (("data", self.data), ("held out", self.held_out)):
            if found is None or (found.nll_before is None and name == "data"):
                continue
            told = [f"divergence {found.divergence:.3g}"] if name == "held out" else []
            if found.nll_before is not None:
                told.append(f"NLL {found.nll_before:.4g} -> {found.nll_after:.4g}")
            if found.accuracy_before is not None:
                told.append(f"accuracy {found.accuracy_before:.4f} -> {found.accuracy_after:.4f}")
            lines.append(f"  {name}: " + ", ".join(told))
        return "\n".join(lines)


def _wrapped(label: str, text: str) -> list[str]:
    """A label and a text beside it, in lines of 100 characters."""
    indent = " " * len(label)
    return textwrap.wrap(text, 100, initial_indent=label, subsequent_indent=indent)
