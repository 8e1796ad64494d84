"""A linear map as a list of PyTorch calls: what is left of J v once all else is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_unflatten


@dataclass(frozen=True)
class Slot:
    """A place where a tensor that depends on v stands."""

    index: int


@dataclass
class Call:
    """One call of a PyTorch operator.

    Attributes:
        function: The operator.
        leaves: Its arguments, flattened; a `Slot` for each tensor that depends on v.
        spec: How they are put together again, as (args, kwargs).
        outputs: Where its results go, in the order in which it gives them; None for one that is
            no tensor.
        mutates: Whether it changes an argument in place.
        frees: Slots that nothing after it reads.
    """

    function: Callable[..., Any]
    leaves: list[Any]
    spec: TreeSpec
    outputs: tuple[int | None, ...]
    mutates: bool = False
    frees: tuple[int, ...] = ()
    reads: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = tuple(
            (place, leaf.index) for place, leaf in enumerate(self.leaves) if isinstance(leaf, Slot)
        )
        # Most calls have plain arguments only; nothing has to be put together for them.
        children = self.spec.children()
        plain = all(child.is_leaf() for part in children for child in part.children())
        names = children[1].context if plain else ()
        self._split = len(self.leaves) - len(names)
        self._names, self._plain = tuple(names), plain

    def run(self, slots: list[Any]) -> None:
        """Make the call and put its results into their slots."""
        leaves = list(self.leaves)
        for place, index in self.reads:
            leaves[place] = slots[index]
        if self._plain:
            named = dict(zip(self._names, leaves[self._split :], strict=True))
            result = self.function(*leaves[: self._split], **named)
        else:
            args, kwargs = tree_unflatten(leaves, self.spec)
            result = self.function(*args, **kwargs)
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


class Tape:
    """A linear map of some tensors to one, as recorded by a `Recorder`.

    Args:
        calls: In order.
        inputs: The slots of the tensors that it is a map of.
        output: The slot of the result; None if it is 0 whatever the inputs are.
        size: Number of slots.
    """

    def __init__(
        self, calls: Sequence[Call], inputs: Sequence[int], output: int | None, size: int
    ) -> None:
        self.inputs, self.output, self.size = tuple(inputs), output, size
        self.calls = _freed(_needed(calls, output), output)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """The map's result for some tensors; None if it is 0 whatever they are."""
        if self.output is None:
            return None
        slots: list[Any] = [None] * self.size
        for index, tensor in zip(self.inputs, tensors, strict=True):
            slots[index] = tensor
        for call in self.calls:
            call.run(slots)
        found: Tensor = slots[self.output]
        return found


def _needed(calls: Sequence[Call], output: int | None) -> list[Call]:
    """The calls that the output depends on; all of them where some change tensors in place."""
    if any(call.mutates for call in calls):
        return list(calls)
    wanted, kept = {output}, []
    for call in reversed(calls):
        if wanted.intersection(call.outputs):
            wanted.update(index for _, index in call.reads)
            kept.append(call)
    return kept[::-1]


def _freed(calls: list[Call], output: int | None) -> list[Call]:
    """The calls, each told which slots nobody reads after it."""
    seen = {output}
    for call in reversed(calls):
        touched = [index for _, index in call.reads] + [i for i in call.outputs if i is not None]
        call.frees = tuple(dict.fromkeys(index for index in touched if index not in seen))
        seen.update(touched)
    return calls
