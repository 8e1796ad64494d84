"""The command line: results on stdout, progress and errors on stderr.

Exit codes: 0 done; 1 the input cannot be measured (one paragraph on stderr says why and what to
do); 2 the command was misused; 3 a check of `diagnose` failed; 130 interrupted (Ctrl-C); 143
terminated (SIGTERM). A measurement that was stopped goes on where it was when the same command is
given again.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from lightlike.assess.comparison import Comparison
from lightlike.assess.comparison import compare as compare_results
from lightlike.assess.diagnosis import diagnose as diagnose_result
from lightlike.assess.history import History, read_history
from lightlike.assess.measure import measure as measure_model
from lightlike.assess.measurement import Measurement, load
from lightlike.assess.noisy import measure_with_noise
from lightlike.assess.planning import plan as plan_model
from lightlike.assess.reanalysis import reanalyse
from lightlike.demos import demo as run_demo
from lightlike.errors import ComparisonError, LightlikeError, StoreError
from lightlike.present.report import report as write_report
from lightlike.runfile import read_run
from lightlike.store import check_replaceable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # so that the run file in the help stays as it is written
    pretty_exceptions_enable=False,
)

FAILED, INTERRUPTED, TERMINATED = 3, 130, 143

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Out = Annotated[Path | None, typer.Option(help="File to write the result to.")]
RunFile = Annotated[Path, typer.Argument(help="A TOML run file; see `lightlike measure --help`.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="float64, or float32: faster, for large eigenvalues; as in the run file."),
]
Files = Annotated[list[Path], typer.Argument(help="Result files of `measure`.")]
PriorText = Annotated[
    str | None,
    typer.Option(
        "--prior", help="In place of the run file's, written as there: 0.1, evidence, '{ ... }'."
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Singular values above this share of the largest count as dimensions."),
]
Variance = Annotated[
    str | None, typer.Option(help="Of an isotropic prior around the same mean; or 'evidence'.")
]
Units = Annotated[str | None, typer.Option(help="nats or bits.")]
Observations = Annotated[
    int | None, typer.Option(help="The length as if there were so many observations.")
]
NO_PROGRESS = typer.Option("--quiet", "-q", help="No progress on stderr.")


MEASURE_HELP = """Measure the model and data that a run file names.

\b
[model]
factory = "package.module:function"   # returns the module
weights = "weights.safetensors"       # optional
arguments = { width = 32 }            # optional, of the factory
[data]
factory = "package.module:function"   # returns (x, y), a DataLoader, ...
[measure]
likelihood = "categorical"            # or { name = "gaussian", variance = 0.1 }, or "evidence"
prior = { variance = "evidence" }     # optional; variance 1 unless given; or one of:
#   { name = "per_layer", variance = { "0" = 0.1, ".*" = "evidence" }, mean = "w.safetensors" }
#   { name = "from_initialisation", constants = 0.01, fresh = true }
#   { name = "per_parameter", variance = { "0.weight" = 0.1, "0.bias" = 0.2 } }
out = "result.safetensors"            # optional, beside the run file
# optional too: parameters, method, units, memory, seed, layers, dtype, explain, saturation
"""


@app.callback()
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
        typer.echo(
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
    quiet: Annotated[bool, NO_PROGRESS] = False,
) -> None:
    """Measure the model and data that a run file names."""
    asked = read_run(run, prior)
    options = {**asked.options, "progress": not quiet and "auto"}
    if out is not None:
        options["out"] = out
    if dtype is not None:
        options["dtype"] = dtype
    if asked.fit_noise:
        result = measure_with_noise(asked.model, asked.data, **options)
    else:
        result = measure_model(asked.model, asked.data, asked.likelihood, **options)
    show_result(result, as_json=as_json)


@app.command()
def plan(run: RunFile, dtype: Dtype = None) -> None:
    """Say what `measure` would do with a run file: route, memory, time; compute nothing large."""
    asked = read_run(run)
    kept = ("parameters", "method", "memory", "dtype")
    options = {k: v for k, v in asked.options.items() if k in kept}
    if dtype is not None:
        options["dtype"] = dtype
    typer.echo(str(plan_model(asked.model, asked.data, asked.likelihood, **options)))


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
    """Print a saved result, under other settings if asked; needs neither the model nor the data."""
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
    typer.echo(json.dumps(result.to_dict()) if as_json else str(result))
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
    typer.echo(json.dumps(result.to_dict(), allow_nan=False) if as_json else str(result))


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
    typer.echo(f"written to {out}")


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
    text = json.dumps(result.to_dict(), allow_nan=False) if as_json else str(result)
    typer.echo(text)


def main() -> None:
    """Run the command line; errors become one paragraph and exit code 1, or a traceback."""
    # An exit lets a measurement save what it has, which the end of the process would not.
    before = signal.signal(signal.SIGTERM, _terminate)
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
            sys.stderr.write(f"lightlike: {how}\n")
        raise
    except LightlikeError as error:
        if debug:
            raise
        sys.stderr.write(f"lightlike: {error}\n")
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        sys.stderr.write(f"lightlike: {error.strerror or error}; the output is not whole.\n")
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        sys.stderr.write(
            f"lightlike: unexpected {type(error).__name__}: {error}. This is a fault of lightlike "
            "or of the model's code; nothing was written. Run again with --debug to see where.\n"
        )
        sys.exit(1)


def _terminate(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(TERMINATED)
