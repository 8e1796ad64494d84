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
    """To Weights & Biases.

    Args:
        run: What `wandb.init` returned.
        prefix: Of the curves' names.
    """

    def write(step: int, numbers: Mapping[str, float]) -> None:
        run.log({f"{prefix}{name}": value for name, value in numbers.items()}, step=step)

    return write
