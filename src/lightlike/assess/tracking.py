"""Watching a training run: dimension and description length along the way."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightlike.assess.callbacks import huggingface_callback, lightning_callback
from lightlike.assess.history import History, Snapshot, read_history
from lightlike.errors import TrackingError, choice_error
from lightlike.geometry.dimension import dimension_of
from lightlike.geometry.subspaces import subspaces
from lightlike.length.gaussian import expand, gaussian_razor
from lightlike.length.priors import Prior, resolve_prior
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.numbers import check_whole, is_finite
from lightlike.problem.likelihoods import Likelihood, resolve_likelihood
from lightlike.problem.problem import Problem
from lightlike.spectrum.memory import resolve_memory
from lightlike.store import check_place, write_bytes

Sink = Callable[[int, Mapping[str, float]], None]


class Tracker:
    """Measures a network while it is trained; training is bit for bit as without it.

    `tracker(model, step)` measures when `step` is due and returns a `Snapshot`, or None. The model
    is measured in eval mode and left in the modes that it was in; random states are not touched.

    Args:
        data: What to measure on, such as a fixed part of the training data: see `measure`.
        likelihood: See `measure`.
        every: Steps between measurements; the first call always measures.
        prior: See `measure`.
        parameters: See `measure`.
        method: "auto", "gram", "metric" or "svd".
        rotation: How many of the screen's leading directions to follow from one snapshot to the
            next (D × rotation numbers are kept); 0 for none.
        budget: Largest share of the time since the first call that may go into measuring, from 0
            to 1: a measurement that is due but would exceed it is put off.
        out: File to which each snapshot is added as a line of JSON at once; one file a run. A run
            that goes on from a checkpoint, with `load_state_dict`, goes on with its file.
        sinks: Called with the step and the snapshot's numbers by name, such as
            `lightlike.integrations.sinks.tensorboard(writer)`.
        memory: What may be used, in bytes or as "8 GB".

    Raises:
        ChoiceError: if `every`, `rotation` or `budget` is out of range.
    """

    def __init__(
        self,
        data: Any,
        likelihood: str | Likelihood,
        *,
        every: int = 1,
        prior: Prior | None = None,
        parameters: str | Sequence[str] | None = None,
        method: str = "auto",
        rotation: int = 0,
        budget: float | None = None,
        out: str | os.PathLike[str] | None = None,
        sinks: Sequence[Sink] = (),
        memory: int | float | str | None = None,
    ) -> None:
        check_whole("every", every, 1)
        check_whole("rotation", rotation, 0)
        if budget is not None and not (is_finite(budget) and 0.0 < budget <= 1.0):
            raise choice_error("budget", budget, ["None", "a share above 0, at most 1"])
        if out is not None:
            check_place(out)
        self.every, self.rotation, self.budget = every, rotation, budget
        self._data, self._parameters = data, parameters
        self._likelihood = resolve_likelihood(likelihood)
        self._prior, self._method = resolve_prior(prior), method
        self._memory = resolve_memory(memory)
        self._out = None if out is None else Path(out)
        self._sinks = tuple(sinks)
        self._snapshots: list[Snapshot] = []
        self._basis: Tensor | None = None
        self._start: float | None = None
        self._spent = 0.0
        self._opened = False

    @property
    def history(self) -> History:
        """All snapshots so far."""
        return History(tuple(self._snapshots))

    def due(self, step: int) -> bool:
        """Whether a measurement falls on a step, and fits in the budget by the last one's time.

        Raises:
            TrackingError: if the step is not after the last snapshot's.
        """
        if not self._snapshots:
            return True
        last = self._snapshots[-1]
        if step <= last.step:
            raise TrackingError(
                f"Step {step} is not after step {last.step}, the last one measured.",
                "The history would run backwards.",
                "Count steps over the whole run; after a restart, load the tracker's state too.",
            )
        if step - last.step < self.every:
            return False
        if self.budget is None or self._start is None:
            return True
        elapsed = time.perf_counter() - self._start
        return self._spent + last.seconds <= self.budget * (elapsed + last.seconds)

    def __call__(
        self,
        model: nn.Module,
        step: int,
        *,
        loss: float | Tensor | None = None,
        force: bool = False,
    ) -> Snapshot | None:
        """Measure if it is due, or `force`.

        Args:
            model: The network as it is now.
            step: Of training.
            loss: The training loss, for the record.
            force: Measure whether it is due or not.

        Raises:
            TrackingError: if the step is not after the last one, or the file holds another run.
            LightlikeError: see `measure`.
        """
        start = time.perf_counter()
        step = _whole(step)
        if self._start is None:
            self._start = start
        if not self.due(step) and not force:
            return None
        self.open()
        with evaluated(model):
            snapshot, basis = self._measure(model, step, _finite(loss))
        taken = time.perf_counter() - start
        self._spent += taken
        snapshot = dataclasses.replace(snapshot, seconds=round(taken, 4))
        self._snapshots.append(snapshot)
        self._basis = basis
        if self._out is not None:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(_line(snapshot))
        numbers = snapshot.numbers()
        for sink in self._sinks:
            sink(step, numbers)
        return snapshot

    def lightning(self) -> Any:
        """A callback for PyTorch Lightning's `Trainer`.

        Raises:
            TrackingError: if Lightning is not installed.
        """
        return lightning_callback(self)

    def huggingface(self) -> Any:
        """A callback for Hugging Face's `Trainer`.

        Raises:
            TrackingError: if transformers is not installed.
        """
        return huggingface_callback(self)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of the run should hold, for `load_state_dict`."""
        return {
            "snapshots": [snapshot.to_dict() for snapshot in self._snapshots],
            "basis": None if self._basis is None else self._basis.clone(),
            "spent": self._spent,
            "elapsed": 0.0 if self._start is None else time.perf_counter() - self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            TrackingError: if it is not such a state.
        """
        try:
            snapshots = [Snapshot(**snapshot) for snapshot in state["snapshots"]]
            basis, spent, elapsed = state["basis"], float(state["spent"]), float(state["elapsed"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrackingError(
                f"This is not a tracker's state ({type(error).__name__}: {error}).",
                "Going on from it would leave a gap in the history.",
                "Give what Tracker.state_dict returned.",
            ) from error
        self._snapshots, self._basis, self._spent = snapshots, basis, spent
        self._start = time.perf_counter() - elapsed if snapshots else None
        self._opened = False

    def open(self) -> None:
        """Make the file, if there is one, hold what came before the next snapshot, and no more.

        After a crash it may have a torn line, steps after the checkpoint gone on from, or lack some
        before it. The next measurement would do this too.

        Raises:
            TrackingError: if the file holds another run.
            StoreError: if it cannot be read or written.
        """
        if self._out is None or self._opened:
            return
        before, out = tuple(self._snapshots), self._out
        if out.exists() and out.stat().st_size:
            there = read_history(out).snapshots
            both = min(len(there), len(before))
            if there[:both] != before[:both] or (there and not before):
                raise TrackingError(
                    f"{str(out)!r} holds {len(there)} snapshots of another run.",
                    "Two runs in one file could not be told apart.",
                    "Name another file, or load the state of that run's tracker first.",
                )
        write_bytes(out, "".join(map(_line, before)).encode())
        self._opened = True

    def _measure(
        self, model: nn.Module, step: int, loss: float | None
    ) -> tuple[Snapshot, Tensor | None]:
        problem = Problem(model, self._data, self._likelihood, self._parameters)
        F = Fisher(Root(problem))
        decomposition = F.decomposition(self._method, self._memory)
        spectrum = decomposition.spectrum
        dimension = dimension_of(spectrum)
        length = gaussian_razor(problem, self._prior, decomposition, expand(problem))
        basis, angle = None, None
        if self.rotation:
            _, screen = subspaces(F, self._method, memory=self._memory)
            basis = screen.basis(min(self.rotation, int(dimension)))
            if self._basis is not None:
                angle = largest_angle(self._basis.to(basis), basis)
        return Snapshot(
            step=step,
            loss=loss,
            observations=length.observations,
            parameters=problem.parameters,
            dimension=int(dimension),
            lower=dimension.lower,
            upper=dimension.upper,
            kind=dimension.kind,
            trace=spectrum.trace,
            largest=spectrum.largest,
            effective_dimension=length.effective_dimension,
            length=length.total,
            fit=length.fit,
            displacement=length.displacement,
            complexity=length.complexity,
            rotation=angle,
            seconds=0.0,
        ), basis


def _line(snapshot: Snapshot) -> str:
    return json.dumps(snapshot.to_dict(), allow_nan=False) + "\n"


def _whole(step: Any) -> int:
    try:
        return operator.index(step)
    except TypeError as error:
        raise choice_error("step", step, ["a whole number"]) from error


def _finite(loss: Any) -> float | None:
    """A loss as a number, whatever holds it."""
    if loss is None:
        return None
    value = float(loss.detach()) if isinstance(loss, Tensor) else float(loss)
    return value if math.isfinite(value) else None


def largest_angle(before: Tensor, after: Tensor) -> float:
    """The largest principal angle between the columns' spans, in radians.

    Of spans of unequal dimension, between the smaller one and its projection.
    """
    narrow, wide = sorted((before, after), key=lambda basis: basis.shape[1])
    # By the sine: small angles would drown in the rounding of their cosine.
    rest = narrow - wide @ (wide.T @ narrow)
    sine = float(torch.linalg.matrix_norm(rest, 2)) if narrow.shape[1] else 0.0
    return float(torch.asin(torch.tensor(min(1.0, sine), dtype=torch.float64)))


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, and afterwards each of its modules in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
