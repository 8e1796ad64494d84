"""Find out where the samples of a batch lie in the outputs of captured calls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.errors import LightlikeError
from lightlike.metric.capture import Capture, Captured, Key, reached
from lightlike.metric.contractions import Layout
from lightlike.metric.contractions.layout import Place, find_place, possible_places
from lightlike.metric.jacobian import differentiate
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator, Outputs

Forward = tuple[Outputs, Capture, set[str]]


@dataclass(frozen=True)
class Places:
    """Where samples lie in each call's output, as seen on one batch.

    Attributes:
        places: The dimension along which samples lie, None if there is none.
        wide: Calls whose output was the same for all samples and is handed out once for each.
        seen: Whether the batch had more than one sample, so that there was something to see.
        graph_bytes: What the forward pass left in memory for the backward pass.
    """

    places: dict[Key, Place | None]
    wide: frozenset[Key]
    seen: bool
    graph_bytes: int

    def widened(self, samples: int) -> dict[Key, int]:
        """What a `Capture` of a batch is to widen."""
        return dict.fromkeys(self.wide, samples)

    def layout(self, captured: Captured, samples: int) -> Layout | None:
        """The layout of a call's output in some batch; None if it does not fit."""
        place = self.places.get(captured.key)
        if place is None:
            return None
        layout = Layout(samples, place)
        return layout if layout.fits(captured.shape) else None


def forward(evaluator: Evaluator, batch: Batch, widened: dict[Key, int] | None = None) -> Forward:
    """Outputs with calls captured, and the parameters that are also used otherwise."""
    with Capture(evaluator.leaves, widened) as capture:
        outputs = evaluator.outputs(batch)
    return outputs, capture, reached(outputs.h, evaluator.leaves)


def place_samples(evaluator: Evaluator, batch: Batch) -> tuple[Places, Forward]:
    """Places of the samples, found by differentiating the outputs of single ones.

    Calls without a place whose output depends on no other measured parameter, such as embeddings of
    positions, are tried again handed out once for each sample.
    """
    own = {value.untyped_storage().data_ptr() for value in evaluator.values.values()}
    saved: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        first = forward(evaluator, batch)
    size = sum(n for pointer, n in saved.items() if pointer not in own)
    places = _find(first)
    samples = first[0].samples
    unplaced = {c.key for c in first[1].calls if places[c.key] is None and c.fresh}
    if unplaced and samples > 1:
        try:
            second = forward(evaluator, batch, dict.fromkeys(unplaced, samples))
        except LightlikeError:  # the model depends on the shape that was changed
            return Places(places, frozenset(), samples > 1, size), first
        found = _find(second)
        same = close(second[0].h, first[0].h, second[1].precision)
        if same and second[0].samples == samples:
            wide = frozenset(key for key in unplaced if found.get(key) is not None)
            if wide == unplaced:
                return Places(found, wide, True, size), second
    return Places(places, frozenset(), samples > 1, size), first


def close(a: Tensor, b: Tensor, precision: float) -> bool:
    """Whether two outputs agree to half the digits that their precision has."""
    if a.shape != b.shape:
        return False
    largest = float(b.detach().abs().max())
    return float((a - b).detach().abs().max()) <= math.sqrt(precision) * largest


def _find(passed: Forward) -> dict[Key, Place | None]:
    outputs, capture, _ = passed
    calls, samples = capture.calls, outputs.samples
    if samples == 1 or not calls:
        # Any dimension of one entry will do; the whole tensor belongs to the one sample anyway.
        return {c.key: Place(0) for c in calls}
    possible = [possible_places(c.shape, c.call.axes(c.shape), samples) for c in calls]
    if all(len(found) == 1 for found in possible):
        # Nothing to choose; if samples lie nowhere after all, the witness will notice.
        return {c.key: found[0] for c, found in zip(calls, possible, strict=True)}
    edges = [c.edge for c in calls]
    probes: list[list[tuple[int, Tensor]]] = [[] for _ in calls]
    for index in (samples - 1, 0):
        cotangent = torch.zeros_like(outputs.h)
        rows = slice(index * outputs.positions, (index + 1) * outputs.positions)
        noise = torch.randn(cotangent[rows].shape, generator=torch.Generator().manual_seed(index))
        cotangent[rows] = noise.to(cotangent)
        gradients = differentiate(outputs.h, edges, cotangent, retain=True)
        for probe, gradient in zip(probes, gradients, strict=True):
            if gradient is not None:
                probe.append((index, gradient))
    return {
        c.key: find_place(found, samples, probe)
        for c, found, probe in zip(calls, possible, probes, strict=True)
    }
