"""The dimension layer by layer: of each layer's parameters, of all from it on, of its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightlike.geometry.checks import check_fisher
from lightlike.geometry.columns import Columns
from lightlike.geometry.counting import ascending, cut_of, demand_float64, dimension_above
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.geometry.listening import Listening
from lightlike.geometry.passage import Passage, Passages, passages
from lightlike.geometry.tables import cells, render
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_truth
from lightlike.problem.isolation import isolated
from lightlike.results import Result
from lightlike.spectrum.decomposition import Decomposition, decompose
from lightlike.spectrum.memory import resolve_memory

# Names that are listed below a table.
MOST = 8


@dataclass(frozen=True)
class LayerRank:
    """One layer's parameters, and those of all layers from it to the output.

    Attributes:
        name: The module that owns them; "" for raw parameters of the model itself.
        parameters: Their number.
        alone: Rank of their columns of A.
        onwards: Rank of their columns and those of all later layers.
        added: How much the first adds to what later layers have; the sum over layers is d̂. Between
            values, and as certain as `onwards` here and of the next layer.
    """

    name: str
    parameters: int
    alone: Dimension
    onwards: Dimension
    added: int


@dataclass(frozen=True)
class DimensionChain(Result):
    """The dimension along a network, from input to output.

    Attributes:
        layers: In order of their first call.
        modules: The chain of module outputs h_l, in order of execution, with the rank of ∂h_L/∂h_l,
            which never rises towards the input; None if it was not asked for.
        bypassed: Modules past which some path leads, so that they are no part of the chain.
        unused: Modules on whose output the predictions do not depend.
        silent: Modules whose output is not one floating-point tensor.
        parameters: D.
        rows: K.
    """

    layers: tuple[LayerRank, ...]
    modules: tuple[Passage, ...] | None
    bypassed: tuple[str, ...]
    unused: tuple[str, ...]
    silent: tuple[str, ...]
    parameters: int
    rows: int

    def _records(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": one.name, "parameters": one.parameters, "alone": one.alone.value,
                "onwards": one.onwards.value, "added": one.added, "kind": one.onwards.kind,
            }
            for one in self.layers
        ]  # fmt: skip

    def __str__(self) -> str:
        rows = [
            (
                one.name or "(model)", f"{one.parameters:,}", *cells(one.alone),
                *cells(one.onwards), f"{one.added:,}",
            )
            for one in self.layers
        ]  # fmt: skip
        text = render(
            f"Rank of layers (D = {self.parameters:,}, K = {self.rows:,}), input first",
            ("layer", "parameters", "alone", "kind", "from here on", "kind", "adds"),
            rows,
        )
        if self.modules is None:
            return text
        outputs = [
            (
                one.module or "(model)", one.layer, f"{one.width:,}", _bounds(one), one.kind,
                f"{one.least:,} to {one.greatest:,}",
            )
            for one in self.modules
        ]  # fmt: skip
        listed = {
            "Inside branches, so no part of the chain": self.bypassed,
            "Without effect on the predictions": self.unused,
            "Without one tensor as output": self.silent,
        }
        notes = [f"{text}: {_few(names)}." for text, names in listed.items() if names]
        chain = render(
            f"Rank of the predictions' derivative by module outputs, over K = {self.rows:,} rows",
            ("output of", "class", "width", "rank", "kind", "per item"),
            outputs,
            notes,
        )
        return f"{text}\n\n{chain}"


def dimension_chain(
    F: Fisher, *, modules: bool = True, memory: int | float | str | None = None
) -> DimensionChain:
    """The dimension along a network: by layers' parameters, and by modules' outputs.

    With A_l the columns of layer l, `alone` is rank A_l and `onwards` rank [A_l | … | A_L], which
    grows towards the input up to d̂. With h_l the output of a module that every path runs through,
    ∂h_L/∂h_l = ∂h_L/∂h_{l+1} · ∂h_{l+1}/∂h_l, so that the rank of L_iᵀ ∂h_L/∂h_l never rises
    towards the input (arXiv 1905.11027). Modules inside branches, as of residual blocks, do not
    factor in this way and are named in `bypassed`; the blocks themselves do.

    Args:
        F: From `lightlike.fisher`.
        modules: Whether to follow the modules' outputs too.
        memory: What may be used, in bytes or as "8 GB".

    Raises:
        ChoiceError: if the model is evaluated in float32.
        CapacityError: if no exact route fits in memory.
        ModelError: if modules are asked for and form no chain: none that everything runs through,
            others from batch to batch, or items of a batch that touch one another.
    """
    check_fisher(F)
    check_truth("modules", modules)
    demand_float64(F, "The chain")
    budget = resolve_memory(memory)
    found = passages(F.problem, F.root.precision, budget) if modules else _order(F)
    layers = _layers(F, found.begun, memory)
    return DimensionChain(
        layers=layers,
        modules=found.chain if modules else None,
        bypassed=found.bypassed,
        unused=found.unused,
        silent=found.silent if modules else (),
        parameters=F.shape[0],
        rows=F.root.shape[0],
    )


def _order(F: Fisher) -> Passages:
    """The modules in order of their first call, from the first batch."""
    with isolated(F.problem.dtype), Listening(F.problem.evaluator.model) as listening:
        F.problem.evaluator.outputs(next(F.problem.batches()))
    return Passages((), (), (), (), tuple(listening.begun))


def _layers(
    F: Fisher, begun: Sequence[str], memory: int | float | str | None
) -> tuple[LayerRank, ...]:
    """Ranks of each layer and of it and later ones, the last layer first in the making."""
    names = _in_order(list(F.problem.selection.layers()), begun)
    whole = F.decomposition("auto", memory)
    cut, budget = cut_of(whole.spectrum), float(resolve_memory(memory))
    alone: list[Dimension] = []
    onwards: list[Dimension] = []
    roots = {name: F.root.of_layer(name) for name in names}
    for last, (single, joined) in enumerate(_factors(F, roots, whole)):
        alone.append(dimension_of(decompose(single, "auto", memory).spectrum))
        if last + 1 == len(names):
            onwards.append(dimension_above(whole.spectrum.values, cut))
        else:
            part = Decomposition(joined, whole.route, budget)
            onwards.append(dimension_above(part.solve(), cut))
    tight = ascending(onwards)
    added = [d.value - (tight[i - 1].value if i else 0) for i, d in enumerate(tight)]
    columns = (names[::-1], alone, tight, added)
    found = [
        LayerRank(name, roots[name].shape[1], one, all_, more)
        for name, one, all_, more in zip(*columns, strict=True)
    ]
    return tuple(found[::-1])


def _factors(
    F: Fisher, roots: dict[str, Any], whole: Decomposition
) -> Iterator[tuple[Columns, Columns]]:
    """Each layer's columns and those of it and all later ones, from the last layer on.

    Gram matrices of layers add up; Aᵀ A of some columns is a part of that of all.
    """
    entries = F.problem.selection.layers()
    total: Tensor | None = None
    joined: list[str] = []
    for name in reversed(roots):
        joined = [name, *joined]
        parts = [roots[one] for one in joined]
        if whole.method == "gram":
            gram = roots[name].gram(whole.budget)
            total = gram if total is None else total + gram
            yield Columns(parts[:1], gram=_held(gram)), Columns(parts, gram=_held(total))
        elif whole.method == "metric":
            pair = []
            for some in (joined[:1], joined):
                places = [
                    torch.arange(e.start, e.stop, device=F.device) for o in some for e in entries[o]
                ]
                index = torch.cat(places)
                pair.append(whole.matrix[index][:, index])
            yield (
                Columns(parts[:1], metric=_held(pair[0])),
                Columns(parts, metric=_held(pair[1])),
            )
        else:
            yield Columns(parts[:1]), Columns(parts)


def _held(matrix: Tensor) -> Any:
    return lambda *_: matrix


def _in_order(layers: list[str], begun: Sequence[str]) -> list[str]:
    """Layers by the first call of their module, or of the nearest around it that is called."""
    called = {name: index for index, name in enumerate(begun)}

    def place(name: str) -> int:
        while name and name not in called:
            name = name.rpartition(".")[0]
        return called.get(name, -1)

    return sorted(layers, key=place)


def _few(names: Sequence[str]) -> str:
    listed = ", ".join(name or "(model)" for name in names[:MOST])
    return listed if len(names) <= MOST else f"{listed} and {len(names) - MOST:,} more"


def _bounds(one: Passage) -> str:
    if one.lower == one.upper:
        return f"{one.value:,}"
    return f"{one.value:,} ({one.lower:,} to {one.upper:,})"
