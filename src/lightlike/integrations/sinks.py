"""Where a tracker's numbers go besides its history: each of these makes a sink for `Tracker`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightlike.assess.tracking import Sink


def tensorboard(writer: Any, prefix: str = "lightlike/") -> Sink:
    """To TensorBoard.

    Args:
        writer: A `torch.utils.tensorboard.SummaryWriter`, or what has its `add_scalar`.
        prefix: Of the curves' names.
    """

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(f"{prefix}{name}", value, step)

    return write


def wandb(run: Any, prefix: str = "lightlike/") -> Sink:
    """To Weights & Biases, online or offline.

    The curves have an axis of their own, `prefix` + "step", the step of training. Whatever else is
    logged to the run, by other counts of steps too, neither is lost to the other: what is logged
    for a step that the run is beyond would be dropped, and so goes into a row of its own.

    Args:
        run: What `wandb.init` returned.
        prefix: Of the curves' names.
    """
    axis = f"{prefix}step"
    known: set[str] = set()

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name in numbers.keys() - known:
            run.define_metric(f"{prefix}{name}", step_metric=axis)
            known.add(name)
        row = {axis: step, **{f"{prefix}{name}": value for name, value in numbers.items()}}
        # A run that several processes write to has no steps; nor can it be asked for one.
        free = run.settings.mode != "shared" and step >= run.step
        run.log(row, step=step if free else None)

    return write
