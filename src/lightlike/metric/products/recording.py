"""Record what forward-mode differentiation does with tangents, while it does it.

A pass in forward mode computes h(θ) and J v side by side. Calls none of whose arguments depend on v
are the model's own, or prepare factors of J: their results are kept as they are. The others, in
order, are J as a map of v; each of them is linear in v.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from lightlike.metric.products.tape import Call, Form, Slot, Tape, make_call
from lightlike.metric.products.tidying import tidied

# What they tell of a tensor depends on its form alone.
FORMAL = {"is_same_size", "_has_same_storage_numel", "sym_size", "sym_stride", "sym_numel"}
# Rules written in Python come down to these, which have no batching rule, for equal shapes.
PLAIN = {
    torch.ops.prims.add.default: torch.ops.aten.add.Tensor,
    torch.ops.prims.sub.default: torch.ops.aten.sub.Tensor,
    torch.ops.prims.mul.default: torch.ops.aten.mul.Tensor,
    torch.ops.prims.div.default: torch.ops.aten.div.Tensor,
}

# Number of the memory of a tensor that is no view.
FRESH = -1


class UnrecordableError(RuntimeError):
    """What is done with the tangents cannot be repeated from a list of calls."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, records every call that depends on the inputs.

    Args:
        inputs: The tensors that the tape is to be a map of.
        own: Tensors whose memory is there anyway.
    """

    def __init__(self, inputs: Sequence[Tensor], own: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots: Any = WeakTensorKeyDictionary()
        self._forms: list[Form] = []
        self._calls: list[Call] = []
        self._inputs = [self._place(tensor, None) for tensor in inputs]
        self._fixed = {_storage(t) for t in inputs}
        # By the memory they stand in: where constants are held, and what is no constant any more.
        self._held: dict[int, list[tuple[list[Any], int]]] = {}
        self._changed: dict[int, Tensor] = {}
        self._own = {_storage(t) for t in (*own, *inputs)}
        self._made: dict[int, tuple[Any, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch would import its compiler, for more than a second, to keep it away from here.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make a call, and note it if it depends on the inputs."""
        kwargs = kwargs or {}
        tensors = _tensors(args) + _tensors(kwargs.values())
        depends = any(tensor in self._slots for tensor in tensors)
        written = _written(func, args, kwargs) if func._schema.is_mutable else []
        for tensor in written:
            self._release(_storage(tensor))
        if depends:
            leaves, spec = tree_flatten((args, kwargs))
            noted = self._note(leaves, written)
        elif self._changed and any(_storage(t) in self._changed for t in tensors):
            raise UnrecordableError("a view of a tensor that tangents were written into is read")
        result = func(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        self._weigh(results)
        if depends and not self._formal(func, results):
            changed = tuple(self._slots[tensor] for tensor in written)
            memory = self._memory(tensors)
            outputs = tuple(
                self._place(t, memory.get(_storage(t), FRESH)) if isinstance(t, Tensor) else None
                for t in results
            )
            self._calls.append(Call(PLAIN.get(func, func), noted, spec, outputs, changed))
        return result

    def tape(self, outputs: Sequence[Tensor | None]) -> Tape:
        """What was recorded, as a map of the inputs to some of the tensors made of them."""
        if any(output is not None and output not in self._slots for output in outputs):
            raise UnrecordableError("the result was not made by calls that can be seen")
        found = [None if output is None else self._slots[output] for output in outputs]
        calls = tidied(self._calls, self._inputs, found, self._forms)
        return Tape(calls, self._inputs, found, len(self._forms))

    def held_bytes(self) -> int:
        """Bytes that were made while recording and are alive now."""
        return sum(size for alive, size in self._made.values() if not alive.expired())

    def _place(self, tensor: Tensor, memory: int | None = FRESH) -> int:
        """A new slot for a tensor, in memory that other slots stand in, or in fresh memory."""
        index = len(self._forms)
        self._slots[tensor] = index
        self._forms.append(
            Form(
                index if memory == FRESH else memory,
                tensor.shape,
                tensor.dtype,
                tensor.device,
                tensor.stride(),
            )
        )
        return index

    def _memory(self, tensors: Sequence[Tensor]) -> dict[int, int | None]:
        """What is known of the memory of arguments, which results may be views of."""
        return {
            _storage(t): self._forms[self._slots[t]].memory if t in self._slots else None
            for t in tensors
        }

    def _note(self, leaves: list[Any], written: list[Tensor]) -> list[Any]:
        """Arguments of a call as they go on the tape."""
        for tensor in written:
            if _storage(tensor) in self._fixed:
                raise UnrecordableError("an input is changed in place")
            if tensor not in self._slots:
                self._thaw(tensor)
        noted: list[Any] = []
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                noted.append(leaf)
            elif leaf in self._slots:
                noted.append(Slot(self._slots[leaf]))
            else:
                if _storage(leaf) in self._changed:
                    raise UnrecordableError("a view of a tensor with tangents in it is read")
                # The same memory without a graph.
                noted.append(leaf.detach())
        for place, leaf in enumerate(noted):
            if isinstance(leaf, Tensor):
                self._held.setdefault(_storage(leaf), []).append((noted, place))
        return noted

    def _thaw(self, tensor: Tensor) -> None:
        """A constant that tangents are about to be written into: copy it anew in every run."""
        start = tensor.detach().clone()
        self._changed[_storage(tensor)] = tensor
        self._calls.append(make_call(torch.ops.aten.clone.default, self._place(tensor), start))

    def _release(self, storage: int) -> None:
        """Memory that is about to change: what was noted of it goes on with a copy."""
        for leaves, place in self._held.pop(storage, []):
            leaves[place] = leaves[place].clone()

    def _formal(self, func: Any, results: Sequence[Any]) -> bool:
        if any(isinstance(r, Tensor) for r in results):
            return False
        if func._schema.name.partition("::")[2] not in FORMAL:
            raise UnrecordableError(f"{func} turns tangents into a number")
        return True

    def _weigh(self, results: Sequence[Any]) -> None:
        for tensor in results:
            if isinstance(tensor, Tensor) and not tensor._is_zerotensor():
                storage = tensor.untyped_storage()
                # Views are of memory that was seen when it was made.
                if storage._cdata not in self._own and storage._cdata not in self._made:
                    alive: Any = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                    self._made[storage._cdata] = alive, storage.nbytes()


def held_bytes(tensors: Sequence[Tensor], own: Sequence[Tensor]) -> int:
    """Bytes of the memory that some tensors stand in, but for that of others."""
    memory = {_storage(t): t.untyped_storage().nbytes() for t in tensors if not t._is_zerotensor()}
    return sum(size for storage, size in memory.items() if storage not in set(map(_storage, own)))


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors among arguments and in their lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _storage(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        raise UnrecordableError("a sparse tensor is made")
    return -1 if tensor._is_zerotensor() else tensor.untyped_storage()._cdata


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that a call changes in place."""
    found = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        found += [
            v
            for v in (value if isinstance(value, (list, tuple)) else [value])
            if isinstance(v, Tensor)
        ]
    return found
