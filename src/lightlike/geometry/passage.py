"""How much of each module's output still reaches the predictions: the rank of ∂h_L/∂h_l."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightlike.errors import ConsistencyError, LightlikeError, ModelError
from lightlike.geometry.listening import Heard, Listening, separating
from lightlike.metric.jacobian import Backward, differentiate, whitening
from lightlike.metric.placing import close
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Outputs
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.rounding import EPS, rank_tolerance

# Bytes of gradients in flight in one batched backward pass.
IN_FLIGHT = 64 << 20
# Bytes of derivatives held for a batch; beyond them its items are taken one by one.
HELD = 1 << 30


@dataclass(frozen=True)
class Passage:
    """The rank of L_iᵀ ∂h_L/∂h_l at the output h_l of one module, summed over items of the data.

    Attributes:
        module: Its name, with #2, #3, … for later calls; "" for the model itself.
        layer: Its class.
        width: Numbers in h_l for one item of the data.
        value: Σ_i rank L_iᵀ ∂h_L(x_i)/∂h_l(x_i), by `matrix_rank`'s threshold for each item.
        lower: Certain lower bound.
        upper: Certain upper bound.
        kind: "exact" if the bounds meet, else "certified".
        least: Least rank of one item.
        greatest: Greatest rank of one item.
    """

    module: str
    layer: str
    width: int
    value: int
    lower: int
    upper: int
    kind: str
    least: int
    greatest: int


@dataclass(frozen=True)
class Passages:
    """The modules that everything runs through, in order of execution, and the others.

    Attributes:
        chain: Those whose outputs every path from an earlier module to the predictions runs
            through, with ranks that never rise towards the input.
        bypassed: Modules inside branches, past which a path leads.
        unused: Modules on whose output the predictions do not depend.
        silent: Modules whose output is not one floating-point tensor.
        begun: Modules in order of their first call.
    """

    chain: tuple[Passage, ...]
    bypassed: tuple[str, ...]
    unused: tuple[str, ...]
    silent: tuple[str, ...]
    begun: tuple[str, ...]


class _Tally:
    """Ranks of one module's items."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.width = 0
        self.lower = self.value = self.upper = 0
        self.ranks: list[int] = []

    def add(self, jacobians: Tensor, precision: float) -> None:
        """Of some items, (items, rows, width)."""
        rows, self.width = jacobians.shape[1:]
        singular = torch.linalg.svdvals(jacobians)
        cut = rank_tolerance((rows, self.width), precision) * singular[:, :1]
        found = (singular > cut).sum(1)
        self.ranks += found.tolist()
        self.value += int(found.sum())
        self.lower += int((singular > 1.5 * cut).sum())
        # A zero matrix is of rank 0; else the rank in lower precision is bounded from below only.
        open_ = (
            singular > 0.5 * cut if precision <= EPS else singular[:, :1].expand_as(singular) > 0
        )
        self.upper += int(open_.sum())


def passages(problem: Problem, precision: float, budget: float = math.inf) -> Passages:
    """Follow the predictions' derivatives back to every module's output.

    Args:
        problem: Model, data and likelihood.
        precision: Rounding unit of the forward pass.
        budget: Bytes that may be used.

    Raises:
        ModelError: if items of a batch touch one another, modules change from batch to batch, or
            no module's output stands between all others and the predictions.
    """
    tallies: dict[str, _Tally] = {}
    names: tuple[tuple[str, ...], ...] | None = None
    backward = Backward()
    with isolated(problem.dtype):
        for batch, plain in problem.sweep("Derivatives of the predictions by modules"):
            for outputs, listening in _pieces(problem, batch, plain, precision, budget):
                kept, *others = separating(outputs.h, listening.heard)
                now = (
                    tuple(one.name for one in kept), *map(tuple, others),
                    tuple(listening.silent), tuple(listening.begun),
                )  # fmt: skip
                if names is not None and now != names:
                    raise _changing()
                names = now
                for one in kept:
                    tallies.setdefault(one.name, _Tally(one))
                if kept:
                    _count(problem, outputs, kept, tallies, backward, precision)
    if names is None or not tallies:
        raise ModelError(
            "No module's output stands between the others and the predictions.",
            "The chain rule through single modules does not hold here, so their ranks form no "
            "chain.",
            "Ask for the parameters alone, with modules=False.",
        )
    chain = tuple(_passage(tallies[name]) for name in names[0])
    return Passages(_descending(chain), *names[1:])


