"""What each layer contributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.metric.root import Root
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import decompose
from lightlike.spectrum.routes import routes

# A layer's rank is measured unasked while all layers together cost less than this share of the
# whole model's decomposition, or this many operations.
SHARE = 0.5
SMALL = 2e10


@dataclass(frozen=True)
class LayerSummary:
    """One module's own parameters, as columns of A.

    Attributes:
        name: The module that owns them; "" for raw parameters of the model itself.
        parameters: Their number.
        trace: Their part of tr Î, so that the parts add up to the whole.
        dimension: Rank of their columns alone, or None if it was not measured: directions that
            only cancel against other layers count here, so that the parts add up to more than
            the whole's dimension.
    """

    name: str
    parameters: int
    trace: float
    dimension: Dimension | None


def summarise_layers(
    root: Root, operations: float, *, ranks: bool | None = None, memory: int | float | None = None
) -> list[LayerSummary]:
    """One summary a layer; ranks if asked for (True), not (False), or if they are cheap (None).

    Args:
        root: A, whose `gram`, `metric` or `dense` has been computed (for the traces).
        operations: Of the whole model's decomposition.
        ranks: Whether to measure the layers' dimensions.
        memory: Budget in bytes.
    """
    if ranks is None:
        layers = root.problem.selection.layers()
        ranks = worth_ranking(layer_operations(map(root.of_layer, layers)), operations)
    return layers_of(root, root.traces, ranks=ranks, memory=memory)


def layers_of(
    root: Root,
    traces: Mapping[str, float],
    *,
    ranks: bool | None,
    memory: int | float | None = None,
) -> list[LayerSummary]:
    """One summary a layer, from their parts of the trace; ranks only if they are asked for."""
    return [
        LayerSummary(
            name,
            sum(entry.size for entry in entries),
            float(traces.get(name, 0.0)),
            layer_rank(root.of_layer(name), memory) if ranks else None,
        )
        for name, entries in root.problem.selection.layers().items()
    ]


def layer_operations(layers: Iterable[Root]) -> float:
    """What the ranks of all layers take: their products, and back-propagating all rows for each."""
    parts = list(layers)
    found = sum(routes(*part.shape, part.cost())[0].operations for part in parts)
    # Backwards to its input a row takes about as many operations as its sample takes forwards, in a
    # convolution far more than it has parameters.
    return found + sum(part.shape[0] for part in parts) * _forward_operations(parts[0].problem)


def _forward_operations(problem: Problem) -> float:
    """Of a sample, on average over the first batch; PyTorch counts those of products."""
    counter = FlopCounterMode(display=False)
    with isolated(problem.dtype), torch.no_grad(), counter:
        outputs = problem.evaluator.outputs(next(problem.batches()))
    return counter.get_total_flops() / max(1, outputs.samples)


def worth_ranking(needed: float, operations: float) -> bool:
    """Whether the ranks of all layers are cheap beside the whole model's decomposition."""
    return needed <= max(SMALL, SHARE * operations)


def layer_rank(part: Root, memory: int | float | None = None) -> Dimension:
    """Rank of the columns of one layer."""
    return dimension_of(decompose(part, "auto", memory).spectrum)
