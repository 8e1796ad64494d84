"""States of iterations by products with the Fisher matrix, kept for a measurement that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lightlike.assess.stages import same_outputs
from lightlike.checkpoint import Checkpoint, Tensors
from lightlike.metric.fisher import Fisher
from lightlike.spectrum.memory import resolve_memory

# What products keep was to fit in half of the memory that there was at the beginning.
SHORT = 2


@dataclass(frozen=True)
class Run:
    """One iteration.

    Attributes:
        name: Of its state.
        checkpoint: Where the state is kept; None to keep nothing.
    """

    name: str
    checkpoint: Checkpoint | None

    @property
    def state(self) -> Tensors | None:
        """What an earlier run of it was at, or None."""
        found = None if self.checkpoint is None else self.checkpoint.get(self.name)
        return None if found is None else found[0]

    def offer(self, state: Mapping[str, Tensor]) -> None:
        """Save a state that goes on changing, if it is time for it."""
        if self.checkpoint is not None:
            self.checkpoint.offer(self.name, lambda: (dict(state), {}))

    def put(self, state: Mapping[str, Tensor]) -> None:
        """Save a state that does not change any more, when it is time for it or at the end."""
        if self.checkpoint is not None:
            self.checkpoint.put(self.name, dict(state), {})


class Iterations:
    """The iterations of one measurement.

    They go on with the memory that they began with, because what fits decides how products are
    taken and vectors stand side by side, and last bits depend on both.

    Args:
        F: What is measured.
        memory: As it was asked for.
        tag: What tells the states of a prior from those of others.
        needed: Bytes that vectors take.
        checkpoint: Where states are kept; None to keep nothing.

    Attributes:
        budget: Bytes that may be used.
    """

    def __init__(
        self,
        F: Fisher,
        memory: int | float | str | None,
        tag: str,
        needed: float,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._tag, self._checkpoint = tag, checkpoint
        self.budget = resolve_memory(memory)
        if checkpoint is None:
            return
        given = same_outputs(checkpoint, F.problem)
        short = needed > self.budget or (given or 0) > SHORT * self.budget
        if given is not None and memory is None and short:
            checkpoint.reset("What was saved is not used: less memory is available now than then.")
            given = None
        if given is not None:
            self.budget = given
        else:
            facts = {"checksums": list(F.problem.survey.checksums), "budget": self.budget}
            checkpoint.put("survey", {}, facts)

    def run(self, name: str, *, prior: bool = False) -> Run:
        """An iteration by its name; whether it depends on the prior."""
        return Run(f"{name}-{self._tag}" if prior else name, self._checkpoint)
