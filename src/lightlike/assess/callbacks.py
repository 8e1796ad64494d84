"""A tracker in the hands of a training library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightlike.errors import TrackingError

if TYPE_CHECKING:
    from lightlike.assess.tracking import Tracker


def _missing(library: str, extra: str, error: ImportError) -> TrackingError:
    return TrackingError(
        f"{library} cannot be imported ({error}).",
        "There is nothing that would call back.",
        f"pip install 'lightlike[{extra}]'",
    )


def lightning_callback(tracker: Tracker) -> Any:
    """A PyTorch Lightning `Callback` that calls a tracker after each optimiser step.

    Its state goes into Lightning's checkpoints and comes back from them.

    Raises:
        TrackingError: if Lightning is not installed.
    """
    try:
        from pytorch_lightning import Callback
    except ImportError as error:
        raise _missing("PyTorch Lightning", "lightning", error) from error

    class Tracking(Callback):
        """Measures at the end of training batches."""

        state_key = "lightlike.Tracker"

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            """Measure if the step is due."""
            del batch, batch_idx
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            _follow(tracker, pl_module, int(trainer.global_step), loss)

        def state_dict(self) -> dict[str, Any]:
            """For checkpoints."""
            return tracker.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """From checkpoints."""
            tracker.load_state_dict(state_dict)

    return Tracking()


def huggingface_callback(tracker: Tracker) -> Any:
    """A Hugging Face `TrainerCallback` that calls a tracker after each optimiser step.

    Raises:
        TrackingError: if transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise _missing("transformers", "hf", error) from error

    class Tracking(TrainerCallback):
        """Measures at the end of steps."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Measure if the step is due."""
            del args, control
            logged = state.log_history[-1] if state.log_history else {}
            fresh = logged.get("step") == state.global_step
            loss = logged.get("loss") if fresh else None
            _follow(tracker, kwargs["model"], int(state.global_step), loss)

    return Tracking()


def _follow(tracker: Tracker, model: Any, step: int, loss: Any) -> None:
    taken = tracker.history.snapshots
    if taken and step <= taken[-1].step:
        return  # gradients are being accumulated
    tracker(model, step, loss=loss)
