"""Hugging Face models, with their data as the models' own losses read them.

    from lightlike.integrations import huggingface
    model, batches = huggingface.prepare(model, data)
    m = ll.measure(model, batches, "categorical")

A language model's loss compares logits and labels that stand at different places: the logits of
token t with token t + 1 (GPT-2, Llama), or those of a decoder that reads the labels one place late
(T5, BART). `prepare` puts each label beside its logits. Which way a model reads its labels is not
looked up but found out: its own loss, in float64, must be the mean of −log p over the observations.

Everything else needs no preparation: batches are dicts or `BatchEncoding`s, labels of −100 do not
count, of output objects the `logits` are taken, tied weights count once, and of a model with LoRA
adapters only the adapters are measured because nothing else requires a gradient.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightlike.errors import DataError, ModelError
from lightlike.integrations.widening import widened
from lightlike.problem.batch import Batch
from lightlike.problem.data import Stream
from lightlike.problem.isolation import isolated
from lightlike.problem.survey import check_modes

IGNORED = -100
# Largest relative difference of the model's loss from the mean of −log p. Both are in float64; two
# readings of one set of labels agree to this only by an output that is the same for all tokens.
AGREEMENT = 1e-7


def prepare(model: nn.Module, data: Any, *, batch_size: int = 16) -> tuple[nn.Module, Batches]:
    """A model and its data as `lightlike.measure`, `fisher` and `plan` take them.

    Args:
        model: What `from_pretrained` returns for a task (`AutoModelForCausalLM`,
            `AutoModelForSequenceClassification`, ...) or `peft.get_peft_model` makes of it, in
            eval mode. It is left as it is.
        data: Dicts or `BatchEncoding`s of the model's arguments, one for all or an iterable of
            batches that can be read again, with "labels" as the model's `forward` takes them; or a
            tensor of tokens (n, T). A model of the next token needs no labels: without them, every
            token that the attention mask does not hide is predicted from those before it.
        batch_size: Into how many sequences at a time whole tensors are cut.

    Returns:
        The model, sharing all parameters and their names with the given one, where steps that its
        code casts to float32 are made in float64; and the batches, each label beside its logits.
        Only logits that have a label in their batch are computed, if the model can be asked for
        some (`logits_to_keep`). The mean of −log p over observations equals the model's own loss.

    Raises:
        ModelError: if the model has no logits, or a loss that is no mean of −log p over tokens.
        DataError: if a batch is not a batch of tensors, has columns that the model does not take,
            or lacks labels that are needed.
        DeterminismError: if the model is in training mode.
    """
    if not isinstance(model, nn.Module):
        inner = isinstance(getattr(model, "model", None), nn.Module)
        raise ModelError(
            f"The model is a {type(model).__name__}, not a torch.nn.Module.",
            "A trainer, a pipeline or a tokenizer has no parameters of its own.",
            "Pass its attribute .model." if inner else "Pass what from_pretrained returns.",
        )
    check_modes(model)
    twin = widened(model)
    return twin, Batches(twin, Stream(data, batch_size))


class Batches:
    """The batches of a data set, as often as wanted, each label beside its logits.

    Attributes:
        shift: How many places after its logits a label stands in the data: 1 if logits predict the
            next token, else 0.
    """

    def __init__(self, model: nn.Module, stream: Stream) -> None:
        self._model: Any = model
        self._stream = stream
        self._takes = _arguments(model)
        with isolated(), torch.no_grad():
            # A copy: it is made float64, and some losses write into the model's configuration.
            self._tokens, self._labelled, self.shift = self._read(copy.deepcopy(model).double())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._stream:
            inputs, labels = self._columns(batch)
            if self._tokens:
                if labels is None and not self._labelled:
                    labels = _own_tokens(inputs)
                yield self._aligned(inputs, labels, self.shift)
            else:
                yield {**inputs, "labels": labels}

    def _columns(self, batch: Batch) -> tuple[dict[str, Any], Tensor | None]:
        """Inputs by name, and labels.

        Raises:
            DataError: if a column is unknown, or no batch of tensors.
        """
        inputs = dict(batch.kwargs)
        if len(batch.args) == 1:
            inputs["input_ids"] = batch.args[0]
        elif batch.args:
            raise DataError(
                f"A batch has {len(batch.args)} inputs without names.",
                "It is not clear which arguments of the model they are.",
                "Yield dicts, as tokenizers and collators make them.",
            )
        unknown = sorted(set(inputs) - self._takes)
        if unknown:
            raise DataError(
                f"{type(self._model).__name__} takes no {', '.join(map(repr, unknown))}.",
                "Some models ignore what they do not know, and others fail.",
                "Remove these columns, as transformers.Trainer does, and settings of a tokenizer "
                "or of generate().",
            )
        for name, value in inputs.items():
            if isinstance(value, list):
                raise DataError(
                    f"{name!r} is a list, not a tensor.",
                    "A model takes a batch of sequences of equal length.",
                    'Call the tokenizer with return_tensors="pt" and padding=True, or read a '
                    "dataset of single examples through a DataLoader with a collator.",
                )
        tokens = inputs.get("input_ids")
        if tokens is not None and (tokens.ndim < 2 or tokens.is_floating_point()):
            raise DataError(
                f"'input_ids' has type {tokens.dtype} and shape {tuple(tokens.shape)}.",
                "A batch of sequences has whole numbers and shape (sequences, tokens).",
                "Read a dataset of single examples through a DataLoader with a collator.",
            )
        return inputs, batch.targets

    def _aligned(self, inputs: dict[str, Any], labels: Tensor | None, shift: int) -> dict[str, Any]:
        """One label a token of the outputs, and only the outputs that are wanted."""
        if labels is None:
            return {**inputs, "labels": None}
        if self._decodes(inputs):
            late = self._model.prepare_decoder_input_ids_from_labels(labels)
            inputs = {**inputs, "decoder_input_ids": late}
        if shift:
            labels = torch.nn.functional.pad(labels[:, shift:], (0, shift), value=IGNORED)
        if "logits_to_keep" in self._takes and "logits_to_keep" not in inputs:
            # At least one, or a batch without labels would have no output at all. A list: a tensor
            # could be taken for one that has an entry for each sequence.
            counted = (labels != IGNORED).any(0).nonzero().flatten().tolist() or [0]
            inputs = {**inputs, "logits_to_keep": counted}
            labels = labels[:, counted]
        return {**inputs, "labels": labels}

    def _decodes(self, inputs: dict[str, Any]) -> bool:
        """Whether the model makes a decoder's inputs of the labels."""
        given = {"decoder_input_ids", "decoder_inputs_embeds"} & set(inputs)
        return not given and hasattr(self._model, "prepare_decoder_input_ids_from_labels")

    def _read(self, double: nn.Module) -> tuple[bool, bool, int]:
        """Whether there is a label for each token, whether the data have them, and their shift."""
        for batch in self._stream:
            inputs, labels = self._columns(batch)
            labelled = labels is not None
            if not labelled and self._decodes(inputs):
                raise _unlabelled(type(self._model).__name__)
            logits = _logits(_call(double, {**inputs, "labels": labels}))
            if logits.ndim != 3 or (labels is not None and labels.shape != logits.shape[:2]):
                return False, labelled, 0
            if labels is None:
                labels = _own_tokens(inputs)
            if not bool((labels[:, 1:] != IGNORED).any()):
                continue
            loss = _call(double, {**inputs, "labels": labels}).loss
            means = [self._mean(double, inputs, labels, shift) for shift in (0, 1)]
            shift = _reading(float(loss), means)
            if not labelled and not shift:
                raise _unlabelled(type(self._model).__name__)
            return True, labelled, shift
        raise DataError(
            f"No label of the data counts: all are {IGNORED} or stand before the second token.",
            "With no observation there is nothing to measure.",
            "Check the labels, and that sequences have at least two tokens.",
        )

    def _mean(self, double: nn.Module, inputs: dict[str, Any], labels: Tensor, shift: int) -> float:
        """Mean of −log p over the labels of one batch, as the batches would give them."""
        arranged = self._aligned(inputs, labels, shift)
        wanted = arranged.pop("labels")
        logits = _logits(_call(double, arranged))
        flat = wanted.flatten().to(logits.device)
        return float(nn.functional.cross_entropy(logits.flatten(0, 1), flat))


