"""Top eigenvalues and razor complexity of all 124 million parameters of GPT-2: see README.md."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Annotated, Any

import torch
import typer
from machine import machine, versions
from rich.console import Console
from timing import CLEAR, high_water, lower_mark
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

import lightlike as ll
from lightlike.integrations import huggingface

TOKENS = 64
# Sequences that a training step sees, and its rate.
BATCH, RATE = 8, 3e-4
# What quadrature may leave open, as a share of the standard error: steps are dear here.
SHARE = 0.2
GIB = 2**30


@dataclass(frozen=True)
class Text:
    """Python's documentation as tokens: words and signs, numbered by how common they are.

    Attributes:
        tokens: (sequences, 64), all of the text.
        distinct: How many different ones there are.
    """

    tokens: Tensor
    distinct: int

    @staticmethod
    def read(vocabulary: int) -> Text:
        """The text; what is too rare for the vocabulary shares its last number."""
        words = re.findall(r"\w+|[^\w\s]", "\n".join(topics[name] for name in sorted(topics)))
        common = [word for word, _ in Counter(words).most_common()]
        number = {word: min(index, vocabulary - 1) for index, word in enumerate(common)}
        ids = torch.tensor([number[word] for word in words])
        return Text(ids[: len(ids) // TOKENS * TOKENS].view(-1, TOKENS), len(common))

    def spread(self, count: int) -> Tensor:
        """Sequences from all over the text."""
        return self.tokens[torch.arange(count) * len(self.tokens) // count]


class Timed:
    """Products with their seconds, told to a console now and then.

    Args:
        operator: F.
        console: Where to.
    """

    def __init__(self, operator: ll.Products, console: Console) -> None:
        self.operator, self.console = operator, console
        self.shape, self.precision = operator.shape, operator.precision
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def __matmul__(self, v: Tensor) -> Tensor:
        start, used = time.perf_counter(), time.process_time()
        found = self.operator @ v
        self.seconds.append(time.perf_counter() - start)
        self.processor.append(time.process_time() - used)
        if len(self.seconds) % 10 == 1:
            self.console.print(f"product {len(self.seconds)}: {self.seconds[-1]:.1f} s")
        return found


def gpt2(text: Text, steps: int, config: GPT2Config) -> tuple[Any, float | None]:
    """GPT-2 from fixed random weights after a few steps of AdamW, and the last of the losses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = GPT2LMHeadModel(config).eval()
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        last = None
        for _ in range(steps):
            x = text.tokens[torch.randint(len(text.tokens), (BATCH,))]
            loss = model(input_ids=x, labels=x).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            last = loss.item()
        optimizer.zero_grad()
    return model, last


def deviation(F: ll.Fisher, products: ll.Products) -> float:
    """How far products are from float64 along a leading direction, relative to the product."""
    v = torch.randn(F.shape[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v = products @ v
    v /= v.norm()
    mine = products @ v
    mine -= F.products(1, dtype="float64", memory=0) @ v
    return float(mine.norm()) / float((products @ v).norm())


def measure(
    model: Any, tokens: Tensor, options: ll.Quadrature, batch: int, kept: str, console: Console
) -> dict[str, Any]:
    """All figures of the benchmark but the case."""
    before = lower_mark() if CLEAR.exists() else None
    start = time.perf_counter()
    prepared, batches = huggingface.prepare(model, tokens, batch_size=batch)
    F = ll.fisher(prepared, batches, "categorical", dtype="float32")
    survey = F.problem.survey
    n = survey.observations
    setup = time.perf_counter() - start
    console.print(f"D = {F.shape[0]:,}, N = {n:,}, K = {F.root.shape[0]:,}")
    products = Timed(F.products(options.most, memory=kept), console)
    start = time.perf_counter()
    found = ll.density(products, options, scale=float(n))
    searched = time.perf_counter() - start
    peak = None if before is None else high_water()
    complexity = found.logdet(float(n)).times(0.5)
    assert found.distinct is not None
    return {
        "sizes": {"parameters": F.shape[0], "observations": n, "rows": F.root.shape[0]},
        "seconds": {
            "preparation": setup,
            "search": searched,
            "all": setup + searched,
            "product": median(products.seconds),
            "processor, of a product": median(products.processor),
        },
        "products": found.products,
        "steps": [len(m) for m in found.probes],
        "way": products.operator.way,
        "memory_gib": None
        if before is None or peak is None
        else {"before": round(before / GIB, 2), "peak": round(peak / GIB, 2)},
        "eigenvalues": found.distinct.values.tolist(),
        "errors": found.distinct.errors.tolist(),
        "copies": found.distinct.copies.tolist(),
        "prior_variance": 1.0,
        "complexity_nats": complexity.to_dict(),
        "effective_dimension": found.effective_dimension(1.0 / n).to_dict(),
        "trace": found.trace.to_dict(),
        "fit_nats": None if survey.nll is None else float(survey.nll.sum()),
        "float32_deviation": deviation(F, products.operator),
    }


def main(
    sequences: Annotated[int, typer.Option(min=1, help="Sequences of 64 tokens.")] = 16,
    count: Annotated[int, typer.Option(min=1, help="Distinct eigenvalues.")] = 50,
    tolerance: Annotated[float, typer.Option(help="Of each, relative to the largest.")] = 1e-3,
    probes: Annotated[int, typer.Option(min=2, help="Random probes of the complexity.")] = 4,
    deflate: Annotated[
        int, typer.Option(min=0, help="Leading vectors kept beside a search for the others.")
    ] = 4,
    training: Annotated[int, typer.Option(min=0, help="Steps of AdamW ahead.")] = 20,
    layers: Annotated[int, typer.Option(min=1, help="12 in GPT-2 small.")] = 12,
    width: Annotated[int, typer.Option(min=12, help="768 in GPT-2 small.")] = 768,
    vocabulary: Annotated[int, typer.Option(min=2, help="50,257 in GPT-2.")] = 50257,
    batch: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 4,
    kept: Annotated[
        str, typer.Option(help="Memory for what products share; 1 B to keep nothing.")
    ] = "1 B",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the figures.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.")] = None,
) -> None:
    """Find the top eigenvalues and the complexity of GPT-2 by products in float32."""
    if threads is not None:
        torch.set_num_threads(threads)
    logging.set_verbosity_error()
    console = Console()
    last = min(vocabulary - 1, 50256)
    config = GPT2Config(
        n_layer=layers, n_embd=width, vocab_size=vocabulary, bos_token_id=last, eos_token_id=last
    )
    text = Text.read(vocabulary)
    start = time.perf_counter()
    model, loss = gpt2(text, training, config)
    console.print(f"{training} steps in {time.perf_counter() - start:.0f} s, loss {loss}")
    options = ll.Quadrature(
        probes=probes, distinct=count, deflate=deflate, tolerance=tolerance, share=SHARE
    )
    figures = {
        "case": {
            "model": f"GPT-2, {layers} layers of width {width}, {vocabulary} tokens",
            "sequences": sequences,
            "tokens": TOKENS,
            "training_steps": training,
            "last_loss": loss,
            "different_tokens_in_text": text.distinct,
            "count": count,
            "tolerance": tolerance,
            "probes": probes,
            "share": SHARE,
            "deflate": deflate,
            "dtype": "float32",
        },
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy", "transformers"),
        **measure(model, text.spread(sequences), options, batch, kept, console),
    }
    shown = {k: v for k, v in figures.items() if k not in ("eigenvalues", "errors", "copies")}
    console.print_json(data=shown)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
