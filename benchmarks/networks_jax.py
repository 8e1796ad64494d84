"""The benchmarks' networks as plain jax functions, with the weights of the torch modules.

Weights are laid out with the inputs first: a transposition in the network would hide from
neural-tangents that a weight enters by a product, at 40 times the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from cases import GPT, HEADS, SYMBOLS, TransformerBlock
from jax import lax
from jax import numpy as jnp
from torch import Tensor, nn

Layer = tuple[jax.Array, jax.Array]


def mlp(parameters: list[Layer], x: jax.Array) -> jax.Array:
    for weight, bias in parameters[:-1]:
        x = lax.max(x @ weight + bias, jnp.zeros((), x.dtype))
    weight, bias = parameters[-1]
    return x @ weight + bias


def cnn(parameters: list[Layer], x: jax.Array) -> jax.Array:
    for weight, bias in parameters[:-1]:
        padding = ((1, 1), (1, 1))
        layout = ("NCHW", "OIHW", "NCHW")
        x = lax.conv_general_dilated(x, weight, (1, 1), padding, dimension_numbers=layout)
        x = lax.max(x + bias[None, :, None, None], jnp.zeros((), x.dtype))
    window = (1, 1, 2, 2)
    x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    weight, bias = parameters[-1]
    return x.reshape(len(x), -1) @ weight + bias


def gpt(parameters: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """Tokens enter as one-hot vectors: a look-up has no structured derivative."""
    one_hot = (tokens[..., None] == jnp.arange(len(SYMBOLS))).astype(parameters["token"].dtype)
    x = one_hot @ parameters["token"] + parameters["position"]
    for block in parameters["blocks"]:
        x = x + _attend(block, _normalise(block["before"], x))
        wide = _linear(block["up"], _normalise(block["between"], x))
        x = x + _linear(block["down"], 0.5 * wide * (1 + lax.erf(wide * 2**-0.5)))
    return _normalise(parameters["after"], x) @ parameters["head"]


def _attend(block: dict[str, Any], x: jax.Array) -> jax.Array:
    samples, tokens, features = x.shape
    heads = (samples, tokens, HEADS, features // HEADS)
    query, key, value = (_linear(layer, x).reshape(heads) for layer in block["project"])
    scores = jnp.einsum("nthd,nshd->nhts", query, key) / heads[-1] ** 0.5
    seen = jnp.tril(jnp.ones((tokens, tokens), bool))
    scores = jnp.where(seen, scores, -1e9)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    weights = weights / weights.sum(-1, keepdims=True)
    mixed = jnp.einsum("nhts,nshd->nthd", weights, value)
    return _linear(block["out"], mixed.reshape(x.shape))


def _linear(layer: Layer, x: jax.Array) -> jax.Array:
    return x @ layer[0] + layer[1]


def _normalise(layer: Layer, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred * lax.rsqrt(variance + 1e-5) * layer[0] + layer[1]


def layered_weights(model: nn.Module) -> list[Layer]:
    """Weights and biases of a plain stack of linear layers and convolutions."""
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return [_pair(layer) for layer in layers]


def gpt_weights(model: nn.Module) -> dict[str, Any]:
    """The transformer's, with queries', keys' and values' apart: to slice them hides structure."""
    assert isinstance(model, GPT)
    return {
        "token": _array(model.token.weight),
        "position": _array(model.position.weight),
        "blocks": [_block_weights(block) for block in model.blocks],
        "after": _pair(model.after),
        "head": _array(model.head.weight.T),
    }


def _block_weights(block: nn.Module) -> dict[str, Any]:
    assert isinstance(block, TransformerBlock)
    project = block.attention.project
    weights, biases = project.weight.chunk(3), project.bias.chunk(3)
    return {
        "before": _pair(block.before),
        "project": [(_array(w.T), _array(b)) for w, b in zip(weights, biases, strict=True)],
        "out": _pair(block.attention.out),
        "between": _pair(block.between),
        "up": _pair(block.up),
        "down": _pair(block.down),
    }


def _pair(layer: Any) -> Layer:
    weight = layer.weight
    return _array(weight.T if weight.ndim == 2 else weight), _array(layer.bias)


def _array(tensor: Tensor) -> jax.Array:
    return jnp.asarray(tensor.detach().numpy())


# By kind of network: the function and where its parameters come from.
NETWORKS: dict[str, tuple[Callable[..., jax.Array], Callable[[nn.Module], Any]]] = {
    "mlp": (mlp, layered_weights),
    "cnn": (cnn, layered_weights),
    "gpt": (gpt, gpt_weights),
}
