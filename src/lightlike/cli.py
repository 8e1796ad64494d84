"""The command line: results on stdout, progress and errors on stderr.

Exit codes: 0 done; 1 the input cannot be measured (one paragraph on stderr says why and what to
do); 2 the command was misused; 3 a check of `diagnose` failed; 130 interrupted (Ctrl-C); 143
terminated (SIGTERM). A measurement or `track` that was stopped goes on where it was when the same
command is given again.

Where stdout or stderr is a terminal, long lines are folded to its width (COLUMNS overrides it);
letters that its encoding lacks are written in ASCII.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lightlike.arguments import (
    MAIN_HELP,
    MEASURE_HELP,
    NO_PROGRESS,
    TRACK_HELP,
    AsJson,
    Dtype,
    Explain,
    Files,
    Observations,
    Out,
    PresetName,
    PriorText,
    RunFile,
    Saturate,
    Tolerance,
    Units,
    Variance,
)
from lightlike.assess.comparison import Comparison
from lightlike.assess.comparison import compare as compare_results
from lightlike.assess.diagnosis import diagnose as diagnose_result
from lightlike.assess.history import History, read_history
from lightlike.assess.measure import measure as measure_model
from lightlike.assess.measurement import Measurement, load
from lightlike.assess.noisy import measure_with_noise
from lightlike.assess.planning import Plan
from lightlike.assess.presets import check_preset, settle
from lightlike.assess.reanalysis import reanalyse
from lightlike.console import adapt, echo, one_paragraph
from lightlike.demos import demo as run_demo
from lightlike.errors import ComparisonError, LightlikeError, StoreError
from lightlike.present.report import report as write_report
from lightlike.results import Result
from lightlike.runfile import Run, read_run
from lightlike.runfile.following import follow
from lightlike.store import check_replaceable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # so that the run file in the help stays as it is written
    pretty_exceptions_enable=False,
)

FAILED, INTERRUPTED, TERMINATED = 3, 130, 143


@app.callback(help=MAIN_HELP)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Dimension, Fisher spectrum and description length of PyTorch networks."""
    del debug  # read by `main`, which sees the errors


@app.command()
def demo(
    as_json: AsJson = False,
    out: Out = Path("digits.safetensors"),
    seed: Annotated[int, typer.Option(help="Of the split and the initial weights.")] = 0,
    quiet: Annotated[bool, NO_PROGRESS] = False,
) -> None:
    """Train a small network on real handwritten digits and measure it (under a minute)."""
    result = run_demo(seed=seed, progress=not quiet and "auto", out=out)
    show_result(result, as_json=as_json)
    if not as_json:
        held_out = result.record["held_out"]
        echo(
            f"held out     {held_out['accuracy']:.1%} of {held_out['observations']} digits right "
            f"({held_out['training_accuracy']:.1%} in training); written to {out}"
        )


@app.command(help=MEASURE_HELP)
def measure(
    run: RunFile,
    as_json: AsJson = False,
    out: Out = None,
    dtype: Dtype = None,
    prior: PriorText = None,
    preset: PresetName = None,
    explain: Explain = None,
    saturation: Saturate = None,
    quiet: Annotated[bool, NO_PROGRESS] = False,
) -> None:
    """Measure the model and data that a run file names."""
    asked = read_run(run, prior)
    options, foreseen = _settled(asked, preset, dtype=dtype, explain=explain, saturation=saturation)
    if out is not None:
        options["out"] = out
    if not quiet:
        echo(str(foreseen), err=True)
    options["progress"] = not quiet and "auto"
    if asked.fit_noise:
        result = measure_with_noise(asked.model, asked.data, **options)
    else:
        result = measure_model(asked.model, asked.data, asked.likelihood, **options)
    show_result(result, as_json=as_json)


@app.command()
def plan(
    run: RunFile, as_json: AsJson = False, dtype: Dtype = None, preset: PresetName = None
) -> None:
    """Say what `measure` would do with a run file: route, memory, time; compute nothing large."""
    _, foreseen = _settled(read_run(run), preset, dtype=dtype)
    _print(foreseen, as_json=as_json)


@app.command(help=TRACK_HELP)
def track(
    run: RunFile,
    as_json: AsJson = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="A file of weights or a pattern in quotes, in place of [track] weights."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The history to write, .jsonl.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a history there.")] = False,
    prior: PriorText = None,
    quiet: Annotated[bool, NO_PROGRESS] = False,
) -> None:
    """Measure saved weights of a training run one after the other."""
    history, target = follow(read_run(run, prior), weights, out, force=force, quiet=quiet)
    _print(history, as_json=as_json)
    if not as_json:
        echo(f"written to {target}")


