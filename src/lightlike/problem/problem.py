"""A model, its data and an output distribution: the question that everything else answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightlike.errors import ModelError
from lightlike.problem.batch import Batch
from lightlike.problem.data import Stream, digest
from lightlike.problem.draws import Draws
from lightlike.problem.evaluation import Evaluator, Outputs, checksum
from lightlike.problem.isolation import isolated
from lightlike.problem.likelihoods import Likelihood, resolve_likelihood
from lightlike.problem.parameters import Point, point, select
from lightlike.problem.precision import resolve_dtype
from lightlike.problem.survey import Survey, changed, check_batch, count, take_survey
from lightlike.progress import Progress

# Bytes of random vectors, or of score roots to multiply them by, at a time.
CHUNK = 64 << 20


class Problem:
    """A fixed point θ of a model, the data and the likelihood; never touches the model itself.

    Parameters and buffers are copied when the problem is made: what is measured is the model as it
    was then.

    Args:
        model: Any module that PyTorch can differentiate.
        data: See `lightlike.problem.data`.
        likelihood: A name or an object from `lightlike.likelihoods`.
        parameters: None, a regular expression or a list of names.
        progress: Where to report; silent by default.
        dtype: What the model is evaluated and differentiated in, "float64" or "float32".

    Raises:
        ModelError, ParameterError, ChoiceError, DataError: if the parts do not fit.

    Attributes:
        dtype: As a torch.dtype.
        draws: None, or what the score roots L_i are multiplied by: see `sketched`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        likelihood: str | Likelihood,
        parameters: str | Sequence[str] | None = None,
        progress: Progress | None = None,
        dtype: str | torch.dtype = "float64",
    ) -> None:
        self.dtype = resolve_dtype(dtype)
        if not isinstance(model, nn.Module):
            held = isinstance(getattr(model, "model", None), nn.Module)
            raise ModelError(
                f"The model is a {type(model).__name__}, not a torch.nn.Module.",
                "Its parameters cannot be found.",
                "Pass its attribute .model."
                if held
                else "Wrap the function in a module that registers its parameters.",
            )
        self.likelihood = resolve_likelihood(likelihood)
        self.selection = select(model, parameters)
        self._exact = self.evaluator = Evaluator(model, self.likelihood, self.selection)
        if self.dtype != torch.float64:
            self.evaluator = Evaluator(model, self.likelihood, self.selection, self.dtype)
        self.stream = Stream(data)
        # Taken now: some models count their own passes in a buffer.
        self._weights = digest(self._exact.values)
        self.progress = progress or Progress.silent()
        self.draws: Draws | None = None
        self._noise = 0

    @property
    def parameters(self) -> int:
        """D, the number of selected parameters."""
        return self.selection.size

    @cached_property
    def theta(self) -> Tensor:
        """The flat vector θ of selected parameters, (D,), float64."""
        with torch.inference_mode(False):
            return self.selection.flatten(self._exact.leaves).detach()

    def at(self, theta: Point) -> Problem:
        """The same model, data and likelihood at another point.

        Args:
            theta: The selected parameters as a flat vector (D,), or a module or state dict with all
                of them; other parameters and buffers in it, such as running statistics, are taken
                too.

        Raises:
            ParameterError: if the vector or a tensor has another shape, a name is missing or
                unknown, or a selected parameter is not finite.
        """
        values = point(theta, self.selection, self._exact.values, self._exact.slots)
        clone = copy.copy(self)
        for name in ("theta", "reference", "fingerprint", "survey"):
            vars(clone).pop(name, None)
        clone._exact = self._exact.at(values)
        exact = self.evaluator is self._exact
        clone.evaluator = clone._exact if exact else self.evaluator.at(values)
        clone._weights = digest(clone._exact.values)
        # The data have been looked at already.
        with isolated(self.dtype):
            survey = count(clone.evaluator, iter(self.stream), list(self.survey.digests))
        rank = survey.rank if self.draws is None else self.draws.count
        vars(clone)["survey"] = replace(survey, rank=rank)
        return clone

    def under(self, likelihood: str | Likelihood) -> Problem:
        """The same model, data and point under another likelihood.

        Raises:
            ChoiceError: if the likelihood is unknown.
            ValueError: if the problem is a sketch.
        """
        if self.draws is not None:
            raise ValueError("the draws of a sketch belong to its likelihood")
        clone = copy.copy(self)
        for name in ("reference", "survey"):
            vars(clone).pop(name, None)
        clone.likelihood = resolve_likelihood(likelihood)
        clone._exact = self._exact.under(clone.likelihood)
        exact = self.evaluator is self._exact
        clone.evaluator = clone._exact if exact else self.evaluator.under(clone.likelihood)
        return clone

    @cached_property
    def reference(self) -> Problem:
        """The same problem in float64; the problem itself if it is."""
        if self.dtype == torch.float64:
            return self
        clone = copy.copy(self)
        for name in ("survey", "reference"):
            vars(clone).pop(name, None)
        clone.dtype, clone.evaluator = torch.float64, self._exact
        if self.draws is not None:
            vars(clone)["survey"] = replace(clone.survey, rank=self.draws.count)
        return clone

    @property
    def copies(self) -> bool:
        """Whether all labels of the first batch are the tokens of an input, place by place."""
        batch = next(iter(self.stream))
        labels = batch.targets
        if labels is None or labels.ndim < 2 or labels.is_floating_point():
            return False
        counted = self.likelihood.observed(labels.reshape(-1))
        for x in batch.tensors():
            if x.shape == labels.shape and not x.is_floating_point():
                same = (x == labels).reshape(-1)
                same = same if counted is None else same[counted]
                if len(same) and bool(same.all()):
                    return True
        return False

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the weights (all parameters and buffers) and of the data."""
        with isolated():
            return {"model": self._weights, "data": self.stream.fingerprint()}

    def cast(self, dtype: torch.dtype) -> Problem:
        """The same problem evaluated and differentiated in float64 or float32."""
        if dtype == torch.float64:
            return self.reference
        if dtype == self.dtype:
            return self
        clone = copy.copy(self)
        vars(clone)["reference"] = self
        clone.dtype, clone.evaluator = dtype, self._exact.cast(dtype)
        return clone

    def batches(self) -> Iterator[Batch]:
        """The batches in order, on the model's device, floating-point inputs in `dtype`."""
        for batch in self.stream:
            yield batch.to(self.evaluator.device, self.dtype)

    def sweep(self, stage: str, share: float = 1.0) -> Iterator[tuple[Batch, Outputs]]:
        """Evaluate every batch, checking that outputs are those of the survey.

        Args:
            stage: What it is for.
            share: Which part of that stage this pass is.

        Raises:
            DeterminismError: if the data or the model changed since.
        """
        for index, batch in self.checked(stage, share):
            outputs = self.evaluator.outputs(batch)
            self.confirm(index, outputs)
            yield batch, outputs

    def checked(self, stage: str, share: float = 1.0) -> Iterator[tuple[int, Batch]]:
        """Every batch with its number, checked against the survey; arguments as of `sweep`.

        Raises:
            DeterminismError: if the data changed since.
        """
        survey = self.survey
        index = -1
        batches = self.progress.track(self.stream, stage, len(survey.samples), share=share)
        for index, read in enumerate(batches):
            check_batch(read, index, survey.digests)
            start = sum(survey.samples[:index])
            yield index, replace(read.to(self.evaluator.device, self.dtype), start=start)
        if index + 1 != len(survey.checksums):
            raise changed(index + 1)

    def confirm(self, index: int, outputs: Outputs) -> None:
        """Check that a batch's outputs are those of the survey.

        Raises:
            DeterminismError: if they are not.
        """
        if not self._same(checksum(outputs), self.survey.checksums[index]):
            raise changed(index)

    @cached_property
    def survey(self) -> Survey:
        """One pass over data and model, after the determinism probe."""
        with isolated(self.dtype):
            return take_survey(self.evaluator, self.stream, self.progress)

    def sketched(self, draws: Draws) -> Problem:
        """The same problem with L_i Ξ_i in place of L_i: r rows an observation, drawn once.

        Raises:
            ValueError: if it is sketched already.
        """
        if self.draws is not None:
            raise ValueError("this problem is a sketch already")
        clone = copy.copy(self)
        vars(clone).pop("reference", None)
        if self.dtype != torch.float64:
            vars(clone)["reference"] = self.reference.sketched(draws)
        clone.draws = draws
        clone._noise = max(self.survey.rank, self.survey.width)
        clone.__dict__["survey"] = replace(self.survey, rank=draws.count)
        return clone

    def score_roots(self, outputs: Outputs) -> Tensor:
        """L_i of every observation of a batch (n, m, rank), or L_i Ξ_i (n, m, r) if sketched.

        Raises:
            ModelError: if a likelihood's own `sketch` gives another shape.
        """
        h = outputs.h.detach()
        if self.draws is None:
            return self.likelihood.root(h)
        width, r = h.shape[-1], self.draws.count
        # A root that has to be made is as large as m × rank for each observation.
        size = self._noise * (r if self.likelihood.columns(width) is not None else width)
        counted = torch.arange(len(h), device=h.device)
        if outputs.observed is not None:
            counted = counted[outputs.observed]
        out = h.new_zeros(len(h), width, r)
        for rows in torch.split(counted, max(1, CHUNK // (8 * size))):
            places = [
                (outputs.start + k // outputs.positions, k % outputs.positions)
                for k in rows.tolist()
            ]
            drawn = self.draws.vectors(places, self._noise).to(h.device)
            found = self.likelihood.sketch(h[rows], drawn)
            if found.shape != (len(rows), width, r):
                raise ModelError(
                    f"{type(self.likelihood).__name__}.sketch gives shape {tuple(found.shape)} for "
                    f"{len(rows)} observations with {width} outputs and {r} draws.",
                    f"L Ξ is (n, m, r): here {(len(rows), width, r)}.",
                    "Return one (m, r) matrix for each observation, or do not define `sketch`.",
                )
            out[rows] = found
        return out

    def same(self, a: Sequence[float], b: Sequence[float]) -> bool:
        """Whether the checksums of all batches can be of the same outputs."""
        return len(a) == len(b) and all(map(self._same, a, b))

    def _same(self, a: float, b: float) -> bool:
        """Whether two checksums can be of the same outputs."""
        allowed = 1e-6 if self.dtype == torch.float64 else 1e-4
        return abs(a - b) <= allowed * max(1.0, abs(a), abs(b))
