"""What the calls of PyTorch functions mean for features; see `tracing`.

A call that is not listed is opaque. A handler may raise any of the errors that `Trace` catches:
then that call is opaque too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightlike.geometry.symmetry.graph import Node, Value
from lightlike.geometry.symmetry.layers import (
    AXES,
    added_product,
    batch_normalisation,
    bilinear,
    convolution,
    embedding,
    gain,
    linear,
    normalisation,
    product,
)
from lightlike.geometry.symmetry.statistics import Slopes
from lightlike.geometry.symmetry.tracing import (
    FIXED,
    Handler,
    Ints,
    Trace,
    broadcast,
    opaque,
)

MOVES = (
    "view", "reshape", "flatten", "unflatten", "transpose", "permute", "t", "T", "mT", "movedim",
    "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "repeat_interleave", "contiguous",
    "clone", "chunk", "split", "split_with_sizes", "tensor_split", "unbind", "narrow", "select",
    "getitem", "index_select", "cat", "stack", "hstack", "vstack", "roll", "flip", "swapaxes",
    "view_as", "reshape_as", "pixel_shuffle", "channel_shuffle", "tile", "broadcast_to", "alias",
)  # fmt: skip
PASSES = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout",
    "feature_alpha_dropout", "double", "to", "type", "type_as", "positive",
)  # fmt: skip
RECTIFIERS = ("relu", "leaky_relu", "prelu", "rrelu", "abs")
MAXIMA = (
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d",
)  # fmt: skip
MEANS = (
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
)  # fmt: skip
CURVES = (
    "tanh", "sigmoid", "logsigmoid", "log_sigmoid", "gelu", "silu", "mish", "softplus", "elu",
    "celu", "selu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "softsign", "tanhshrink",
    "sin", "cos", "exp", "erf", "softshrink", "hardshrink",
)  # fmt: skip

# Functions of an S shape.
BOUNDED = ("tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign", "erf")


def identity(trace: Trace, node: Node) -> None:
    """Every entry stays what it is."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape != y.shape:
        raise ValueError("shapes differ")
    if trace.moves(x):
        trace._coordinates[y] = trace.coordinates(x)
    else:
        trace.set(y, trace.features(x))


def rectifier(trace: Trace, node: Node) -> None:
    """f(c x) = c f(x) for c > 0, entry by entry."""
    x, y = node.inputs[0], node.outputs[0]
    for other in node.inputs[1:]:
        trace.fix(other)
    trace.set(y, _bend(trace, trace.features(x), trace.slopes.get(node.index)))


