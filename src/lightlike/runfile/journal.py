"""How far a training run was followed, saved after each file of weights that was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightlike.assess.history import is_history
from lightlike.assess.stages import open_checkpoint, prior_tag
from lightlike.assess.tracking import Tracker
from lightlike.checkpoint import SUFFIX, Checkpoint, State
from lightlike.errors import TrackingError
from lightlike.length.priors import resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.problem.problem import Problem
from lightlike.spectrum.memory import format_bytes, resolve_memory

NAME = "track"


class Journal:
    """What was measured so far on the way to one history.

    It is kept beside the history, as the stages of a measurement are beside its result, and belongs
    to the same data, likelihood, options, versions and first weights. It is there before the
    history has its first line, so that a history without one is finished or of other making.

    Args:
        target: The history.
        found: Steps and files of weights, in order.
        problem: The model with the first of them.
        options: Of the tracker, but its data and likelihood.
        force: Whether to delete a history that is there, finished or not.

    Raises:
        StoreError: if another process is at work on the same history, or a part of one with another
            set-up is there.
        TrackingError: if there is a history that cannot be gone on with, weights that were measured
            are not what they were, or the model's outputs or the memory are not.

    Attributes:
        states: Where it is kept.
        budget: Bytes that may be used: those that the first measurements had.
    """

    def __init__(
        self,
        target: Path,
        found: Sequence[tuple[int, Path]],
        problem: Problem,
        options: dict[str, Any],
        *,
        force: bool = False,
    ) -> None:
        self.target, self.found, self.problem = target, list(found), problem
        prior = resolve_prior(options.get("prior"))
        key = {
            "method": options.get("method", "auto"),
            "memory": options.get("memory"),
            "rotation": options.get("rotation", 0),
            "prior": prior_tag(prior, prior.resolve(problem)),
        }
        if force:
            _forget(target)
        self.states: Checkpoint = open_checkpoint(target, problem, key, alone=True)
        self.budget = resolve_memory(options.get("memory"))
        self.files: list[list[Any]] = []
        try:
            self._state = self._found(key)
        except BaseException:
            self.states.close()
            raise

    def begin(self, tracker: Tracker) -> list[tuple[int, Path]]:
        """Put a tracker where the last one was; what is left to be measured.

        Raises:
            TrackingError: if the history that is there is of another run.
        """
        if self._state is None:
            self._save(tracker)
            return self.found
        tensors, facts = self._state
        tracker.load_state_dict({**facts["tracker"], "basis": tensors.get("basis")})
        if not self.files:
            # The line of a measurement that was not recorded any more.
            self.target.unlink(missing_ok=True)
        tracker.open()
        return self.found[len(self.files) :]

    def record(self, tracker: Tracker, step: int, file: Path) -> None:
        """Note that a file of weights was measured."""
        self.files.append([step, _digest(file)])
        self._save(tracker)

    def _save(self, tracker: Tracker) -> None:
        state = tracker.state_dict()
        basis = state.pop("basis")
        facts = {
            "files": self.files,
            "checksums": list(self.problem.survey.checksums),
            "budget": self.budget,
            "tracker": state,
        }
        self.states.write(NAME, {} if basis is None else {"basis": basis}, facts)

    def _found(self, key: dict[str, Any]) -> State | None:
        """What there is to go on from, if it can be."""
        state = self.states.get(NAME)
        if state is None:
            if self.target.exists():
                raise TrackingError(
                    f"{str(self.target)!r} is there already.",
                    "Two runs in one file could not be told apart.",
                    "Name another file with --out, or replace it with --force.",
                )
            return None
        facts = state[1]
        self.files = facts["files"]
        if not self.problem.same(list(self.problem.survey.checksums), facts["checksums"]):
            raise _changed(
                f"With the weights {str(self.found[0][1])!r} the model's outputs are not"
            )
        for place, (step, digest) in enumerate(self.files):
            here = self.found[place] if place < len(self.found) else None
            if here is None or here[0] != step or _digest(here[1]) != digest:
                raise _changed(f"Weights of step {step}, which were measured, are not")
        if key["memory"] is None:
            F = Fisher(Root(self.problem))
            needed = F.decomposition(key["method"], facts["budget"]).route.memory
            if needed > self.budget:
                raise TrackingError(
                    f"The history {str(self.target)!r} was begun by a way that takes "
                    f"{format_bytes(needed)}, and now {format_bytes(self.budget)} may be used.",
                    "By another way its numbers would differ in last digits.",
                    "Free some memory, or start over with --force.",
                )
        self.budget = int(facts["budget"])
        return state


def _forget(target: Path) -> None:
    """Delete a history, and what was saved on the way to it; refused while another is at work."""
    if target.exists() and not is_history(target):
        raise TrackingError(
            f"{str(target)!r} exists and is not a history.",
            "It would be lost.",
            "Name another file with --out, or delete it first.",
        )
    if Path(f"{target}{SUFFIX}").is_dir():
        Checkpoint(target, {}).remove()
    target.unlink(missing_ok=True)


def _changed(what: str) -> TrackingError:
    return TrackingError(
        f"{what} what they were when this history was begun.",
        "The rest of it would be of another run.",
        "Restore them, name another file with --out, or start over with --force.",
    )


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
