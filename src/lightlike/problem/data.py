"""Data in any form that PyTorch people keep them in, as one re-iterable stream of batches.

Accepted: a tensor, `(x,)`, `(x, y)`, a dict of tensors with or without "labels", a Dataset, a
DataLoader, or any iterable that can be iterated again. A batch is a tensor, a tuple or list of one
(inputs) or two (inputs, labels), or a dict; inputs may themselves be a tuple (positional
arguments) or a dict (keyword arguments).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightlike.errors import DataError
from lightlike.problem.precision import working

BATCH_SIZE = 512
LABEL_KEYS = ("labels", "label")


@dataclass(frozen=True)
class Batch:
    """Inputs of the model, as it is called, and labels if there are any.

    Attributes:
        args: Positional inputs.
        kwargs: Inputs by name.
        targets: Labels, or None.
        start: Place of the first item in the data, counted in items of the model's output.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    targets: Tensor | None
    start: int = 0

    def tensors(self) -> Iterator[Tensor]:
        """All tensors of the inputs."""
        for value in (*self.args, *self.kwargs.values()):
            yield from _tensors(value)

    def digest(self) -> str:
        """SHA-256 of all inputs and labels."""
        total = hashlib.sha256()
        for place, value in self.leaves():
            total.update(place.encode())
            if isinstance(value, Tensor):
                total.update(f"{value.dtype}{tuple(value.shape)}".encode())
                total.update(raw_bytes(value))
            else:
                total.update(repr(value).encode())
        return total.hexdigest()

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Every input and the labels with a name for its place in the call."""
        for index, value in enumerate(self.args):
            yield from _leaves(f"input {index}", value)
        for name, value in self.kwargs.items():
            yield from _leaves(f"input {name}", value)
        if self.targets is not None:
            yield "labels", self.targets

    def to(self, device: torch.device, dtype: torch.dtype = torch.float64) -> Batch:
        """The batch on a device, with floating-point inputs in a dtype."""

        def convert(tensor: Tensor) -> Tensor:
            return _ordinary(tensor).to(device, working(tensor.dtype, dtype))

        args = tuple(_map(convert, a) for a in self.args)
        kwargs = {k: _map(convert, v) for k, v in self.kwargs.items()}
        targets = None if self.targets is None else _ordinary(self.targets).to(device)
        return Batch(args, kwargs, targets, self.start)

    def copy(self) -> Batch:
        """The batch with inputs of its own, which a model may change in place."""
        args = tuple(_map(Tensor.clone, a) for a in self.args)
        kwargs = {k: _map(Tensor.clone, v) for k, v in self.kwargs.items()}
        return Batch(args, kwargs, self.targets, self.start)

    def sample(self, index: int, size: int) -> Batch:
        """Item `index` of the batch as a batch of one; tensors without `size` rows are shared."""

        def pick(tensor: Tensor) -> Tensor:
            return tensor[index : index + 1] if tensor.ndim and len(tensor) == size else tensor

        args = tuple(_map(pick, a) for a in self.args)
        kwargs = {k: _map(pick, v) for k, v in self.kwargs.items()}
        targets = None if self.targets is None else pick(self.targets)
        return Batch(args, kwargs, targets, self.start + index)

    def prefix(self, length: int, positions: int, size: int) -> Batch | None:
        """The first positions of every item, without labels; None if no tensor has positions.

        Args:
            length: How many to keep.
            positions: How many there are, in the second dimension of some inputs.
            size: Number of items.
        """
        cut = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal cut
            if tensor.shape[:2] != (size, positions):
                return tensor
            cut += 1
            return tensor[:, :length]

        args = tuple(_map(keep, a) for a in self.args)
        kwargs = {k: _map(keep, v) for k, v in self.kwargs.items()}
        return Batch(args, kwargs, None, self.start) if cut else None


class Stream:
    """A re-iterable stream of batches made from whatever the caller calls data.

    Raises:
        DataError: if the form is not understood, or the stream can be read only once.
    """

    def __init__(self, data: Any, batch_size: int = BATCH_SIZE) -> None:
        self._source = _source(data, batch_size)

    def __iter__(self) -> Iterator[Batch]:
        empty = True
        for item in self._source:
            empty = False
            yield as_batch(item)
        if empty:
            raise DataError(
                "The data hold no batch.",
                "With no observation there is no metric to compute.",
                "Pass at least one observation; an iterable must start afresh at each iter().",
            )

    def fingerprint(self) -> str:
        """SHA-256 over the content and order of all inputs and labels, however they are batched.

        Each argument of the model is hashed on its own along the data: its name, the type and
        shape of one item where that changes, and the entries.
        """
        digests: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        for batch in self:
            for place, value in batch.leaves():
                mine = digests.setdefault(place, hashlib.sha256(place.encode()))
                shape = tuple(value.shape[1:]) if isinstance(value, Tensor) else None
                kind = f"{value.dtype}{shape}" if isinstance(value, Tensor) else repr(value)
                if kinds.get(place) != kind:
                    mine.update(kind.encode())
                    kinds[place] = kind
                if isinstance(value, Tensor):
                    mine.update(raw_bytes(value))
        parts = [f"{place}:{part.hexdigest()}" for place, part in sorted(digests.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over named tensors: names, types, shapes and entries."""
    total = hashlib.sha256()
    for name, tensor in tensors.items():
        total.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(raw_bytes(tensor))
    return total.hexdigest()


