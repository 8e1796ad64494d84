"""One batch of data, in any form that PyTorch people keep one in: inputs as the model is called.

A batch is a tensor, a tuple or list of one (inputs) or two (inputs, labels), or a dict; inputs may
themselves be a tuple (positional arguments) or a dict (keyword arguments).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import DataError
from lightlike.problem.precision import working

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

        args = tuple(map_tensors(convert, a) for a in self.args)
        kwargs = {k: map_tensors(convert, v) for k, v in self.kwargs.items()}
        targets = None if self.targets is None else _ordinary(self.targets).to(device)
        return Batch(args, kwargs, targets, self.start)

    def copy(self) -> Batch:
        """The batch with inputs of its own, which a model may change in place."""
        args = tuple(map_tensors(Tensor.clone, a) for a in self.args)
        kwargs = {k: map_tensors(Tensor.clone, v) for k, v in self.kwargs.items()}
        return Batch(args, kwargs, self.targets, self.start)

    def sample(self, index: int, size: int) -> Batch:
        """Item `index` of the batch as a batch of one; tensors without `size` rows are shared."""

        def pick(tensor: Tensor) -> Tensor:
            return tensor[index : index + 1] if tensor.ndim and len(tensor) == size else tensor

        args = tuple(map_tensors(pick, a) for a in self.args)
        kwargs = {k: map_tensors(pick, v) for k, v in self.kwargs.items()}
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

        args = tuple(map_tensors(keep, a) for a in self.args)
        kwargs = {k: map_tensors(keep, v) for k, v in self.kwargs.items()}
        return Batch(args, kwargs, None, self.start) if cut else None


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
    return map_tensors(_tensor, value)


def map_tensors(function: Any, value: Any) -> Any:
    """One model argument with a function applied to every tensor and array in it."""
    if isinstance(value, Tensor | np.ndarray):
        return function(value)
    if isinstance(value, Mapping):
        return {k: map_tensors(function, v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        items = [map_tensors(function, v) for v in value]
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
