"""A model evaluated at a fixed point θ, in float64 or float32, without touching the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightlike.errors import ModelError
from lightlike.problem.batch import Batch
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.parameters import Selection
from lightlike.problem.precision import name_of, working


@dataclass(frozen=True)
class Outputs:
    """Outputs of one batch, flattened to observations, in float64.

    Attributes:
        h: (samples · positions, m), observation-major, part of the autograd graph.
        samples: Items of the batch (first dimension of the model's output).
        positions: Observations of each item (1, or tokens, pixels, ...).
        observed: Mask (samples · positions,) of observations that count; None if all do.
        targets: Flattened labels, or None.
        start: Place of the first item in the data.
    """

    h: Tensor
    samples: int
    positions: int
    observed: Tensor | None
    targets: Tensor | None
    start: int = 0

    @property
    def count(self) -> int:
        """Number of observations that count."""
        return len(self.h) if self.observed is None else int(self.observed.sum())


class Evaluator:
    """The model at a fixed point θ: parameters and buffers copied when it is made.

    Args:
        model: The module.
        likelihood: What its outputs parametrise.
        selection: The measured parameters.
        dtype: Of the copies, and of the forward and backward passes.

    Attributes:
        values: The copies of parameters and buffers, by canonical name.
        slots: Each place of a module that holds one, and the canonical name that this goes by.
    """

    def __init__(
        self,
        model: nn.Module,
        likelihood: Likelihood,
        selection: Selection,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.model, self.likelihood, self.selection = model, likelihood, selection
        self.dtype = dtype
        with torch.inference_mode(False):
            self.values = _snapshot(model, dtype)
            for entry in selection.entries:
                self.values[entry.name].requires_grad_(True)
        # They keep a second list of their weights, which a functional call leaves changed.
        self._recurrent = [m for m in model.modules() if isinstance(m, nn.RNNBase)]
        self.slots = _slots(model)
        self.device = self.values[selection.entries[0].name].device

    def at(self, values: Mapping[str, Tensor]) -> Evaluator:
        """The same model with some parameters or buffers replaced, by canonical name."""
        clone = copy.copy(self)
        with torch.inference_mode(False):
            clone.values = dict(self.values)
            for name, value in values.items():
                mine = self.values[name]
                placed = value.detach().to(mine.device, mine.dtype, copy=True).view(mine.shape)
                clone.values[name] = placed.requires_grad_(mine.requires_grad)
        return clone

    def cast(self, dtype: torch.dtype) -> Evaluator:
        """The same model at the same point, rounded to a dtype and evaluated in it."""
        clone = copy.copy(self)
        clone.dtype = dtype
        with torch.inference_mode(False):
            clone.values = {
                name: value.detach()
                .to(working(value.dtype, dtype), copy=True)
                .requires_grad_(value.requires_grad)
                for name, value in self.values.items()
            }
        return clone

    def under(self, likelihood: Likelihood) -> Evaluator:
        """The same model at the same point, its outputs those of another likelihood."""
        clone = copy.copy(self)
        clone.likelihood = likelihood
        return clone

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The copies of the selected parameters, by canonical name."""
        return {e.name: self.values[e.name] for e in self.selection.entries}

    def raw(self, batch: Batch, values: dict[str, Tensor] | None = None) -> Tensor:
        """The model's output tensor as float64, with gradients to the selected parameters.

        Args:
            batch: Inputs.
            values: Parameters and buffers to use instead of those of this point.

        Raises:
            ModelError: if the model fails, or returns anything but one finite tensor.
        """
        return checked_output(self.forward(batch, values))

    def forward(self, batch: Batch, values: dict[str, Tensor] | None = None) -> Any:
        """Whatever the model returns for a batch, unchecked; arguments as of `raw`.

        Raises:
            ModelError: if the model fails.
        """
        own = batch.copy()
        kept = [(m, m._flat_weights, m._flat_weight_refs) for m in self._recurrent]
        try:
            given = values or self.values
            placed = {slot: given[name] for slot, name in self.slots.items()}
            return functional_call(self.model, placed, own.args, own.kwargs, tie_weights=False)
        except Exception as error:
            kind = name_of(self.dtype)
            cast = "double" if self.dtype == torch.float64 else "float"
            raise ModelError(
                f"The model failed on a batch: {type(error).__name__}: {error}.",
                f"It is evaluated in {kind}, on its own device, in its present mode.",
                f"Check that it runs on this batch after model.{cast}(); tensors that it "
                "keeps outside parameters and buffers must be made in the dtype of its input.",
            ) from error
        finally:
            for module, weights, references in kept:
                module._flat_weights, module._flat_weight_refs = weights, references

    def outputs(self, batch: Batch) -> Outputs:
        """Evaluate a batch and flatten outputs and labels to observations."""
        raw = self.raw(batch)
        likelihood, dim = self.likelihood, self.likelihood.output_dim
        if raw.ndim > 1 and not -raw.ndim <= dim < raw.ndim:
            raise ModelError(
                f"The model's output of shape {tuple(raw.shape)} has no dimension {dim}.",
                "That is where the likelihood looks for the parameters of one observation.",
                "Leave `dim` at its default, −1, if they are in the last dimension.",
            )
        h = raw.unsqueeze(-1) if raw.ndim == 1 else raw.movedim(dim, -1)
        width = h.shape[-1]
        likelihood.check_outputs(width)
        targets, observed = batch.targets, None
        if targets is not None:
            targets = likelihood.arrange(targets, h.shape[:-1], width)
            observed = likelihood.observed(targets)
        positions = h.shape[1:-1].numel()
        flat = h.reshape(-1, width)
        return Outputs(flat, h.shape[0], positions, observed, targets, batch.start)


def output_of(result: Any) -> Any:
    """What a model returned, or the `logits` in it."""
    logits = result.get("logits") if isinstance(result, dict) else getattr(result, "logits", None)
    return logits if isinstance(logits, Tensor) else result


def checked_output(result: Any) -> Tensor:
    """The one finite floating-point tensor that a model returned, in float64."""
    output = output_of(result)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"The model returns a {type(output).__name__}, not a tensor.",
            "It is not clear which part parametrises the output distribution.",
            "Wrap the model in a module whose forward returns that one tensor (an object with "
            "a `logits` tensor works as it is).",
        )
    if not output.is_floating_point() or output.ndim == 0 or output.numel() == 0:
        raise ModelError(
            f"The model returns a {output.dtype} tensor of shape {tuple(output.shape)}.",
            "An output distribution needs real parameters for at least one observation.",
            "Return a floating-point tensor whose first dimension is the batch.",
        )
    finite = torch.isfinite(output)
    if not bool(finite.all()):
        raise ModelError(
            f"{int((~finite).sum())} of {output.numel()} model outputs are NaN or infinite.",
            "The metric at this point is undefined.",
            "Check inputs and weights; masked classes need a large negative logit, not −inf.",
        )
    return output.double()


def checksum(outputs: Outputs) -> float:
    """A number that changes when outputs or their order change."""
    flat = outputs.h.detach().reshape(-1)
    weights = torch.linspace(1.0, 2.0, flat.numel(), dtype=flat.dtype, device=flat.device)
    return float(flat @ weights) + outputs.count


def _snapshot(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, floating-point ones in a dtype, gradients off."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: value.detach().to(working(value.dtype, dtype), copy=True) for name, value in named
    }


def _slots(model: nn.Module) -> dict[str, str]:
    """Each place of a module that holds a parameter or buffer, and the name that this goes by.

    A module that stands in the model twice has its places once: `functional_call` would find its
    own values in them the second time, and put these back at the end instead of the model's.
    """
    names: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        names.setdefault(id(tensor), name)
    return {
        f"{prefix}.{name}" if prefix else name: names[id(tensor)]
        for prefix, module in model.named_modules()
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]
        if tensor is not None
    }