def curve(trace: Trace, node: Node) -> None:
    """Any other function of one entry: nothing passes, but the unit is known."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape != y.shape or len(node.inputs) > 1:
        raise ValueError("more than one entry")
    found = trace.features(x)
    known, inverse = torch.unique(found, return_inverse=True)
    out = trace.fresh(len(known))
    trace.link(trace.units, known[known != FIXED], out[known != FIXED])
    if node.name in BOUNDED:
        trace.mark(trace.bounded, torch.cat([known[known != FIXED], out]))
    trace.set(y, out[inverse])
    slopes = trace.slopes.get(node.index)
    steady, factor = _common(slopes.derivative if slopes else None, inverse, len(known))
    trace.passed(out[steady], known[steady], factor[steady])
    for ids in (known, out):
        trace.mark(trace.still, ids[steady])
        trace.link(trace.same, ids[~steady], torch.tensor(FIXED))


def clamp(trace: Trace, node: Node) -> None:
    """A rectifier if it clamps to positive or to negative numbers."""
    low, high = node.argument(1, "min"), node.argument(2, "max")
    if sorted([str(low), str(high)], key=len) not in (["0", "None"], ["0.0", "None"]):
        raise ValueError("bounds other than 0")
    rectifier(trace, node)


def maximum(trace: Trace, node: Node) -> None:
    """Maximum over places of each channel."""
    ids = torch.from_numpy(_channels(trace, node))
    _spread(trace, node, _bend(trace, ids))


def mean(trace: Trace, node: Node) -> None:
    """Mean over places of each channel; not of a shift where padding is counted."""
    ids = torch.from_numpy(_channels(trace, node))
    if node.argument(3, "padding", 0) not in (0, (0, 0), (0,), (0, 0, 0), [0, 0]):
        trace.mark(trace.rigid, ids)
    _spread(trace, node, ids)


def reduction(trace: Trace, node: Node) -> None:
    """Sum or mean over some axes: entries that are added are one feature."""
    x, y = node.inputs[0], node.outputs[0]
    dims = node.argument(1, "dim")
    if dims is None:
        raise ValueError("over all axes")
    dims = [dims] if isinstance(dims, int) else list(dims)
    found = trace.features(x)
    count = 1
    for axis in dims:
        trace.merge(found.narrow(axis, 0, 1), found)
        found = found.narrow(axis, 0, 1)
        count *= x.shape[axis]
    if node.name == "sum":
        found = trace.add([(found, count)])
    trace.set(y, found.reshape(y.shape))


def addition(trace: Trace, node: Node) -> None:
    """X + y: what is done to x is done to y."""
    if len(node.inputs) == 1:
        constants = [a for a in node.args if not isinstance(a, Value)]
        if constants != [0]:
            raise ValueError("a constant is added")
        identity(trace, node)
        return
    x, z = node.inputs
    if node.kwargs.get("alpha", 1) != 1:
        raise ValueError("weighted")
    sign = -1.0 if node.name == "sub" else 1.0
    trace.set(node.outputs[0], trace.add([(trace.features(x), 1.0), (trace.features(z), sign)]))


def multiplication(trace: Trace, node: Node) -> None:
    """X y: with a number, a learnt gain, or another feature."""
    y = node.outputs[0]
    if len(node.inputs) == 1:
        (factor,) = (a for a in node.args if not isinstance(a, Value))
        if node.name == "div":
            if not isinstance(node.args[0], Value) or node.kwargs:
                raise ValueError("a reciprocal, or rounding")
            factor = 1.0 / factor
        trace.set(y, trace.add([(trace.features(node.inputs[0]), float(factor))]))
        return
    x, z = node.inputs
    learnt = [trace.learnt(v) for v in (x, z)]
    if node.name == "mul" and any(learnt) and not all(learnt):
        factor, other = (x, z) if learnt[0] else (z, x)
        gain(trace, node, trace.features(other), factor)
        return
    a, b = broadcast(trace.features(x), trace.features(z))
    if node.name == "div":
        trace.link(trace.same, b, torch.tensor(FIXED))
    trace.set(y, _times(trace, a, b))


def gated(trace: Trace, node: Node) -> None:
    """GLU: one half of the features times a sigmoid of the other half."""
    x, y = node.inputs[0], node.outputs[0]
    value, gate = trace.features(x).chunk(2, node.argument(1, "dim", -1))
    trace.link(trace.same, gate, torch.tensor(FIXED))
    trace.set(y, _times(trace, value, torch.zeros_like(gate)))


def squared(trace: Trace, node: Node) -> None:
    """The product of a feature with itself."""
    if node.name == "pow" and node.argument(1, "exponent") != 2:
        raise ValueError("another power")
    found = trace.features(node.inputs[0])
    trace.set(node.outputs[0], _times(trace, found, found))


def _times(trace: Trace, a: Tensor, b: Tensor) -> Tensor:
    """New features z = a b, entry by entry."""
    keys, inverse = torch.unique(torch.stack([a, b]).flatten(1), dim=1, return_inverse=True)
    out = trace.fresh(keys.shape[1])
    trace.products.append(torch.cat([out[None], keys]).numpy())
    trace.mark(trace.bent, torch.cat([out, keys.reshape(-1)]))
    return out[inverse].view(a.shape)


def _bend(trace: Trace, ids: Tensor, slopes: Slopes | None = None) -> Tensor:
    """New features that scale with others, or that are others times a factor on all of the data."""
    known, inverse = torch.unique(ids, return_inverse=True)
    out = trace.fresh(len(known))
    trace.link(trace.units, known, out)
    straight, factor = _common(slopes.factor if slopes else None, inverse, len(known))
    steady, derivative = _common(slopes.derivative if slopes else None, inverse, len(known))
    trace.link(trace.same, known[straight], out[straight])
    trace.passed(out[straight], known[straight], factor[straight])
    trace.link(trace.scaled, known[~straight], out[~straight])
    # One that never changes is no more than a constant on which a shift may add.
    trace.passed(out[steady], known[steady], derivative[steady])
    bent = ~straight & ~steady
    for ids in (known, out):
        trace.mark(trace.bent, ids[bent])
    return out[inverse]


def _common(slopes: Tensor | None, inverse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which of some features have one slope at all of their entries, and that."""
    high = torch.full((count,), torch.nan, dtype=torch.float64)
    if slopes is None or slopes.shape[1:] != inverse.shape[1:]:
        return ~torch.isnan(high), high
    spread = slopes.expand(inverse.shape).reshape(-1).to(torch.float64)
    flat = inverse.reshape(-1)
    high = high.fill_(-torch.inf).scatter_reduce(0, flat, spread, "amax")
    low = torch.full_like(high, torch.inf).scatter_reduce(0, flat, spread, "amin")
    alike = high - low <= 1e-12 * high.abs()
    return alike, high


def _channels(trace: Trace, node: Node) -> Ints:
    return trace.along(node.inputs[0], -AXES[node.name[-2:]] - 1)


def _spread(trace: Trace, node: Node, ids: Tensor) -> None:
    for y in node.outputs[:1]:
        trace.set(y, ids.view(-1, *[1] * AXES[node.name[-2:]]))


def handlers() -> dict[str, Handler]:
    """What each call means, by name."""
    convolutions = [f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)]
    found: dict[str, Handler] = {
        **dict.fromkeys(MOVES, Trace.move),
        **dict.fromkeys(PASSES, identity),
        **dict.fromkeys(RECTIFIERS, rectifier),
        **dict.fromkeys(CURVES, curve),
        **dict.fromkeys(MAXIMA, maximum),
        **dict.fromkeys(MEANS, mean),
        **dict.fromkeys(("clamp", "clamp_min"), clamp),
        **dict.fromkeys(("add", "sub"), addition),
        **dict.fromkeys(("mul", "div"), multiplication),
        **dict.fromkeys(("sum", "mean"), reduction),
        **dict.fromkeys(("pow", "square"), squared),
        **dict.fromkeys(convolutions, convolution),
        **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "instance_norm"), normalisation),
        "linear": linear, "matmul": product, "addmm": added_product, "embedding": embedding,
        "batch_norm": batch_normalisation, "glu": gated, "bilinear": bilinear,
    }  # fmt: skip
    return found


def leaves() -> frozenset[str]:
    """Functions that are not entered when a pass is recorded."""
    known: Any = handlers()
    return frozenset(known)


__all__ = ["handlers", "leaves", "opaque"]
