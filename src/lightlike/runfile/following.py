"""Following a training run by the weights that were saved along it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightlike.assess.history import History
from lightlike.assess.parts import is_exact
from lightlike.assess.stages import kept
from lightlike.assess.tracking import Tracker, evaluated
from lightlike.errors import ChoiceError
from lightlike.numbers import check_whole
from lightlike.problem.problem import Problem
from lightlike.progress import Progress
from lightlike.runfile.checkpoints import find_checkpoints
from lightlike.runfile.factories import load_weights
from lightlike.runfile.journal import Journal
from lightlike.runfile.run import Run
from lightlike.store import check_place

OUT = "history.jsonl"
# Options of `measure` that a tracker takes too.
TAKEN = ("prior", "parameters", "method", "memory")


def follow(
    run: Run,
    weights: Sequence[str] | None = None,
    out: Path | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
) -> tuple[History, Path]:
    """Load file after file of weights into the model and measure it.

    Each measurement is saved when it is made: after Ctrl-C, SIGTERM or a crash the same call goes
    on with the next file, and gets the same numbers to the bit, with as many threads. Files of
    later steps may have come in the meantime; those that were measured must be the same.

    Args:
        run: With its [track] table.
        weights: Files or patterns relative to the present folder, in place of the table's.
        out: Where the history goes, in place of the table's; "history.jsonl" beside the run file
            unless either names another. A line is added after each measurement.
        force: Replace a history that is there, finished or not.
        quiet: No progress on stderr.

    Returns:
        The history, and its file.

    Raises:
        ChoiceError: if the run file asks for what a history does not hold.
        TrackingError: if there is a history already that is finished, or of other weights.
        StoreError: if one with another set-up was begun, or another process is at work on it.
        RunFileError: if the files are not there, or do not suit the model.
    """
    method = run.options.get("method", "auto")
    if not is_exact(method) or run.options.get("dtype", "float64") != "float64" or run.fit_noise:
        raise ChoiceError(
            "The run file asks for an estimate, for float32, or for a fitted noise variance.",
            "A history holds exact numbers under one likelihood.",
            "Remove method, dtype or the variance 'evidence' from [measure] before tracking.",
        )
    rotation = run.track.get("rotation", 0)
    check_whole("rotation", rotation, 0)
    if weights:
        found = find_checkpoints(list(weights), Path())
    else:
        found = find_checkpoints(run.track.get("weights", []), run.folder)
    target = out if out is not None else run.folder / run.track.get("out", OUT)
    check_place(target)
    options = {name: run.options[name] for name in TAKEN if name in run.options}
    progress = Progress.resolve(not quiet and "auto")
    load_weights(run.model, found[0][1])
    with evaluated(run.model):
        problem = Problem(run.model, run.data, run.likelihood, options.get("parameters"), progress)
    journal = Journal(target, found, problem, {**options, "rotation": rotation}, force=force)
    options["memory"] = journal.budget
    with kept(journal.states, problem) as states:
        tracker = Tracker(run.data, run.likelihood, rotation=rotation, out=target, **options)
        left = journal.begin(tracker)
        for step, file in progress.track(left, "Weights", len(left)):
            load_weights(run.model, file)
            tracker(run.model, step, force=True)
            journal.record(tracker, step, file)
        states.remove()
    return tracker.history, target
