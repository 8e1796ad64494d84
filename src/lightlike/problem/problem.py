"""A model, its data and an output distribution: the question that everything else answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightlike.errors import ModelError
from lightlike.problem.data import Batch, Stream, digest
from lightlike.problem.evaluation import Evaluator, Outputs, checksum
from lightlike.problem.isolation import isolated
from lightlike.problem.likelihoods import Likelihood, resolve_likelihood
from lightlike.problem.parameters import select
from lightlike.problem.survey import Survey, changed, check_batch, take_survey
from lightlike.progress import Progress


class Problem:
    """A fixed point θ of a model, the data and the likelihood; never touches the model itself.

    Parameters and buffers are copied in float64 when the problem is made: what is measured is the
    model as it was then.

    Args:
        model: Any module that PyTorch can differentiate.
        data: See `lightlike.problem.data`.
        likelihood: A name or an object from `lightlike.likelihoods`.
        parameters: None, a regular expression or a list of names.
        progress: Where to report; silent by default.

    Raises:
        ModelError, ParameterError, ChoiceError, DataError: if the parts do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        likelihood: str | Likelihood,
        parameters: str | Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
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
        self.evaluator = Evaluator(model, self.likelihood, self.selection)
        self.stream = Stream(data)
        # Taken now: some models count their own passes in a buffer.
        self._weights = digest(self.evaluator.values)
        self.progress = progress or Progress.silent()

    @property
    def parameters(self) -> int:
        """D, the number of selected parameters."""
        return self.selection.size

    @cached_property
    def theta(self) -> Tensor:
        """The flat vector θ of selected parameters, (D,), float64."""
        with torch.inference_mode(False):
            return self.selection.flatten(self.evaluator.leaves).detach()

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

    def batches(self) -> Iterator[Batch]:
        """The batches in order, on the model's device, floating-point inputs in float64."""
        for batch in self.stream:
            yield batch.to(self.evaluator.device)

    def sweep(self, stage: str) -> Iterator[tuple[Batch, Outputs]]:
        """Evaluate every batch, checking that outputs are those of the survey.

        Raises:
            DeterminismError: if the data or the model changed since.
        """
        survey = self.survey
        index = -1
        batches = self.progress.track(self.stream, stage, len(survey.samples))
        for index, read in enumerate(batches):
            check_batch(read, index, survey.digests)
            batch = read.to(self.evaluator.device)
            outputs = self.evaluator.outputs(batch)
            if not _same(checksum(outputs), survey.checksums[index]):
                raise changed(index)
            yield batch, outputs
        if index + 1 != len(survey.checksums):
            raise changed(index + 1)

    @cached_property
    def survey(self) -> Survey:
        """One pass over data and model, after the determinism probe."""
        with isolated():
            return take_survey(self.evaluator, self.stream, self.progress)


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * max(1.0, abs(a), abs(b))
