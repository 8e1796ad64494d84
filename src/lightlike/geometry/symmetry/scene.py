"""What reasons for null directions are looked for in: A, its columns, and the traced calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_map

from lightlike.errors import LightlikeError
from lightlike.geometry.symmetry.calls import CURVES, RECTIFIERS, handlers, leaves
from lightlike.geometry.symmetry.columns import Columns
from lightlike.geometry.symmetry.graph import Graph, record
from lightlike.geometry.symmetry.statistics import measure_slopes
from lightlike.geometry.symmetry.tracing import Floats, Ints, Trace
from lightlike.metric.root import Root
from lightlike.problem.batch import Batch
from lightlike.problem.parameters import Selection
from lightlike.problem.problem import Problem

# Samples of the pass that is recorded.
FEW = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that claims are made from.

    Attributes:
        root: A.
        columns: Its columns.
        trace: The model's calls; None if they could not be followed.
        rank: d̂.
        largest: s_1.
        tolerance: Relative to s_1.
    """

    root: Root
    columns: Columns
    trace: Trace | None
    rank: int
    largest: float
    tolerance: float

    @property
    def problem(self) -> Problem:
        """The model, data and likelihood."""
        return self.root.problem

    @property
    def data_limited(self) -> bool:
        """Whether all rows of A are independent, so that more of them would leave fewer null."""
        return self.rank == self.root.shape[0]

    @property
    def selection(self) -> Selection:
        """The parameters."""
        return self.problem.selection

    @cached_property
    def theta(self) -> Floats:
        """Their values, (D,)."""
        values: Floats = self.problem.theta.cpu().numpy()
        return values

    @cached_property
    def inert(self) -> Ints:
        """Coordinates j with A e_j = 0, ‖A e_j‖ ≤ tolerance · s_1 / 2√D.

        Then any combination of them is null too.
        """
        bound = 0.5 * self.tolerance * self.largest / np.sqrt(len(self.columns.norms))
        return np.flatnonzero(self.columns.norms <= bound)


def trace_model(problem: Problem) -> Trace | None:
    """Record a forward pass on a few samples and trace it; None if the model refuses."""
    reference = problem.reference
    first = next(reference.batches())
    size = problem.survey.samples[0]
    for batch in (few(first, size), first):
        try:
            graph: Graph = record(reference.evaluator, batch, leaves())
            slopes = measure_slopes(problem, graph, leaves(), (*RECTIFIERS, *CURVES), RECTIFIERS)
            return Trace(graph, problem.selection, handlers(), slopes)
        except (LightlikeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            # A model may refuse a small batch, or to be watched; then only data speak.
            continue
    return None


def few(batch: Batch, size: int) -> Batch:
    """The first samples of a batch of some size."""

    def pick(item: Any) -> Any:
        return item[:FEW] if isinstance(item, Tensor) and item.shape[:1] == (size,) else item

    args, kwargs = tree_map(pick, (batch.args, batch.kwargs))
    return replace(batch, args=args, kwargs=kwargs, targets=None)
