"""Data read whole, in order, so that any part can be taken, and a model that codes a part."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightlike.errors import DataError, ModelError
from lightlike.problem.batch import Batch
from lightlike.problem.data import BATCH_SIZE, Stream
from lightlike.problem.evaluation import Evaluator, checked_output
from lightlike.problem.isolation import isolated
from lightlike.problem.likelihoods import Likelihood
from lightlike.problem.parameters import select
from lightlike.problem.survey import Survey, check_data, take_survey
from lightlike.progress import Progress


@dataclass(frozen=True)
class Sequence:
    """N items with labels, in the order in which they are coded.

    Attributes:
        batch: All items as one batch.
        size: Number of items: the first dimension of every input and of the labels.
    """

    batch: Batch
    size: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the items in order."""
        return self.batch.digest()

    def part(self, start: int, stop: int) -> Batch:
        """Items `start` to `stop`, without the latter."""
        return _apply(self.batch, lambda t: t[start:stop])

    def ordered(self, order: Tensor) -> Sequence:
        """The same items in another order."""
        return Sequence(_apply(self.batch, lambda t: t[order.to(t.device)]), self.size)


def read_sequence(data: Any) -> Sequence:
    """Read data of any form whole.

    Raises:
        DataError: if they are not understood or have no labels, or their batches cannot be joined.
        DeterminismError: if they come in another order, or changed, when they are read again.
    """
    stream = Stream(data)
    check_data(stream)
    batches = list(stream)
    if any(batch.targets is None for batch in batches):
        raise DataError(
            "Some of the data have no labels.",
            "A prequential length is that of the labels.",
            "Pass (x, y), or batches with labels.",
        )
    places = [[place for place, _ in batch.leaves()] for batch in batches]
    leaves = [[leaf for _, leaf in batch.leaves()] for batch in batches]
    try:
        joined, size = _joined(places, leaves)
    except (RuntimeError, ValueError, TypeError) as error:
        raise DataError(
            f"The batches cannot be joined to one sequence of items ({error}).",
            "Each block of it is coded by a model trained on all items before.",
            "Pad inputs to one length, give every input a first dimension of items, or pass "
            "(x, y).",
        ) from error
    filled = iter(joined)
    return Sequence(_apply(batches[0], lambda _: next(filled), every=True), size)


def inputs_of(batch: Batch) -> Any:
    """The inputs as the caller gave them: a tensor, a tuple of several, or a dict."""
    if batch.kwargs:
        return batch.kwargs
    return batch.args[0] if len(batch.args) == 1 else batch.args


def code(model: nn.Module, likelihood: Likelihood, batch: Batch) -> Survey:
    """What a model takes for a batch's labels, −log p each, in float64, with all checks.

    Raises:
        ModelError, DataError, DeterminismError: if the model cannot code them.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"The training function returned a {type(model).__name__}, not a torch.nn.Module.",
            "The next block is coded by what it returns.",
            "Return the trained module, in eval mode.",
        )
    coder = _Coder(model)
    with isolated():
        evaluator = Evaluator(coder, likelihood, select(coder, ["anchor"]))
        return take_survey(evaluator, Stream(_Pieces(batch)), Progress.silent())


class _Pieces:
    """A batch with labels, at most 512 items at a time."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Any]:
        assert self.batch.targets is not None
        for start in range(0, len(self.batch.targets), BATCH_SIZE):
            piece = _apply(self.batch, lambda t: t[start : start + BATCH_SIZE])  # noqa: B023
            yield (piece.kwargs or piece.args), piece.targets


class _Coder(nn.Module):
    """A model as it is used and not as it is trained, with no parameters measured but a dummy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        held = next(iter([*model.parameters(), *model.buffers()]), torch.zeros(()))
        zero = torch.zeros((), dtype=torch.float64, device=held.device)
        self.anchor = nn.Parameter(zero)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The model's output."""
        return checked_output(self.model(*args, **kwargs)) + self.anchor


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's global generators; restore them after."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _joined(places: list[list[str]], leaves: list[list[Any]]) -> tuple[list[Any], int]:
    """Leaves of all batches along their first dimension, and its size; a ValueError if none."""
    if any(other != places[0] for other in places):
        raise ValueError("inputs differ between batches")
    joined = [_join(column) for column in zip(*leaves, strict=True)]
    sizes = {len(leaf) if leaf.ndim else -1 for leaf in joined if isinstance(leaf, Tensor)}
    if len(sizes) != 1:
        raise ValueError(f"first dimensions {sorted(sizes)}")
    return joined, sizes.pop()


def _join(column: tuple[Any, ...]) -> Any:
    if isinstance(column[0], Tensor):
        return torch.cat([leaf.detach() for leaf in column])
    if any(leaf != column[0] for leaf in column):
        raise ValueError("a setting differs between batches")
    return column[0]


def _apply(batch: Batch, function: Any, *, every: bool = False) -> Batch:
    """A batch with each tensor (each leaf, if asked) replaced, in the order of `Batch.leaves`."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items()}
        if isinstance(value, tuple | list):
            items = [walk(v) for v in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return function(value) if every or isinstance(value, Tensor) else value

    args = tuple(walk(a) for a in batch.args)
    kwargs = {k: walk(v) for k, v in batch.kwargs.items()}
    return Batch(args, kwargs, None if batch.targets is None else function(batch.targets))