def raw_bytes(tensor: Tensor) -> Any:
    """The entries of a tensor as they lie in memory, row-major."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if tensor.numel() else b""


def as_batch(item: Any) -> Batch:
    """Read one batch.

    Raises:
        DataError: if it is not a tensor, a tuple or list of one or two, or a dict.
    """
    if isinstance(item, Tensor | np.ndarray):
        return Batch((_tensor(item),), {}, None)
    if isinstance(item, Mapping):
        label = next((key for key in LABEL_KEYS if key in item), None)
        inputs = {k: _map_leaves(v) for k, v in item.items() if k != label}
        return Batch((), inputs, None if label is None else _labels(item[label]))
    if isinstance(item, Sequence) and not isinstance(item, str) and 1 <= len(item) <= 2:
        inputs = item[0]
        targets = None if len(item) == 1 else _labels(item[1])
        if isinstance(inputs, Mapping):
            return Batch((), {k: _map_leaves(v) for k, v in inputs.items()}, targets)
        if isinstance(inputs, tuple | list):
            return Batch(tuple(_map_leaves(v) for v in inputs), {}, targets)
        return Batch((_tensor(inputs),), {}, targets)
    size = f" of {len(item)} items" if isinstance(item, Sequence) else ""
    raise DataError(
        f"A batch is a {type(item).__name__}{size}.",
        "It is not clear which part is the model's input and which the label.",
        "Yield (inputs,), (inputs, labels) or a dict with 'labels'; several inputs go in a tuple "
        "of their own: ((a, b), labels).",
    )


def _source(data: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(data, DataLoader):
        return data
    if isinstance(data, Dataset | IterableDataset):
        return DataLoader(data, batch_size=batch_size, shuffle=False)
    if isinstance(data, Tensor | np.ndarray):
        return _Slices((data,), batch_size)
    if isinstance(data, Mapping):
        return _Slices(data, batch_size)
    if isinstance(data, tuple | list):
        if isinstance(data, list) and _is_ambiguous(data):
            raise DataError(
                "The data are a list of two tensors of one type and shape.",
                "They could be inputs and labels, or two batches of inputs.",
                "Pass a tuple (x, y), or a list of batches [(x1,), (x2,)].",
            )
        if _is_pair(data):
            return _Slices(tuple(data), batch_size)
        return data
    if isinstance(data, Iterator):
        raise DataError(
            f"The data are a {type(data).__name__}, which can be read only once.",
            "Several passes over the same data are needed.",
            "Pass a list of batches, a Dataset or a DataLoader.",
        )
    if isinstance(data, Iterable) and not isinstance(data, str):
        return data
    raise DataError(
        f"Data of type {type(data).__name__} are not understood.",
        "Nothing can be measured without observations.",
        "Pass (x, y), (x,), a Dataset, a DataLoader or an iterable of batches.",
    )


def _is_pair(data: Sequence[Any]) -> bool:
    """Whether a tuple or list is (x,) or (x, y), not a list of batches."""
    if not 1 <= len(data) <= 2:
        return False
    if isinstance(data, list) and not all(map(_is_array, data)):
        return False
    if len(data) == 2 and not isinstance(data[1], Tensor | np.ndarray | None):
        return False
    first = data[0]
    if isinstance(first, tuple | list):
        # ((a, b), y) is one data set with two inputs; ((x1, y1),) is a tuple of one batch.
        return len(data) == 2
    return isinstance(first, Tensor | np.ndarray | Mapping)


def _is_ambiguous(data: list[Any]) -> bool:
    """Whether a list could be [x, y] as well as two batches of inputs."""
    if len(data) != 2 or not all(map(_is_array, data)):
        return False
    return bool(data[0].dtype == data[1].dtype and data[0].shape[1:] == data[1].shape[1:])


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


class _Slices:
    """Whole tensors cut into batches along their first dimension."""

    def __init__(self, item: Any, batch_size: int) -> None:
        self.batch = as_batch(item)
        lengths = {len(t) if t.ndim else 0 for t in self.batch.tensors()}
        if not lengths:
            raise DataError(
                "The data hold no input tensor.",
                "The number of observations is the first dimension of the inputs.",
                "Pass (x, y), (x,) or a dict with the model's tensor arguments.",
            )
        if self.batch.targets is not None:
            lengths.add(len(self.batch.targets) if self.batch.targets.ndim else 0)
        if len(lengths) != 1:
            raise DataError(
                f"Inputs and labels have different lengths: {sorted(lengths)}.",
                "Each observation needs its own input and label.",
                "Pass tensors of equal first dimension, or an iterable of batches.",
            )
        self.length = lengths.pop()
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self.length, self.batch_size):
            cut = slice(start, min(start + self.batch_size, self.length))
            args = tuple(_map(lambda t: t[cut], a) for a in self.batch.args)  # noqa: B023
            kwargs = {k: _map(lambda t: t[cut], v) for k, v in self.batch.kwargs.items()}  # noqa: B023
            inputs: Any = kwargs if kwargs else args
            targets = self.batch.targets
            yield (inputs,) if targets is None else (inputs, targets[cut])


def _labels(value: Any) -> Tensor | None:
    return None if value is None else _tensor(value)


def _ordinary(tensor: Tensor) -> Tensor:
    """Outside any graph, and not an inference tensor, which no later graph could save."""
    tensor = tensor.detach()
    return tensor.clone() if tensor.is_inference() else tensor


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and min(value.strides, default=0) < 0:
        value = value.copy()
    try:
        with warnings.catch_warnings():
            # Read-only arrays (memory maps) are shared and not copied: nothing is written to them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"A {type(value).__name__} stands where a tensor should.",
            "Only numbers can be inputs or labels.",
            "Convert it to a tensor before, for instance in the collate function.",
        ) from error


def _map_leaves(value: Any) -> Any:
    """Turn arrays inside one model argument into tensors; leave other values as they are."""
    return _map(_tensor, value)


def _map(function: Any, value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return function(value)
    if isinstance(value, Mapping):
        return {k: _map(function, v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        items = [_map(function, v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors(v)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from _tensors(v)


def _leaves(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{place}.{key}", item)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _leaves(f"{place}.{index}", item)
    else:
        yield place, value
