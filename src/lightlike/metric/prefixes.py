"""Back-propagate a causal model's rows through no more of each sequence than they depend on.

Where an output depends on no later position, the rows of the first t positions are those of the
sequences cut off there, and cost as much less. Whether a model is so is found out: on the cut
sequences it must make the same calls and the same outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import GradientEdge

from lightlike.errors import LightlikeError
from lightlike.metric.capture import Captured
from lightlike.metric.placing import Places, close, forward
from lightlike.problem.batch import Batch
from lightlike.problem.evaluation import Evaluator, Outputs

# A sequence is cut at so many places, and no nearer to one another than so many positions.
CUTS, NEAREST = 8, 4


class NotCausalError(Exception):
    """On cut sequences the model does something else."""


@dataclass(frozen=True)
class Passage:
    """A graph, and the positions whose rows are back-propagated through it.

    Attributes:
        h: Outputs (samples · length, m).
        edges: Where the outputs of the captured calls stand.
        positions: The positions.
        length: Positions of each sample in the graph.
    """

    h: Tensor
    edges: Sequence[GradientEdge]
    positions: Sequence[int]
    length: int


def step_of(positions: int) -> int:
    """Positions between two cuts."""
    return max(NEAREST, -(-positions // CUTS))


@dataclass(frozen=True)
class Prefixes:
    """The passages of one batch of sequences.

    Attributes:
        evaluator: The model.
        batch: Whole sequences.
        places: Where samples lie in each call.
        outputs: Of the whole sequences.
        calls: Calls of the whole sequences whose gradients are wanted.
        precision: Rounding unit of the forward pass.
    """

    evaluator: Evaluator
    batch: Batch
    places: Places
    outputs: Outputs
    calls: Sequence[Captured]
    precision: float

    def passages(self, chosen: Sequence[int]) -> Iterator[Passage]:
        """Graphs for the chosen positions, in order, one at a time.

        Raises:
            NotCausalError: if the rows of cut sequences are not those of the whole ones.
        """
        step, total = step_of(self.outputs.positions), self.outputs.positions
        for start in range(0, total, step):
            mine = [p for p in chosen if start <= p < start + step]
            if mine and start + step < total:
                yield self._cut(start + step, mine)
            elif mine:
                yield Passage(self.outputs.h, [c.edge for c in self.calls], mine, total)

    def _cut(self, length: int, positions: Sequence[int]) -> Passage:
        samples, total = self.outputs.samples, self.outputs.positions
        batch = self.batch.prefix(length, total, samples)
        if batch is None:
            raise NotCausalError
        try:
            outputs, capture, _ = forward(self.evaluator, batch, self.places.widened(samples))
        except LightlikeError as error:  # the model needs whole sequences
            raise NotCausalError from error
        whole = self.outputs.h.view(samples, total, -1)[:, :length].flatten(0, 1)
        # Nearly all digits: what little is seen of later positions would be missing in the rows.
        if outputs.samples != samples or not close(outputs.h, whole, self.precision**1.5):
            raise NotCausalError
        found = {c.key: c for c in capture.calls}
        edges = []
        for call in self.calls:
            twin = found.get(call.key)
            if twin is None or not self._alike(call, twin):
                raise NotCausalError
            edges.append(twin.edge)
        return Passage(outputs.h, edges, positions, length)

    def _alike(self, call: Captured, twin: Captured) -> bool:
        """Whether the twin's output is a part of the call's."""
        shapes = zip(twin.shape, call.shape, strict=False)
        fits = self.places.layout(twin, self.outputs.samples) is not None
        return len(twin.shape) == len(call.shape) and fits and all(a <= b for a, b in shapes)
