"""Arguments that commands share, and the longer pieces of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
PresetName = Annotated[
    str | None, typer.Option("--preset", help="quick, standard or exact; as in the run file.")
]
Explain = Annotated[
    bool | None,
    typer.Option(
        "--explain/--no-explain",
        help="Name the sources of null directions, or not, whatever the run file says.",
    ),
]
Saturate = Annotated[
    bool | None,
    typer.Option(
        "--saturation/--no-saturation",
        help="Follow the dimension against observations, or not, whatever the run file says.",
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


MAIN_HELP = """Dimension, Fisher spectrum and description length of PyTorch networks.

Results go to stdout, plans, progress and errors to stderr.

\b
Exit codes:
  0    done
  1    the input cannot be measured; stderr says why and what to do
  2    the command was misused
  3    a check of `diagnose` failed
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)
"""

MEASURE_HELP = """Measure the model and data that a run file names.

What it will do, how long that takes and in how much memory is told on stderr first, and progress
after it. The folder of the run file is looked in for modules and files.

\b
[model]
factory = "package.module:function"   # returns the module; or "hf:NAME-OR-PATH"
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
# optional too: parameters, units, memory, seed, dtype, and true or false each: layers, explain,
# saturation, projections
preset = "standard"                   # optional; or:
#   "quick": no layers; an estimate, marked as such, where no exact route fits
#   "exact": exact or refused, with layers, explain and saturation
method = "auto"                       # optional; "gram", "metric", "svd"; or, not exact, one of:
#   "lanczos", "slq", "columns", "kronecker", "sketch", and with options, each of which may
#   be left out:
#   { name = "lanczos", count = 20, tolerance = 1e-7, block = 1, chance = 1e-6, maximum = 3000 }
#   { name = "slq", probes = 16, steps = 200, deflate = 10, share = 0.05, block = 8,
#     control = "ekfac", distinct = 0, tolerance = 1e-4, maximum = 2000 }
#   { name = "columns", share = 0.125, replicates = 8 }
#   { name = "kronecker", form = "ekfac", sharing = "expand", small = 1024, largest = 8192,
#     check = true }
#   { name = "sketch", draws = 8, repetitions = 4, distribution = "normal" }
"""

TRACK_HELP = """Measure saved weights of a training run one after the other.

The model and data are those of the run file; of its [measure] table likelihood, prior, parameters,
method and memory count. Its [track] table names the files, which are loaded in turn:

\b
[track]
weights = "step-*.safetensors"        # or a list of files
out = "history.jsonl"                 # optional, beside the run file
rotation = 3                          # optional: leading directions to follow

The step is the last number in each file's name, or its place where the names have none. Lengths
are in nats. `show` and `report` take the history that is written.

Stopped, by Ctrl-C or a crash, the same command goes on after the last file that was measured, to
the same numbers; it also takes files that came since. Another set-up, or other weights, are refused
unless --force starts over.
"""
