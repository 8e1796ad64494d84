"""Normalisations in a trace of transformers, as one call or spelt out; see `wiring`."""

from __future__ import annotations

import numpy as np
import torch

from lightlike.geometry.symmetry import calls
from lightlike.geometry.symmetry.graph import Node, Value
from lightlike.geometry.symmetry.tracing import FIXED, FROZEN, Use
from lightlike.geometry.symmetry.wiring import Norm, Wiring, weigh


def normalisation(trace: Wiring, node: Node) -> None:
    """Layer and RMS normalisation of the last axis."""
    x, shape = node.argument(0, "input"), node.argument(1, "normalized_shape")
    if len(shape) != 1:
        raise ValueError("over several axes")
    layer = node.name == "layer_norm"
    eps = node.argument(4, "eps", 1e-5) if layer else node.argument(3, "eps")
    eps = torch.finfo(x.tensor.dtype).eps if eps is None else float(eps)
    ins, outs = trace.along(x, -1), trace.fresh(shape[0])
    weight, bias = node.argument(2, "weight"), node.argument(3, "bias") if layer else None
    place, values = np.full((len(outs), 1), FROZEN), np.ones((len(outs), 1))
    if weight is not None:
        place = trace.coordinates(weight)[:, None].numpy()
        values = weight.tensor[:, None].numpy()
    offset = base = None
    if bias is not None:
        offset, base = trace.coordinates(bias)[:, None].numpy(), bias.tensor[:, None].numpy()
    none = np.full(len(outs), FIXED)
    trace.use(Use(node, place, values, outs.numpy(), none, offset, base, diagonal=True))
    trace.norms.append(Norm(ins, outs.numpy(), trace.uses[-1], centred=layer, eps=eps))
    trace.set(node.outputs[0], outs)


def square(trace: Wiring, node: Node) -> None:
    """x², which may be the beginning of an RMS normalisation."""
    if node.name == "pow" and node.argument(1, "exponent") != 2:
        raise ValueError("another power")
    trace.squares[node.outputs[0]] = "square", node.inputs[0], 0.0


def mean(trace: Wiring, node: Node) -> None:
    """Of squares over features, or of features over positions."""
    x, y = node.argument(0, "input"), node.outputs[0]
    if x not in trace.squares:
        calls.reduction(trace, node)
    elif node.argument(1, "dim") in (-1, [-1], (-1,)) and y.tensor.ndim == x.tensor.ndim:
        trace.squares[y] = "mean", trace.squares[x][1], 0.0
    else:
        trace.fix(trace.squares[x][1])


def root(trace: Wiring, node: Node) -> None:
    """√ and 1/√ of a mean square."""
    kind, x, eps = trace.squares[node.inputs[0]]
    if kind != "mean":
        trace.fix(x)
        return
    trace.squares[node.outputs[0]] = "root" if node.name == "sqrt" else "inverse", x, eps


def addition(trace: Wiring, node: Node) -> None:
    """X + y, or a mean square and eps."""
    if len(node.inputs) == 1 and node.inputs[0] in trace.squares:
        kind, x, eps = trace.squares[node.inputs[0]]
        numbers = [a for a in node.args if not isinstance(a, Value)]
        if kind != "mean" or len(numbers) != 1 or node.kwargs:
            trace.fix(x)
            return
        trace.squares[node.outputs[0]] = kind, x, eps + float(numbers[0])
    else:
        calls.addition(trace, node)


def multiplication(trace: Wiring, node: Node) -> None:
    """With a number, a learnt gain, the inverse of a norm, or anything that is fixed."""
    if len(node.inputs) == 1:
        calls.multiplication(trace, node)
        return
    x, z = node.inputs
    y = node.outputs[0]
    if x is z and node.name == "mul":
        trace.squares[y] = "square", x, 0.0
        return
    if x in trace.squares:
        x, z = z, x
    if z in trace.squares:
        kind, source, eps = trace.squares[z]
        same = torch.equal(trace.features(x), trace.features(source))
        if not same or kind != ("inverse" if node.name == "mul" else "root"):
            trace.fix(source)
            trace.fix(x)
            return
        ins, outs = trace.along(x, -1), trace.fresh(x.shape[-1])
        trace.norms.append(Norm(ins, outs.numpy(), None, centred=False, eps=eps))
        trace.set(y, outs)
        return
    learnt, known = trace.learnt(x) or trace.learnt(z), [trace.known(x), trace.known(z)]
    if not learnt and not any(known):
        return
    if learnt or all(known):
        calls.multiplication(trace, node)
        return
    if not trace.known(x):
        if node.name == "div":
            raise ValueError("a reciprocal")
        x, z = z, x
    weigh(trace, x, z, y)
