"""The stages of an exact measurement: each is told to progress, and kept for a run that goes on.

Every stage is a function of the key of its checkpoint and of the stages before it, so that one that
was saved is the one that would be computed. What an earlier run saved is used only if the model
still gives the outputs that it gave then, and a saved Gram matrix only if it agrees with plain
differentiation of the model as it is now.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from lightlike.assess.layers import (
    SHARE,
    SMALL,
    LayerSummary,
    layer_operations,
    layer_rank,
    worth_ranking,
)
from lightlike.checkpoint import Checkpoint
from lightlike.errors import ConsistencyError, DeterminismError, EstimateError
from lightlike.geometry.dimension import Dimension
from lightlike.length.description import DescriptionLength
from lightlike.length.gaussian import Expansion, expand, gaussian_razor
from lightlike.length.priors import Prior, ResolvedPrior
from lightlike.length.projections import Projections, project
from lightlike.metric.fisher import Fisher
from lightlike.metric.ledger import BACKWARD, PRODUCTS
from lightlike.problem.data import digest
from lightlike.problem.precision import name_of
from lightlike.problem.problem import Problem
from lightlike.results import plain
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.rounding import EPS
from lightlike.spectrum.routes import EIGENVALUE_WEIGHT
from lightlike.spectrum.spectrum import Spectrum

EIGENVALUES, REFINEMENT = "Eigenvalues", "Refinement"
LENGTH, LAYERS, PROJECTIONS = "Length", "Layers", "Projections"
# Operations of eigenvectors in units of n³, and what two ways to a displacement may differ by.
VECTORS, AGREE = 9.0, 1e-6


def open_checkpoint(
    out: str | os.PathLike[str], problem: Problem, options: dict[str, Any], *, alone: bool = False
) -> Checkpoint:
    """The states of a measurement whose result goes to `out`.

    They are those of the same weights and data (SHA-256), selection, likelihood, dtype, options and
    versions, and of a model with the same outputs. What depends on the prior is saved by its name,
    so that another prior can take what does not.

    Raises:
        StoreError: as `Checkpoint`; with `alone`, also if there are states of another key.
    """
    key = {
        **problem.fingerprint,
        "parameters": problem.selection.digest(),
        "likelihood": plain(problem.likelihood.describe()),
        "dtype": name_of(problem.dtype),
        "device": problem.evaluator.device.type,
        **options,
        "versions": [version("lightlike"), torch.__version__, platform.python_version()],
    }
    return Checkpoint(out, key, problem.progress.note, alone=alone)


def prior_tag(prior: Prior, resolved: ResolvedPrior) -> str:
    """What tells the states of a prior from those of others."""
    text = json.dumps(plain(prior.describe()), sort_keys=True, default=str)
    numbers = digest({"mean": resolved.mean, "variance": resolved.variance})
    return hashlib.sha256(f"{text} {numbers}".encode()).hexdigest()[:16]


@contextmanager
def kept(checkpoint: Checkpoint, problem: Problem) -> Iterator[Checkpoint]:
    """Save what there is when a measurement is stopped, and say how it goes on."""
    try:
        yield checkpoint
    except (KeyboardInterrupt, SystemExit):
        checkpoint.flush()
        if checkpoint.folder.is_dir():
            problem.progress.note(
                f"Stopped. The same measurement goes on from {str(checkpoint.root)!r}."
            )
        raise
    except (ConsistencyError, DeterminismError):
        # Something changes from one pass to the next: no state can be trusted.
        checkpoint.remove()
        raise
    finally:
        checkpoint.close()


class Stages:
    """The stages of one measurement.

    Args:
        F: What is measured.
        method: The route.
        memory: As it was asked for.
        checkpoint: Where the stages are kept; None to keep nothing.
        layers: Whether to rank the layers; None if that is cheap.
    """

    def __init__(
        self,
        F: Fisher,
        method: str,
        memory: int | float | str | None,
        checkpoint: Checkpoint | None,
        layers: bool | None = None,
    ) -> None:
        self.F, self.checkpoint = F, checkpoint
        self.progress = F.problem.progress
        self._expansion: Expansion | None = None
        self._traces: dict[str, float] = {}
        if checkpoint is None:
            self.decomposition = F.decomposition(method, resolve_memory(memory))
        else:
            F.root.keeper = checkpoint.under("")
            self.decomposition = self._resumed(checkpoint, method, memory)
        root = F.root
        self._parts = {name: root.of_layer(name) for name in root.problem.selection.layers()}
        needed = layer_operations(self._parts.values())
        if layers is None:
            layers = worth_ranking(needed, self.decomposition.route.operations)
        self.ranks = layers
        self.progress.expect(operations(self.decomposition) | {LAYERS: layers * needed})

    @property
    def memory(self) -> float:
        """Bytes that may be used."""
        return self.decomposition.budget

    def spectrum(self) -> Spectrum:
        """The eigenvalues, and with them the traces of layers."""
        d, root = self.decomposition, self.F.root
        found = None if self.checkpoint is None else self.checkpoint.get("spectrum")
        if found is not None:
            tensors, facts = found
            self._traces = facts.pop("traces")
            d.restore(Eigenvalues.of(tensors["eigenvalues"].to(root.device), facts))
            for stage in (BACKWARD, PRODUCTS, EIGENVALUES, REFINEMENT):
                self.progress.credit(stage)
            return d.spectrum
        if d.method != "svd":
            _ = d.matrix
        with self.progress.stage(EIGENVALUES):
            _ = d.first
        with self.progress.stage(REFINEMENT):
            values = d.spectrum.values
        if not root.traces:
            _ = d.matrix
        # Kept, because whatever is asked of A later notes its own, which differ in last bits.
        self._traces = dict(root.traces)
        if self.checkpoint is not None:
            facts = {**values.facts(), "traces": self._traces}
            self.checkpoint.put("spectrum", {"eigenvalues": values.eigenvalues}, facts)
        return d.spectrum

    def expansion(self) -> Expansion:
        """The fit and its gradient."""
        if self._expansion is None:
            self._expansion = self._expand()
        return self._expansion

    def _expand(self) -> Expansion:
        found = None if self.checkpoint is None else self.checkpoint.get("expansion")
        if found is not None:
            return Expansion(found[1]["nll"], found[0]["gradient"].to(self.F.device))
        expansion = expand(self.F.problem)
        if self.checkpoint is not None and expansion.gradient is not None:
            self.checkpoint.put(
                "expansion", {"gradient": expansion.gradient}, {"nll": expansion.nll}
            )
        return expansion

    def length(self, prior: Prior, tag: str) -> DescriptionLength:
        """The Gaussian razor, in nats, under a prior that has a tag."""
        name = f"length-{tag}"
        found = None if self.checkpoint is None else self.checkpoint.get(name)
        if found is not None:
            self.progress.credit(LENGTH)
            self.F.root.sweep.ways = found[1]["ways"]
            return DescriptionLength.from_dict(found[1]["length"])
        expansion = self.expansion()
        with self.progress.stage(LENGTH):
            razor = gaussian_razor(self.F.problem, prior, self.decomposition, expansion)
            length = razor.settled()
        if self.checkpoint is not None:
            facts = {"length": plain(length.to_dict()), "ways": list(self.F.root.sweep.ways)}
            self.checkpoint.put(name, {}, facts)
        return length

    def projections(
        self, resolved: ResolvedPrior, tag: str, length: DescriptionLength, wanted: bool | None
    ) -> Projections | None:
        """What re-analysis under other priors needs; None where it is not wanted or not sure.

        Args:
            resolved: The prior, for its mean.
            tag: Of the prior.
            length: Under it, which the projections must give too if its variances are equal.
            wanted: Whether to keep it; None if it is cheap.
        """
        d, name = self.decomposition, f"projections-{tag}"
        if length.total is None or d.precision > EPS:
            return None
        if not (self._cheap() if wanted is None else wanted):
            return None
        found = None if self.checkpoint is None else self.checkpoint.get(name)
        if found is not None:
            tensors = {key: t.to(self.F.device) for key, t in found[0].items()}
            return Projections.of(tensors, found[1])
        with self.progress.stage(PROJECTIONS):
            made = project(self.F.problem, resolved, d, self.expansion())
        if made is None or not agrees(made, length):
            return None
        if self.checkpoint is not None:
            self.checkpoint.put(name, made.tensors(), made.facts())
        return made

    def _cheap(self) -> bool:
        """Whether eigenvectors are there already, or cheap beside the rest."""
        d = self.decomposition
        if "vectors" in vars(d):
            return True
        size = math.inf if d.method == "svd" else float(d.shape[0] if d.left else d.shape[1])
        needed = EIGENVALUE_WEIGHT * VECTORS * size**3 + 2 * d.factor.cost(d.budget).row_operations
        return needed <= max(SMALL, SHARE * d.route.operations)

    def layers(self) -> list[LayerSummary]:
        """One summary a layer, each kept when it is there."""
        root, found = self.F.root, []
        items = list(enumerate(self._parts.items()))
        for index, (name, part) in self.progress.track(items, LAYERS, len(items)):
            trace = self._traces.get(name, 0.0)
            kept = None if self.checkpoint is None else self.checkpoint.get(f"layer-{index}")
            rank = None
            if kept is not None:
                root.sweep.ways = kept[1]["ways"]
                rank = Dimension.from_dict(kept[1]["dimension"])
            elif self.ranks:
                rank = layer_rank(part, self.memory)
                if self.checkpoint is not None:
                    facts = {"dimension": plain(asdict(rank)), "ways": list(root.sweep.ways)}
                    self.checkpoint.put(f"layer-{index}", {}, facts)
            found.append(LayerSummary(name, part.shape[1], trace, rank))
        return found

    def _resumed(
        self, checkpoint: Checkpoint, method: str, memory: int | float | str | None
    ) -> Decomposition:
        """The decomposition with the budget that what was saved was computed with."""
        problem, budget = self.F.problem, resolve_memory(memory)
        given = same_outputs(checkpoint, problem)
        if given is not None:
            decomposition = self.F.decomposition(method, given)
            if memory is not None or decomposition.route.memory <= budget:
                return decomposition
            checkpoint.reset("What was saved is not used: less memory is available now than then.")
        facts = {"checksums": list(problem.survey.checksums), "budget": budget}
        checkpoint.put("survey", {}, facts)
        return self.F.decomposition(method, budget)


def same_outputs(checkpoint: Checkpoint, problem: Problem) -> int | None:
    """The memory that what was saved was computed with, if the model's outputs are as then.

    If they are not, nothing that was saved is kept.
    """
    survey = checkpoint.get("survey") if checkpoint.resumed else None
    if checkpoint.resumed:
        then: Sequence[float] = [] if survey is None else survey[1]["checksums"]
        if not problem.same(list(problem.survey.checksums), then):
            checkpoint.reset(
                "What was saved is not used: the model's outputs are not what they were then, "
                "though its weights are."
            )
            return None
    return None if survey is None else int(survey[1]["budget"])


def agrees(projections: Projections, length: DescriptionLength) -> bool:
    """Whether projections give the displacement that was measured, if the variances are equal."""
    variance = length.prior.get("variance")
    if not isinstance(variance, float | int) or length.displacement is None:
        return True
    try:
        found = projections.term(float(variance))
    except EstimateError:
        return False
    return abs(found - length.displacement) <= AGREE * max(1.0, abs(length.displacement))


def operations(decomposition: Decomposition) -> dict[str, float]:
    """Operations of the stages of a measurement but layers, weighted by their speed."""
    rows, columns = decomposition.shape
    cost = decomposition.factor.cost(decomposition.budget)
    size = float(rows if decomposition.left else columns)
    made = {PRODUCTS: cost.gram_operations} if decomposition.method == "gram" else {}
    if decomposition.method == "metric":
        made = {"Fisher matrix": cost.row_operations + 2.0 * rows * columns**2}
    return {
        **({} if decomposition.method == "metric" else {BACKWARD: cost.row_operations}),
        **made,
        EIGENVALUES: EIGENVALUE_WEIGHT * 4 / 3 * size**3,
        LENGTH: size**3 / 3 + cost.row_operations,
    }
