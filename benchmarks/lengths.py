"""What description lengths take beyond the spectrum they rest on: see README.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from timing import Contender, ratios, round_robin, summary
from torch import nn

import lightlike as ll
from lightlike.demos import Digits, load_digits, train_mlp
from lightlike.length.priors import Isotropic, PerLayer

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"
EPSILON = 100.0
SPECTRUM = "from the model to its spectrum"
COUNTS, RAZOR = "soft counts of the spectrum", "razor under another variance"
ONE, LAYERS = "one variance by the evidence", "a variance a layer by the evidence"
CRITERIA, SINGULAR = "AIC, BIC, codes of labels", "singular free energy"
LOGDET, INTERPOLATING = "log det of a Gram matrix, all draws", "interpolating razor"


def convolutions(digits: Digits) -> nn.Sequential:
    """Two convolutions and a linear layer, trained a little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    x, y = digits.train
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def counts(spectrum: ll.Spectrum) -> tuple[float, ...]:
    """Everything that is a sum over eigenvalues."""
    return (
        float(spectrum.rank(1e-6)),
        float(spectrum.above(1e-3)),
        spectrum.effective_dimension(1e-3),
        spectrum.participation_ratio(),
        spectrum.stable_rank(),
        spectrum.entropy_dimension(),
        spectrum.logdet(100.0),
    )


def logdets(F: ll.Fisher, draws: int) -> list[float]:
    """½ log det(I + A Aᵀ/ε) at draws from the prior, by the plainest code there is."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        theta = torch.randn(F.shape[0], generator=generator, dtype=torch.float64)
        gram = F.at(theta).root.gram().div_(EPSILON)
        gram.diagonal().add_(1.0)
        found.append(float(torch.linalg.cholesky(gram).diagonal().log().sum()))
    return found


def contenders(
    model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], draws: int
) -> list[Contender]:
    """What is timed, with the spectrum at hand but for the first."""
    F = ll.fisher(model, data, "categorical")
    spectrum = ll.spectrum(F)
    len(spectrum)
    ll.description_length(F, prior=Isotropic("evidence"))
    coefficient = ll.LearningCoefficient(2.0, 0.1, len(data[0]), 1.0, None, "reference", ())
    labels = ("aic", "bic", "bic_dimension", "uniform", "label_entropy", "nml")

    def fresh() -> object:
        found = ll.fisher(model, data, "categorical")
        len(ll.spectrum(found))
        return found

    def razor(prior: ll.priors.Prior) -> Callable[[], object]:
        return lambda: ll.description_length(F, prior=prior, spectrum=spectrum).total

    return [
        Contender(SPECTRUM, fresh),
        Contender(COUNTS, lambda: counts(spectrum)),
        Contender(RAZOR, razor(Isotropic(0.3))),
        Contender(ONE, razor(Isotropic("evidence"))),
        Contender(LAYERS, razor(PerLayer("evidence")), 1),
        Contender(CRITERIA, lambda: ll.lengths.table(F, include=labels)),
        Contender(SINGULAR, lambda: ll.lengths.singular(coefficient).total),
        Contender(LOGDET, lambda: logdets(F, draws)),
        Contender(
            INTERPOLATING,
            lambda: ll.lengths.interpolating(F, epsilon=EPSILON, draws=draws),
        ),
    ]


def processor_seconds(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the processor over all threads, nearly the same on a busy machine; the result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def measure(observations: int, draws: int, repeats: int, console: Console) -> dict[str, Any]:
    """All figures of the benchmark."""
    digits = load_digits()
    data = digits.train[0][:observations], digits.train[1][:observations]
    cases = {}
    for name, model in (("MLP", train_mlp(digits)), ("CNN", convolutions(digits))):
        with console.status(name) as status:
            timed = contenders(model, data, draws)
            seconds = round_robin(timed, repeats, status.update)
            processor = {c.name: processor_seconds(c.run)[0] for c in timed if c.name != LAYERS}
            F = ll.fisher(model, data, "categorical")
            len(ll.spectrum(F))
            # Some seconds: what it finds is kept, too.
            processor[LAYERS], fitted = processor_seconds(
                lambda F=F: ll.description_length(F, prior=PerLayer("evidence"))
            )
        cases[name] = {
            "rows": F.root.shape[0],
            "parameters": F.shape[0],
            "seconds": {n: {**summary(s), "all": s} for n, s in seconds.items()},
            "processor_seconds": processor,
            "over_logdets": summary(ratios(seconds[INTERPOLATING], seconds[LOGDET])),
            "processor_over_logdets": processor[INTERPOLATING] / processor[LOGDET],
            "layers": fitted.prior,
        }
    return {
        "observations": observations,
        "draws": draws,
        "repeats": repeats,
        "machine": machine(),
        "versions": versions("lightlike", "torch", "numpy", "scipy"),
        "cases": cases,
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the figures as tables."""
    for name, case in figures["cases"].items():
        title = "{}, K = {:,}, D = {:,}".format(name, case["rows"], case["parameters"])
        table = Table(title=title)
        table.add_column("", no_wrap=True)
        for column in ("median s", "min s", "max s", "processor s"):
            table.add_column(column, justify="right", no_wrap=True)
        for what, s in case["seconds"].items():
            times = [f"{s[key]:.4f}" for key in ("median", "min", "max")]
            table.add_row(what, *times, f"{case['processor_seconds'][what]:.4f}")
        console.print(table)
        console.print(
            f"The interpolating razor takes {case['over_logdets']['median']:.2f} of "
            f"{figures['draws']} log dets ({case['processor_over_logdets']:.2f} by the processor)."
        )


def main(
    observations: Annotated[int, typer.Option(min=10, help="Digits.")] = 100,
    draws: Annotated[int, typer.Option(min=10, help="Of the interpolating razor.")] = 20,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    json_file: Annotated[Path, typer.Option("--json", help="Where to write the figures.")] = RESULTS
    / "lengths.json",
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Time lengths that follow from one spectrum, and the interpolating razor by its draws."""
    torch.set_num_threads(threads)
    console = Console()
    console.width = max(console.width, 100)
    figures = measure(observations, draws, repeats, console)
    show(figures, console)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
