"""Data in any form that PyTorch people keep them in, as one re-iterable stream of batches.

Accepted: a tensor, `(x,)`, `(x, y)`, a dict of tensors with or without "labels", a Dataset, a
DataLoader, or any iterable of batches that can be iterated again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightlike.errors import DataError
from lightlike.problem.batch import Batch, as_batch, map_tensors, raw_bytes

BATCH_SIZE = 512


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
            args = tuple(map_tensors(lambda t: t[cut], a) for a in self.batch.args)  # noqa: B023
            kwargs = {k: map_tensors(lambda t: t[cut], v) for k, v in self.batch.kwargs.items()}  # noqa: B023
            inputs: Any = kwargs if kwargs else args
            targets = self.batch.targets
            yield (inputs,) if targets is None else (inputs, targets[cut])
