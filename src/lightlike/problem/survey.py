"""The first passes: is everything the same twice, and what is there to measure?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lightlike.errors import DataError, DeterminismError, ModelError
from lightlike.problem.batch import Batch
from lightlike.problem.data import Stream
from lightlike.problem.evaluation import Evaluator, Outputs, checksum
from lightlike.problem.precision import rounding_unit
from lightlike.progress import Progress


@dataclass(frozen=True)
class Survey:
    """What one pass over the data finds.

    Attributes:
        observations: N.
        rank: Rows of A an observation, rank Λ.
        width: m, entries of one observation's output.
        samples: Items of each batch.
        counts: Observations that count in each batch.
        positions: Observations of each item (largest over batches).
        nll: −log p of each observation (N,), or None without labels.
        label_entropy: Nats per observation, or None.
        checksums: One number a batch, to recognise the same outputs in later passes.
        digests: SHA-256 of each batch's inputs and labels, to recognise the same data.
    """

    observations: int
    rank: int
    width: int
    samples: tuple[int, ...]
    counts: tuple[int, ...]
    positions: int
    nll: Tensor | None
    label_entropy: float | None
    checksums: tuple[float, ...]
    digests: tuple[str, ...]

    @property
    def rows(self) -> int:
        """K, the number of rows of A."""
        return self.observations * self.rank


def take_survey(evaluator: Evaluator, stream: Stream, progress: Progress) -> Survey:
    """Probe for determinism, then count and check everything in one pass without gradients."""
    check_modes(evaluator.model)
    digests = check_data(stream)
    check_model(evaluator, next(iter(stream)).to(evaluator.device, evaluator.dtype))
    return count(evaluator, progress.track(stream, "Reading the data"), digests)


def check_modes(model: nn.Module) -> None:
    """Raise a DeterminismError for active dropout or normalisation by the batch's statistics."""
    for name, module in model.named_modules():
        which = f"{type(module).__name__} {name or '(the model itself)'!r}"
        active = isinstance(module, _DropoutNd) and module.training and module.p > 0
        if active or (isinstance(module, _BatchNorm) and module.training):
            raise DeterminismError(
                f"{which} is in training mode.",
                "Dropout draws a new network and batch normalisation mixes observations at each "
                "pass, so no single metric exists.",
                "Call model.eval() first.",
            )
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise DeterminismError(
                f"{which} has no running statistics (track_running_stats=False).",
                "It mixes the observations of a batch in eval mode too, so every number would "
                "depend on how the data are cut into batches.",
                "Use running statistics, or a normalisation of single observations (LayerNorm, "
                "GroupNorm).",
            )


def check_data(stream: Stream) -> list[str]:
    """Digests of the batches; a DeterminismError if two passes over the data differ.

    Random states are not rewound between the passes, so a shuffling loader shows itself.
    """
    again = [batch.digest() for batch in stream]
    if [batch.digest() for batch in stream] != again:
        raise DeterminismError(
            "Two passes over the data gave different batches.",
            "Every number here is computed from several passes that must see the same "
            "observations in the same order.",
            "Use shuffle=False and no random augmentation.",
        )
    return again


def check_batch(batch: Batch, index: int, digests: Sequence[str]) -> None:
    """Raise a DeterminismError if a batch is not what it was in the first pass."""
    if index >= len(digests) or batch.digest() != digests[index]:
        raise changed(index)


def changed(index: int) -> DeterminismError:
    """The error for a batch, or the model's output on it, that is not what it was."""
    return DeterminismError(
        f"Batch {index} of the data, or the model's output on it, changed between passes.",
        "The metric would mix different observations.",
        "Turn off shuffling and random augmentation, and put the model in eval mode.",
    )


def check_model(evaluator: Evaluator, batch: Batch) -> None:
    """Raise an error if the model is random, or detached from the selected parameters."""
    first, second = evaluator.raw(batch), evaluator.raw(batch)
    if first.shape != second.shape:
        raise DeterminismError(
            f"The model gave two different outputs for one batch (of shape {tuple(first.shape)} "
            f"and {tuple(second.shape)}).",
            "A random forward pass has no single metric.",
            "Make the output a function of the input alone.",
        )
    scale = float(first.detach().abs().max())
    difference = float((first - second).detach().abs().max())
    allowed = max(1e-9, 100 * rounding_unit(evaluator.dtype))
    if difference > allowed * max(scale, 1e-300):
        raise DeterminismError(
            f"The model gave two different outputs for one batch (they differ by {difference:.2g}, "
            f"largest output {scale:.2g}).",
            "A random forward pass has no single metric.",
            "Call model.eval(), and switch off functional dropout and noise.",
        )
    if not first.requires_grad:
        raise ModelError(
            "The model's output does not depend on any selected parameter.",
            "Its gradient is cut by detach, no_grad or inference_mode, or the selected parameters "
            "are not used.",
            "Let gradients flow from the output, or select parameters that are used.",
        )