def _pieces(
    problem: Problem, batch: Batch, plain: Outputs, precision: float, budget: float
) -> Iterator[tuple[Outputs, Listening]]:
    """The batch as a whole if its items lie side by side everywhere; else item by item."""
    with Listening(problem.evaluator.model) as listening:
        outputs = problem.evaluator.outputs(batch)
    if not close(outputs.h, plain.h, precision):
        raise _changing()
    rows = outputs.positions * problem.survey.rank
    # All derivatives, and what their singular values take.
    held = 2 * 8 * rows * sum(one.shape.numel() for one in listening.heard)
    fits = held <= min(HELD, 0.5 * budget)
    if outputs.samples == 1 or (fits and _side_by_side(outputs, listening.heard)):
        yield outputs, listening
        return
    for i in range(plain.samples):
        mine = slice(i * plain.positions, (i + 1) * plain.positions)
        try:
            with Listening(problem.evaluator.model) as listening:
                outputs = problem.evaluator.outputs(batch.sample(i, plain.samples))
        except LightlikeError as error:
            raise _mixing() from error
        if outputs.samples != 1 or not close(outputs.h, plain.h[mine], precision):
            raise _mixing()
        yield outputs, listening


def _side_by_side(outputs: Outputs, heard: list[Heard]) -> bool:
    """Whether each item's predictions depend on its own slice of every module's output only."""
    if not heard:
        return True
    generator = torch.Generator().manual_seed(0)
    half = torch.randperm(outputs.samples, generator=generator) < outputs.samples // 2
    weights = torch.randn(outputs.h.shape, generator=generator, dtype=torch.float64)
    for chosen in (half, ~half):
        mask = chosen.repeat_interleave(outputs.positions)[:, None]
        cotangent = (weights * mask).to(outputs.h)
        found = differentiate(outputs.h, [one.edge for one in heard], cotangent, retain=True)
        for gradient in found:
            if gradient is None:
                continue
            if gradient.ndim == 0 or len(gradient) != outputs.samples:
                return False
            if bool((gradient[~chosen.to(gradient.device)] != 0).any()):
                return False
    return True


def _count(
    problem: Problem,
    outputs: Outputs,
    kept: list[Heard],
    tallies: dict[str, _Tally],
    backward: Backward,
    precision: float,
) -> None:
    """Add the ranks of these items to the tallies."""
    samples, positions = outputs.samples, outputs.positions
    root = whitening(problem, outputs).view(samples, positions, outputs.h.shape[-1], -1)
    places = [(p, c) for p in range(positions) for c in range(root.shape[-1])]
    size = 8 * (outputs.h.numel() + sum(one.shape.numel() for one in kept))
    step = max(1, IN_FLIGHT // size)
    edges = [one.edge for one in kept]
    gathered: list[list[Tensor]] = [[] for _ in kept]
    for start in range(0, len(places), step):
        some = places[start : start + step]
        cotangents = root.new_zeros(len(some), *root.shape[:3])
        for row, (p, c) in enumerate(some):
            cotangents[row, :, p] = root[:, p, :, c]
        found = backward(outputs.h, edges, cotangents.flatten(1, 2))
        for store, one, gradient in zip(gathered, kept, found, strict=True):
            if gradient is None:
                gradient = root.new_zeros(len(some), *one.shape)
            store.append(gradient.double().reshape(len(some), samples, -1))
    for one, store in zip(kept, gathered, strict=True):
        tallies[one.name].add(torch.cat(store).transpose(0, 1), precision)


def _passage(tally: _Tally) -> Passage:
    return Passage(
        module=tally.heard.name,
        layer=tally.heard.kind,
        width=tally.width,
        value=tally.value,
        lower=tally.lower,
        upper=tally.upper,
        kind="exact" if tally.lower == tally.upper else "certified",
        least=min(tally.ranks),
        greatest=max(tally.ranks),
    )


def _descending(chain: tuple[Passage, ...]) -> tuple[Passage, ...]:
    """The chain with bounds tightened by what the chain rule says of them."""
    tight = []
    for i, one in enumerate(chain):
        lower = max(other.lower for other in chain[: i + 1])
        upper = min(other.upper for other in chain[i:])
        if lower > upper:
            raise ConsistencyError(
                f"The rank at the output of {one.module!r} lies between {one.lower} and "
                f"{one.upper}, by the modules before and after it between {lower} and {upper}.",
                "The rank of a derivative cannot rise towards the input: singular values of some "
                "product are lost in rounding.",
                "Ask for the parameters alone, with modules=False.",
            )
        value = min(max(one.value, lower), upper)
        kind = "exact" if lower == upper else "certified"
        tight.append(replace(one, value=value, lower=lower, upper=upper, kind=kind))
    return tuple(tight)


def _mixing() -> ModelError:
    return ModelError(
        "The items of a batch touch one another, or one of them cannot be evaluated alone.",
        "The rank of ∂h_L/∂h_l is counted item by item.",
        "Give batches of one item, or ask for the parameters alone, with modules=False.",
    )


def _changing() -> ModelError:
    return ModelError(
        "The model calls other modules, or gives other outputs, from one batch to the next.",
        "Its modules then form no single chain.",
        "Ask for the parameters alone, with modules=False.",
    )
