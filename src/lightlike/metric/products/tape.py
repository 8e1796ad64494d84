"""A linear map as a list of PyTorch calls: what is left of J v once all else is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

Operator = Callable[..., Any]


@dataclass(frozen=True)
class Slot:
    """A place where a tensor that depends on v stands."""

    index: int


@dataclass(frozen=True)
class Form:
    """What is known of the tensor in a slot, whatever v is.

    Attributes:
        memory: Number of the memory that it stands in, the same for a tensor and its views; None
            for memory that is not the map's own.
        shape: Its shape.
        dtype: Its type.
        device: Where it is.
        stride: Its strides.
    """

    memory: int | None
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    stride: tuple[int, ...]

    def like(self, other: Form) -> bool:
        """Whether a tensor in the one slot could stand in the other."""
        mine, theirs = ((f.shape, f.dtype, f.device, f.stride) for f in (self, other))
        return mine == theirs


@dataclass
class Call:
    """One call of a PyTorch operator.

    Attributes:
        function: The operator.
        leaves: Its arguments, flattened; a `Slot` for each tensor that depends on v.
        spec: How they are put together again, as (args, kwargs).
        outputs: Where its results go, in the order in which it gives them; None for one that is
            no tensor.
        written: Slots that it changes in place.
        frees: Slots that nothing after it reads.
        reuse: The same operator with its result in the memory of an argument, and which argument
            that is; None where somebody needs that, or there is no such operator.
    """

    function: Operator
    leaves: list[Any]
    spec: TreeSpec
    outputs: tuple[int | None, ...]
    written: tuple[int, ...] = ()
    frees: tuple[int, ...] = ()
    reuse: tuple[Operator, int] | None = None
    reads: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = tuple(
            (place, leaf.index) for place, leaf in enumerate(self.leaves) if isinstance(leaf, Slot)
        )
        # Most calls have plain arguments only; nothing has to be put together for them.
        children = self.spec.children()
        self.plain = all(child.is_leaf() for part in children for child in part.children())
        names = children[1].context if self.plain else ()
        self._split = len(self.leaves) - len(names)
        self._names = tuple(names)

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments, with slots in them."""
        args, kwargs = tree_unflatten(self.leaves, self.spec)
        return tuple(args), kwargs

    def run(self, slots: list[Any], *, reuse: bool = False) -> None:
        """Make the call and put its results into their slots.

        Args:
            slots: All slots.
            reuse: Whether results may take the memory of arguments that nobody needs.
        """
        leaves = list(self.leaves)
        for place, index in self.reads:
            leaves[place] = slots[index]
        if not self.plain:
            args, kwargs = tree_unflatten(leaves, self.spec)
            result = self.function(*args, **kwargs)
        else:
            named = dict(zip(self._names, leaves[self._split :], strict=True))
            if reuse and self.reuse is not None:
                function, place = self.reuse
                result = function(leaves[place], *leaves[: self._split], **named)
            else:
                result = self.function(*leaves[: self._split], **named)
        if len(self.outputs) == 1 and isinstance(result, Tensor):
            (target,) = self.outputs
            if target is not None:
                slots[target] = result
        else:
            for target, value in zip(self.outputs, result, strict=True):
                if target is not None:
                    slots[target] = value
        for index in self.frees:
            slots[index] = None


def make_call(function: Operator, output: int, *args: Any, **kwargs: Any) -> Call:
    """A call with one result."""
    leaves, spec = tree_flatten((args, kwargs))
    return Call(function, leaves, spec, (output,))


class Tape:
    """A linear map of some tensors to others, as recorded by a `Recorder`.

    Args:
        calls: In order, each told what it frees.
        inputs: The slots of the tensors that it is a map of.
        outputs: The slots of the results; None for one that is 0 whatever the inputs are.
        size: Number of slots.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        inputs: Sequence[int],
        outputs: Sequence[int | None],
        size: int,
    ) -> None:
        self.calls, self.size = list(calls), size
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    def __call__(self, tensors: Sequence[Tensor], *, reuse: bool = False) -> list[Tensor | None]:
        """The map's results for some tensors; None for one that is 0 whatever they are.

        Args:
            tensors: The inputs, which are left as they are.
            reuse: Whether results may take the memory of intermediate ones; not under `vmap`,
                whose rules for this are fewer.
        """
        slots: list[Any] = [None] * self.size
        for index, tensor in zip(self.inputs, tensors, strict=True):
            slots[index] = tensor
        for call in self.calls:
            call.run(slots, reuse=reuse)
        return [None if index is None else slots[index] for index in self.outputs]

    def cast(self, dtype: torch.dtype, made: dict[int, Tensor]) -> None:
        """Take float64 tensors that it holds, and those that it makes, in another type.

        Args:
            dtype: The other type.
            made: Memory that was rounded already, by its number; what is new is added.
        """
        for call in self.calls:
            for place, leaf in enumerate(call.leaves):
                if leaf is torch.float64:
                    call.leaves[place] = dtype
                elif isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                    memory = leaf.untyped_storage()
                    if memory._cdata not in made:
                        whole = leaf.new_empty(0).set_(memory)
                        made[memory._cdata] = whole.to(dtype)
                    call.leaves[place] = made[memory._cdata].as_strided(
                        leaf.shape, leaf.stride(), leaf.storage_offset()
                    )

    def constants(self) -> list[Tensor]:
        """All tensors that it holds."""
        return [leaf for call in self.calls for leaf in call.leaves if isinstance(leaf, Tensor)]