def _settled(asked: Run, preset: str | None, **given: Any) -> tuple[dict[str, Any], Plan]:
    """The options of `measure` for a run file and what was given besides, and its plan."""
    options = asked.options | {name: value for name, value in given.items() if value is not None}
    named = asked.preset if preset is None else check_preset(preset)
    return settle(asked.model, asked.data, asked.likelihood, options, named)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A result file.")],
    as_json: AsJson = False,
    tolerance: Tolerance = None,
    prior_variance: Variance = None,
    units: Units = None,
    observations: Observations = None,
    out: Out = None,
) -> None:
    """Print a saved result, under other settings if asked; needs neither the model nor the data.

    Of a file ending in .jsonl, the history of a training run; that has no other settings.
    """
    if file.suffix == ".jsonl":
        if (tolerance, prior_variance, units, observations, out) != (None,) * 5:
            raise ComparisonError(
                "Other settings were given with the history of a training run.",
                "Only a single measurement can be re-analysed.",
                "Give them to `lightlike track`'s run file, and track again.",
            )
        _print(read_history(file), as_json=as_json)
        return
    if out is not None:
        check_replaceable(out)
    result = _again(file, tolerance, prior_variance, units, observations)
    if out is not None:
        result.save(out)
    show_result(result, as_json=as_json)


@app.command()
def diagnose(
    file: Annotated[Path, typer.Argument(help="A result file.")], as_json: AsJson = False
) -> None:
    """List the checks of a saved result, failures first; exit code 3 if any failed."""
    result = diagnose_result(load(file))
    _print(result, as_json=as_json)
    if not result.healthy:
        raise typer.Exit(FAILED)


@app.command()
def compare(
    files: Files,
    as_json: AsJson = False,
    units: Annotated[str | None, typer.Option(help="nats or bits; as in the first file.")] = None,
) -> None:
    """Sort saved results on the same data by description length; needs no model."""
    result = compare_results(_named(files), units=units)
    _print(result, as_json=as_json)


@app.command()
def report(
    files: Files,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace any file there.")] = False,
    tolerance: Tolerance = None,
    prior_variance: Variance = None,
    units: Units = None,
    observations: Observations = None,
) -> None:
    """Write a report of one saved result, or of a comparison of several, as one HTML file.

    Of a file ending in .jsonl, which a Tracker wrote, a report of that training run. One result
    may be reported under other settings, as `show` prints it.
    """
    settings = tolerance, prior_variance, units, observations
    if (len(files) > 1 or files[0].suffix == ".jsonl") and settings != (None,) * 4:
        raise ComparisonError(
            "Other settings were given with more than one result, or with a training run.",
            "Only a single measurement can be re-analysed.",
            "Re-analyse each with `lightlike show FILE --out OTHER`, then report those.",
        )
    if out.resolve() in {file.resolve() for file in files}:
        raise StoreError(
            f"{str(out)!r} is one of the results themselves.",
            "It would be lost.",
            "Name another file with --out.",
        )
    result: Measurement | Comparison | History
    if len(files) > 1:
        result = compare_results(_named(files))
    elif files[0].suffix == ".jsonl":
        result = read_history(files[0])
    else:
        result = _again(files[0], *settings)
    write_report(result, out, overwrite=force)
    echo(f"written to {out}")


def _again(
    file: Path,
    tolerance: float | None,
    prior_variance: str | None,
    units: str | None,
    observations: int | None,
) -> Measurement:
    """A saved result under other settings."""
    prior: float | str | None = prior_variance
    if prior_variance is not None:
        with contextlib.suppress(ValueError):
            prior = float(prior_variance)
    return reanalyse(
        load(file), tolerance=tolerance, prior=prior, units=units, observations=observations
    )


def _named(files: list[Path]) -> dict[str, Path]:
    """Each file by the shortest name that tells it from the others."""
    names: dict[str, Path] = {}
    for file in files:
        name = file.stem if sum(f.stem == file.stem for f in files) == 1 else str(file)
        if file.resolve() in {other.resolve() for other in names.values()}:
            raise ComparisonError(
                f"{str(file)!r} is given twice.",
                "A network compared with itself says nothing.",
                "Give each file once.",
            )
        names[name] = file
    return names


def show_result(result: Measurement, *, as_json: bool) -> None:
    """Print a measurement on stdout."""
    _print(result, as_json=as_json)


def _print(result: Result, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.to_dict(), allow_nan=False))
    else:
        echo(str(result))


def main() -> None:
    """Run the command line; errors become one paragraph and exit code 1, or a traceback."""
    # An exit lets a measurement save what it has, which the end of the process would not.
    before = signal.signal(signal.SIGTERM, _terminate)
    adapt()
    try:
        _run(debug="--debug" in sys.argv[1:])
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(*, debug: bool) -> None:
    try:
        app()  # exits by itself: 0, 2 for misuse, 130 when interrupted
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            how = "interrupted" if stop.code == INTERRUPTED else "terminated"
            echo(f"lightlike: {how}", err=True)
        raise
    except LightlikeError as error:
        if debug:
            raise
        echo(f"lightlike: {one_paragraph(error)}", err=True)
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        echo(f"lightlike: {error.strerror or error}; the output is not whole.", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        echo(
            f"lightlike: unexpected {type(error).__name__}: {one_paragraph(error)}. This is a "
            "fault of lightlike or of the model's code; nothing was written. Run again with "
            "--debug to see where.",
            err=True,
        )
        sys.exit(1)


def _terminate(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(TERMINATED)
