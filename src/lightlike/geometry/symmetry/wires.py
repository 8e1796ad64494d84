"""What calls mean in a trace of transformers; see `wiring`."""

from __future__ import annotations

from typing import Any

from lightlike.geometry.symmetry import calls
from lightlike.geometry.symmetry.graph import Node
from lightlike.geometry.symmetry.norms import (
    addition,
    mean,
    multiplication,
    normalisation,
    root,
    square,
)
from lightlike.geometry.symmetry.products import added_product, attention, einsum, product
from lightlike.geometry.symmetry.tracing import Handler, Trace
from lightlike.geometry.symmetry.wiring import Wiring

# Handlers that know a square from what it is the square of.
SQUARED = (mean, root, addition, multiplication)


def wire(trace: Trace) -> Wiring:
    """The queries, keys, values and normalised streams of a graph that is traced already."""
    wiring = Wiring(trace.graph, trace.selection, handlers(), trace.slopes)
    wiring.rigid += [norm.ins for norm in wiring.norms]
    # A softmax over keys does not see what they all gain; a query's gain it does.
    wiring.rigid += [pairing.left.reshape(-1) for pairing in wiring.pairings]
    wiring.rigid += wiring.read
    return wiring


def handlers() -> dict[str, Any]:
    """What each call means."""
    found: dict[str, Any] = dict(calls.handlers())
    found.update(
        {
            **dict.fromkeys(("layer_norm", "rms_norm"), normalisation),
            **dict.fromkeys(("matmul", "bmm"), product),
            **dict.fromkeys(("mul", "div"), multiplication),
            **dict.fromkeys(("pow", "square"), square),
            **dict.fromkeys(("sqrt", "rsqrt"), root),
            "baddbmm": added_product, "einsum": einsum, "scaled_dot_product_attention": attention,
            "add": addition, "mean": mean, "neg": negation, "float": calls.identity,
            "type_as": typed,
        }
    )  # fmt: skip
    return {name: _unless_fixed(how) for name, how in found.items()}


def _unless_fixed(how: Handler) -> Any:
    """What is made of fixed values alone is fixed."""

    def handle(trace: Wiring, node: Node) -> None:
        for v in node.inputs:
            if v in trace.squares and how not in SQUARED:
                # Read by what is no part of a normalisation.
                trace.fix(trace.squares[v][1])
        if any(v in trace.squares or trace.moves(v) or trace.known(v) for v in node.inputs):
            how(trace, node)

    return handle


def negation(trace: Wiring, node: Node) -> None:
    """−x."""
    trace.set(node.outputs[0], trace.add([(trace.features(node.inputs[0]), -1.0)]))


def typed(trace: Wiring, node: Node) -> None:
    """The same in the type of another tensor."""
    y = node.outputs[0]
    trace.set(y, trace.features(node.inputs[0]))