def _reading(loss: float, means: Sequence[float]) -> int:
    agree = [abs(loss - mean) <= AGREEMENT * max(abs(loss), 1e-3) for mean in means]
    if all(agree):
        raise ModelError(
            "The model gives the same logits for all tokens of the first batch.",
            "Its loss does not show whether logits predict their own token or the next one.",
            "Train the model first, or pass labels beside their logits to lightlike directly.",
        )
    if not any(agree):
        raise ModelError(
            f"The model's own loss is {loss:.9g}; the mean of −log p is {means[0]:.9g} if logits "
            f"predict their own token, {means[1]:.9g} if they predict the next one.",
            "The likelihood would not be the one that the model is trained with: a weighted or "
            "smoothed loss, or one with further terms.",
            "Switch these terms off in the configuration, or pass labels beside their logits to "
            "lightlike directly.",
        )
    return agree.index(True)


def _arguments(model: nn.Module) -> set[str]:
    """Names of the arguments that the model's forward declares.

    Raises:
        ModelError: if labels are not among them.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    parameters = inspect.signature(base.forward).parameters.values()
    names = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if "labels" not in names:
        raise ModelError(
            f"The forward of {type(base).__name__} declares no labels.",
            "It has no head that gives the parameters of a distribution, or it is no model of "
            "transformers.",
            "Load it with AutoModelForCausalLM, AutoModelForSequenceClassification or another "
            "class for a task; pass other modules to lightlike directly.",
        )
    return names - {"labels"}


def _call(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    batch = Batch((), dict(inputs), None).to(next(model.parameters()).device)
    try:
        return model(**batch.kwargs)
    except Exception as error:
        raise ModelError(
            f"The model failed on the first batch: {type(error).__name__}: {error}.",
            "It is evaluated in float64, on its own device, as a user would call it.",
            "Check that it runs on this batch after model.double(). Where a kernel takes no "
            'float64, load the model with attn_implementation="sdpa" or "eager", a mixture of '
            'experts with experts_implementation="eager".',
        ) from error


def _logits(result: Any) -> Tensor:
    logits = getattr(result, "logits", None)
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"The model returns a {type(result).__name__} without logits.",
            "It is not clear which part parametrises the output distribution.",
            "Set return_dict=True in its configuration, or wrap it in a module that returns one "
            "tensor and pass that to lightlike directly.",
        )
    return logits


def _own_tokens(inputs: dict[str, Any]) -> Tensor:
    """The tokens as labels, hidden ones (padding) ignored."""
    tokens, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if not isinstance(tokens, Tensor):
        raise DataError(
            "The data have neither 'labels' nor 'input_ids'.",
            "The tokens to be predicted are not known.",
            "Add 'labels' to the batches.",
        )
    return tokens if mask is None else tokens.masked_fill(mask == 0, IGNORED)


def _unlabelled(name: str) -> DataError:
    return DataError(
        f"The data have no labels, and {name} does not predict the next token.",
        "Every token would count as an observation, padding too.",
        f"Add 'labels', {IGNORED} where a token is not to be predicted.",
    )
