"""What calls with parameters mean for features: each is noted as a `Use`; see `tracing`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightlike.geometry.symmetry.graph import Node, Value
from lightlike.geometry.symmetry.tracing import FROZEN, Floats, Ints, Trace, Use, broadcast

# Spatial axes of a convolution or a pooling, by the end of its name.
AXES = {"1d": 1, "2d": 2, "3d": 3}


def linear(trace: Trace, node: Node) -> None:
    """Dense layers: y = x Wᵀ + b."""
    x, w = node.argument(0, "input"), node.argument(1, "weight")
    place = trace.coordinates(w)
    dense(trace, node, x, place, w.tensor, node.argument(2, "bias"))


def product(trace: Trace, node: Node) -> None:
    """Y = x W with a parameter on the right, as in `matmul`."""
    x, w = node.inputs
    if not trace.learnt(w) or w.tensor.ndim != 2:
        raise ValueError("no parameter on the right")
    dense(trace, node, x, trace.coordinates(w).T, w.tensor.T, None)


def added_product(trace: Trace, node: Node) -> None:
    """Y = b + x W."""
    b, x, w = node.inputs
    if node.kwargs or len(node.args) > 3:
        raise ValueError("weighted")
    dense(trace, node, x, trace.coordinates(w).T, w.tensor.T, b)


def dense(
    trace: Trace, node: Node, x: Value, place: Tensor, weight: Tensor, bias: Value | None
) -> None:
    """Note y = x Wᵀ + b with W's coordinates and entries given, (outs, ins)."""
    y = node.outputs[0]
    ins = trace.along(x, -1)
    outs = trace.fresh(len(place))
    trace.use(
        Use(
            node, place.numpy()[:, :, None], weight.numpy()[:, :, None].astype(np.float64),
            outs.numpy(), ins, *_offset(trace, bias, len(place)),
        )
    )  # fmt: skip
    trace.set(y, outs)


def bilinear(trace: Trace, node: Node) -> None:
    """y_o = Σ w_oij x_i z_j + b_o: for any z a linear map of x, with a tap for each feature of z.

    Where x cannot change it is one of z; where neither can, one of nothing.
    """
    x, z, w, b = (
        node.argument(i, name) for i, name in enumerate(("input1", "input2", "weight", "bias"))
    )
    place, weight = trace.coordinates(w), w.tensor
    if not bool(trace.features(x).any()):
        x, z, place, weight = z, x, place.transpose(1, 2), weight.transpose(1, 2)
    trace.fix(z)
    ins, outs = trace.along(x, -1), trace.fresh(len(place))
    trace.use(
        Use(
            node, place.numpy(), weight.numpy().astype(np.float64), outs.numpy(), ins,
            *_offset(trace, b, len(place)), uniform=False,
        )
    )  # fmt: skip
    trace.set(node.outputs[0], outs)


