"""Fewer calls for the same linear map, and fewer of them into fresh memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightlike.metric.products.tape import Call, Form, Operator, Slot, make_call

aten: Any = torch.ops.aten

# A product, and the one that adds it to something.
ADDED = {aten.mm.default: aten.addmm.default, aten.bmm.default: aten.baddbmm.default}


def _into(operator: Operator) -> Operator:
    """An operator told where its result goes, as a function of that place and its arguments."""
    return lambda place, *args, **kwargs: operator(*args, **kwargs, grad_input=place)


def _written(operator: Operator) -> Operator:
    """The same for operators that call this place by another name."""
    return lambda place, *args, **kwargs: operator(*args, **kwargs, out=place)


# Entry by entry, so that the result may go where an argument was.
EACH = {
    aten.add.Tensor: _written(aten.add.out),
    aten.sub.Tensor: _written(aten.sub.out),
    aten.mul.Tensor: _written(aten.mul.out),
    aten.div.Tensor: _written(aten.div.out),
    aten.addcmul.default: _written(aten.addcmul.out),
    aten.threshold_backward.default: _into(aten.threshold_backward.grad_input),
    aten.gelu_backward.default: _into(aten.gelu_backward.grad_input),
    aten.tanh_backward.default: _into(aten.tanh_backward.grad_input),
    aten.sigmoid_backward.default: _into(aten.sigmoid_backward.grad_input),
    aten.silu_backward.default: _into(aten.silu_backward.grad_input),
    aten.leaky_relu_backward.default: _into(aten.leaky_relu_backward.grad_input),
}
# Products may go where what they are added to was, and nowhere else.
FIRST = {
    aten.addmm.default: _written(aten.addmm.out),
    aten.baddbmm.default: _written(aten.baddbmm.out),
}


def tidied(
    calls: Sequence[Call],
    inputs: Sequence[int],
    outputs: Sequence[int | None],
    forms: Sequence[Form],
) -> list[Call]:
    """The calls that the outputs depend on, merged where possible.

    Sums with zeros are left out, products that are only added to something are added at once, and
    results that are made entry by entry may take the memory of an argument.

    Args:
        calls: As recorded.
        inputs: Slots that are given.
        outputs: Slots that are asked for.
        forms: Of every slot.
    """
    found = _needed(calls, outputs, forms)
    forms = list(forms)
    found = _without_zeros(found, forms)
    found = _needed(_merged(found, outputs, forms), outputs, forms)
    _free(found, outputs)
    _reuse(found, inputs, outputs, forms)
    return found


def _needed(
    calls: Sequence[Call], outputs: Sequence[int | None], forms: Sequence[Form]
) -> list[Call]:
    """The calls that the outputs depend on, through memory that is changed in place too."""
    wanted = {index for index in outputs if index is not None}
    memory = {forms[index].memory for index in wanted} - {None}
    kept = []
    for call in reversed(calls):
        writes = any(forms[index].memory in memory for index in call.written)
        if writes or wanted.intersection(call.outputs):
            reads = {index for _, index in call.reads}
            wanted |= reads
            memory |= {forms[index].memory for index in reads} - {None}
            kept.append(call)
    return kept[::-1]


def _without_zeros(calls: Sequence[Call], forms: list[Form]) -> list[Call]:
    """Each sum with a constant 0 as a view of the other term."""
    readers: dict[int, set[Operator]] = {}
    for call in calls:
        for _, index in call.reads:
            readers.setdefault(index, set()).add(call.function)
    return [_without_zero(call, forms, readers) for call in calls]


def _without_zero(call: Call, forms: list[Form], readers: dict[int, set[Operator]]) -> Call:
    if call.function is not aten.add.Tensor or len(call.leaves) != 2 or len(call.reads) != 1:
        return call
    (target,), ((place, index),) = call.outputs, call.reads
    constant = call.leaves[1 - place]
    if target is None or not isinstance(constant, Tensor) or bool(constant.count_nonzero()):
        return call
    given, result = forms[index], forms[target]
    same = (given.shape, given.stride) == (result.shape, result.stride)
    # Sums alone take a term in any shape that fits.
    if given.dtype != result.dtype or not (same or readers.get(target) == {aten.add.Tensor}):
        return call
    stride = result.stride if same else ()
    forms[target] = replace(result, memory=given.memory, stride=stride)
    return make_call(aten.expand.default, target, Slot(index), list(result.shape))


def _merged(
    calls: Sequence[Call], outputs: Sequence[int | None], forms: Sequence[Form]
) -> list[Call]:
    """Each product of which nothing but one sum is made added there at once."""
    uses = Counter(index for call in calls for _, index in call.reads)
    uses.update(index for index in outputs if index is not None)
    # What a product reads might be changed between its place and that of the sum.
    changed = {forms[index].memory for call in calls for index in call.written}
    products: dict[int, Call] = {}
    for call in calls:
        target = call.outputs[0] if call.outputs else None
        fixed = all(forms[index].memory not in changed for _, index in call.reads)
        if call.function in ADDED and target is not None and uses[target] == 1 and fixed:
            products[target] = call
    found = []
    for call in calls:
        product = _summand(call, products, forms)
        if product is None:
            found.append(call)
            continue
        (target,), (a, b) = call.outputs, product.leaves
        (other,) = [t for t in call.leaves if t != Slot(product.outputs[0] or 0)]
        assert target is not None
        found.append(make_call(ADDED[product.function], target, other, a, b))
    return found


def _summand(call: Call, products: dict[int, Call], forms: Sequence[Form]) -> Call | None:
    """The product that a sum adds to something else, if there is one."""
    if call.function is not aten.add.Tensor or len(call.leaves) != 2:
        return None
    a, b = call.leaves
    for term, other in ((a, b), (b, a)):
        product = products.get(term.index) if isinstance(term, Slot) else None
        if product is None or not isinstance(other, Slot | Tensor) or other == term:
            continue
        sizes, kinds = {forms[i].shape for i in (term.index, *call.outputs)}, set()
        for t in (*product.leaves, other):
            kinds.add(forms[t.index].dtype if isinstance(t, Slot) else t.dtype)
        if len(sizes) == len(kinds) == 1:
            return product
    return None


def _free(calls: list[Call], outputs: Sequence[int | None]) -> None:
    """Tell each call which slots nobody reads after it."""
    seen = set(outputs)
    for call in reversed(calls):
        touched = [index for _, index in call.reads] + [i for i in call.outputs if i is not None]
        call.frees = tuple(dict.fromkeys(index for index in touched if index not in seen))
        seen.update(touched)


def _reuse(
    calls: Sequence[Call],
    inputs: Sequence[int],
    outputs: Sequence[int | None],
    forms: Sequence[Form],
) -> None:
    """Tell calls in whose memory they may put their result."""
    needed = {forms[index].memory for index in (*inputs, *outputs) if index is not None}
    for call in reversed(calls):
        reads = {index for _, index in call.reads}
        if call.plain and len(call.outputs) == 1 and call.outputs[0] is not None:
            result = forms[call.outputs[0]]
            for place, index in call.reads:
                operator = EACH.get(call.function)
                operator = FIRST.get(call.function) if operator is None and not place else operator
                form = forms[index]
                alone = sum(forms[other].memory == form.memory for other in reads) == 1
                free = form.memory is not None and form.memory not in needed
                if operator and alone and free and form.like(result):
                    call.reuse = operator, place
                    break
        needed |= {forms[index].memory for index in reads}