def count(evaluator: Evaluator, batches: Iterator[Batch], digests: list[str]) -> Survey:
    """Evaluate all batches once without gradients."""
    samples: list[int] = []
    counts: list[int] = []
    checksums: list[float] = []
    losses: list[Tensor] = []
    labels: list[Tensor] = []
    width = rank = positions = 0
    unlabelled = False
    for index, batch in enumerate(batches):
        check_batch(batch, index, digests)
        with torch.no_grad():
            outputs = evaluator.outputs(batch.to(evaluator.device, evaluator.dtype))
            width, rank = _agree(evaluator, outputs, width, rank)
            loss = _losses(evaluator, outputs)
        if loss is None or outputs.targets is None:
            unlabelled = True
        else:
            losses.append(loss)
            labels.append(outputs.targets)
        samples.append(outputs.samples)
        counts.append(outputs.count)
        positions = max(positions, outputs.positions)
        checksums.append(checksum(outputs))
    if unlabelled and losses:
        raise DataError(
            "Some batches have labels and some have none.",
            "The fit would be that of a part of the data only.",
            "Give labels for all batches or for none.",
        )
    if not sum(counts):
        raise DataError(
            "No observation counts: every label is the ignored one.",
            "With N = 0 there is nothing to measure.",
            "Check ignore_index and the labels.",
        )
    entropy = evaluator.likelihood.label_entropy(torch.cat(labels)) if labels else None
    nll = torch.cat(losses) if losses else None
    return Survey(
        sum(counts), rank, width, tuple(samples), tuple(counts), positions, nll, entropy,
        tuple(checksums), tuple(digests),
    )  # fmt: skip


def _agree(evaluator: Evaluator, outputs: Outputs, width: int, rank: int) -> tuple[int, int]:
    """The number of outputs and of root columns, which must not change between batches."""
    m = outputs.h.shape[-1]
    if width and m != width:
        raise ModelError(
            f"The model gives {width} outputs for one batch and {m} for another.",
            "All observations must come from one family of distributions.",
            "Make the last dimension of the output the same for all batches.",
        )
    rank = rank or evaluator.likelihood.columns(m) or 0
    if not rank:
        root = evaluator.likelihood.root(outputs.h[:1])
        if root.ndim != 3 or root.shape[:2] != (1, m):
            raise ModelError(
                f"{type(evaluator.likelihood).__name__}.root gives shape {tuple(root.shape)} for "
                f"one observation with {m} outputs.",
                f"A root is (n, m, r): here (1, {m}, r).",
                "Return one (m, r) factor for each observation.",
            )
        rank = root.shape[-1]
    return m, rank


def _losses(evaluator: Evaluator, outputs: Outputs) -> Tensor | None:
    if outputs.targets is None:
        return None
    nll = evaluator.likelihood.nll(outputs.h, outputs.targets)
    if nll.shape != outputs.h.shape[:1]:
        raise ModelError(
            f"{type(evaluator.likelihood).__name__}.nll gives shape {tuple(nll.shape)} for "
            f"{len(outputs.h)} observations.",
            "One number an observation is needed.",
            "Sum over the entries of an observation, not over observations.",
        )
    alone = evaluator.likelihood.nll(outputs.h[:1], outputs.targets[:1])
    if not torch.allclose(alone, nll[:1], rtol=1e-6, atol=1e-9, equal_nan=True):
        raise ModelError(
            f"{type(evaluator.likelihood).__name__}.nll gives {float(alone[0]):.6g} for the first "
            f"observation alone and {float(nll[0]):.6g} for it in its batch.",
            "It mixes observations, as labels (n,) against outputs (n, 1) do by broadcasting.",
            "Let it work on each observation on its own.",
        )
    nll = nll if outputs.observed is None else nll[outputs.observed]
    infinite = int((~torch.isfinite(nll)).sum())
    if infinite:
        raise ModelError(
            f"The log-likelihood of {infinite} observations of a batch is infinite or NaN.",
            "The fit, and with it the description length, would be so too.",
            f"Check the scale of the model's outputs and of the labels: the largest output is "
            f"{float(outputs.h.abs().max()):.3g}.",
        )
    return nll