def convolution(trace: Trace, node: Node) -> None:
    """Convolutions, group by group."""
    x, w, b = (node.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
    y, axes = node.outputs[0], AXES[node.name[-2:]]
    transposed = "transpose" in node.name
    groups = node.argument(6, "groups", 1)
    ins = trace.along(x, -axes - 1)
    place, weight = trace.coordinates(w).flatten(2), w.tensor.flatten(2)
    padding = node.argument(3, "padding", 0)
    uniform = not transposed and not np.any(np.asarray(0 if padding == "valid" else padding, bool))
    offset, base = _offset(trace, b, y.shape[-axes - 1])
    outs = trace.fresh(y.shape[-axes - 1])
    per = len(ins) // groups
    for group, mine in enumerate(outs.chunk(groups)):
        part = slice(group * len(place) // groups, (group + 1) * len(place) // groups)
        taps, entries = place[part], weight[part]
        if transposed:
            taps, entries = taps.transpose(0, 1), entries.transpose(0, 1)
        rows = slice(group * len(mine), (group + 1) * len(mine))
        trace.use(
            Use(
                node, taps.numpy(), entries.numpy().astype(np.float64), mine.numpy(),
                ins[group * per : (group + 1) * per], None if offset is None else offset[rows],
                None if base is None else base[rows], uniform=uniform,
            )
        )  # fmt: skip
    trace.set(y, outs.view(-1, *[1] * axes))


def embedding(trace: Trace, node: Node) -> None:
    """A table whose rows are looked up: a linear map of a fixed feature."""
    w, y = node.argument(1, "weight"), node.outputs[0]
    place = trace.coordinates(w).T.numpy()
    outs = trace.fresh(len(place))
    values = w.tensor.T.numpy().astype(np.float64)[:, None, :]
    ins = np.zeros(1, dtype=np.int64)
    trace.use(Use(node, place[:, None, :], values, outs.numpy(), ins, place, None))
    trace.set(y, outs)


def normalisation(trace: Trace, node: Node) -> None:
    """Layer, group, instance and RMS normalisation: what is normalised together scales together."""
    x, y = node.argument(0, "input"), node.outputs[0]
    found = trace.features(x)
    if node.name in ("layer_norm", "rms_norm"):
        axes = len(node.argument(1, "normalized_shape"))
        names = (2, "weight"), (3, "bias")
        grouped = found.flatten(-axes)
        width = list(x.shape[-axes:])
        shape: list[int] = width
    else:
        groups = node.argument(1, "num_groups") if node.name == "group_norm" else x.shape[1]
        names = (
            ((2, "weight"), (3, "bias"))
            if node.name == "group_norm"
            else ((3, "weight"), (4, "bias"))
        )
        grouped = found.reshape(len(found), groups, -1)
        width = [x.shape[1]]
        shape = [x.shape[1], *[1] * (x.tensor.ndim - 2)]
    trace.link(trace.scaled, grouped[..., :1], grouped)
    trace.mark(trace.bent, found)
    weight = node.argument(*names[0])
    bias = None if node.name == "rms_norm" else node.argument(*names[1])
    if node.name == "instance_norm" and node.argument(5, "use_input_stats", True) is not True:
        raise ValueError("fixed statistics")
    count = int(np.prod(width))
    outs = trace.fresh(count)
    ins = np.zeros(count, dtype=np.int64)
    _diagonal(trace, node, ins, outs.numpy(), weight, _offset(trace, bias, count))
    trace.set(y, outs.view(shape))


def batch_normalisation(trace: Trace, node: Node) -> None:
    """With fixed statistics: y = γ (x − μ) / √(σ² + ε) + β for each channel."""
    x, mean, var, weight, bias = (
        node.argument(i, n)
        for i, n in enumerate(("input", "running_mean", "running_var", "weight", "bias"))
    )
    if node.argument(5, "training", False) or mean is None or var is None:
        raise ValueError("statistics of the batch")
    ins = trace.along(x, 1)
    outs = trace.fresh(len(ins))
    eps = node.argument(7, "eps", 1e-5)
    slope = 1 / np.sqrt(var.tensor.numpy().astype(np.float64) + eps)
    centre = mean.tensor.numpy().astype(np.float64)
    offset = _offset(trace, bias, len(ins))
    _diagonal(trace, node, ins, outs.numpy(), weight, offset, slope, centre)
    trace.set(node.outputs[0], outs.view(-1, *[1] * (x.tensor.ndim - 2)))


def _diagonal(
    trace: Trace,
    node: Node,
    ins: Ints,
    outs: Ints,
    weight: Value | None,
    offset: tuple[Ints | None, Floats | None],
    slope: Floats | None = None,
    centre: Floats | None = None,
) -> None:
    """Note y_o = γ_o s_o (x_o − m_o) + β_o."""
    place, values = np.full((len(outs), 1), FROZEN), np.ones((len(outs), 1))
    if weight is not None:
        place = trace.coordinates(weight).reshape(-1, 1).numpy()
        values = weight.tensor.reshape(-1, 1).numpy().astype(np.float64)
    trace.use(Use(node, place, values, outs, ins, *offset, slope, centre, diagonal=True))


def gain(trace: Trace, node: Node, found: Tensor, factor: Value) -> None:
    """Entries multiplied by a parameter: one feature for each pair of feature and coordinate."""
    place = trace.coordinates(factor)
    pairs = torch.stack(broadcast(found, place, torch.arange(place.numel()).view(place.shape)))
    keys, inverse = torch.unique(pairs.flatten(1), dim=1, return_inverse=True)
    outs = trace.fresh(keys.shape[1])
    values = factor.tensor.reshape(-1)[keys[2]].numpy().astype(np.float64)[:, None]
    ins = keys[0].numpy()
    trace.use(
        Use(node, keys[1].numpy()[:, None], values, outs.numpy(), ins, None, None, diagonal=True)
    )
    trace.set(node.outputs[0], outs[inverse].view(node.outputs[0].shape))


def _offset(trace: Trace, bias: Value | None, count: int) -> tuple[Ints | None, Floats | None]:
    if bias is None:
        return None, None
    place: Ints = trace.coordinates(bias).reshape(count, 1).numpy()
    return place, bias.tensor.reshape(count, 1).numpy().astype(np.float64)
