"""neural-tangents' structured empirical tangent kernel, with what it misses in a current jax.

neural-tangents 0.6.5 was written for jax 0.4. Its structured derivatives, "Fast Finite Width Neural
Tangent Kernel" (arXiv 2206.08720), still run on jax 0.10 once some names are back: `_restore_names`
gives jax those that moved, and `_Patched` stands in for two modules inside neural-tangents. The one
thing written anew is `_linearize`, from jax's public `linearize` and `make_jaxpr`.

Importing this module needs the environment variable NPROC set first if jax shall use another number
of threads than there are cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.extend.linear_util
import torch
from jax import lax
from jax import numpy as jnp
from jax._src import source_info_util
from jax._src.util import safe_map, safe_zip
from jax.interpreters import ad
from torch import Tensor, nn


def _restore_names() -> None:
    """Names that neural-tangents imports, in the places where jax 0.4 had them."""
    for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var"):
        setattr(jax.core, name, getattr(jax.extend.core, name))
    jax.core.Value = Any
    jax.extend.core.Primitive.map_primitive = False
    jax.random.KeyArray = jax.Array
    ad.zeros_like_p = jax.extend.core.Primitive("zeros_like")
    util = ModuleType("jax.util")
    util.safe_map, util.safe_zip = safe_map, safe_zip  # type: ignore[attr-defined]
    sys.modules["jax.util"] = util
    # Its experimental part needs TensorFlow, and nothing here needs it.
    absent = "neural_tangents.experimental"
    sys.modules[absent] = ModuleType(absent)


class _Patched:
    """A module with some names replaced."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _linearize(function: Any, *primals: Any, has_aux: bool) -> tuple[Any, ...]:
    """jax 0.4's `ad.linearize`: outputs, which of them vary, the linear program, its constants."""
    del has_aux
    outputs, linear = jax.linearize(function.call_wrapped, *primals)
    closed = jax.make_jaxpr(linear)(*primals)
    varies = SimpleNamespace(is_known=lambda: False)
    return outputs, [varies] * len(outputs), closed.jaxpr, closed.consts


_restore_names()

import neural_tangents as nt  # noqa: E402 — it must find the names above
from neural_tangents._src import empirical  # noqa: E402

empirical.ad = _Patched(
    ad,
    linearize=_linearize,
    source_info_util=source_info_util,
    reducing_transposes={},
    config=SimpleNamespace(jax_enable_checks=False),
)
empirical.core = _Patched(jax.core, DShapedArray=type("DShapedArray", (), {}))

Parameters = list[tuple[jax.Array, jax.Array]]


def _mlp(parameters: Parameters, x: jax.Array) -> jax.Array:
    for weight, bias in parameters[:-1]:
        x = lax.max(x @ weight + bias, jnp.zeros((), x.dtype))
    weight, bias = parameters[-1]
    return x @ weight + bias


def _cnn(parameters: Parameters, x: jax.Array) -> jax.Array:
    for weight, bias in parameters[:-1]:
        padding = ((1, 1), (1, 1))
        layout = ("NCHW", "OIHW", "NCHW")
        x = lax.conv_general_dilated(x, weight, (1, 1), padding, dimension_numbers=layout)
        x = lax.max(x + bias[None, :, None, None], jnp.zeros((), x.dtype))
    window = (1, 1, 2, 2)
    x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    weight, bias = parameters[-1]
    return x.reshape(len(x), -1) @ weight + bias


NETWORKS: dict[str, Callable[[Parameters, jax.Array], jax.Array]] = {"mlp": _mlp, "cnn": _cnn}


# Into how many batches the samples are cut. Pairs of batches above the diagonal need not be
# computed, which gains more than the repeated back-propagation costs: twofold for the MLP. Found by
# trying 1, 2, 3, 4, 5, 10 and 20.
BATCHES = {"mlp": 5, "cnn": 2}


def prepare_tangents(
    name: str, model: nn.Module, x: Tensor, batches: int | None = None
) -> Callable[[], Tensor]:
    """The tangent kernel J_i J_jᵀ (N, N, m, m) in float32, as a call of compiled programs.

    Of neural-tangents' implementations the structured derivatives are the fastest here.

    Args:
        name: A key of NETWORKS.
        model: Layers with a weight and a bias each, of which the weights are taken.
        x: Inputs.
        batches: Their number; a divisor of N.
    """
    parameters = [
        (_weight(layer), jnp.asarray(layer.bias.detach().numpy()))
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    kernel = nt.empirical_ntk_fn(
        NETWORKS[name],
        trace_axes=(),
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    parts = jnp.split(jnp.asarray(x.numpy()), batches or BATCHES[name])

    diagonal = jax.jit(lambda x, p: kernel(x, None, p)).lower(parts[0], parameters).compile()
    below = jax.jit(kernel).lower(parts[0], parts[0], parameters).compile()

    def run() -> Tensor:
        out: Tensor | None = None
        for i, a in enumerate(parts):
            for j, b in enumerate(parts[: i + 1]):
                found = diagonal(a, parameters) if i == j else below(a, b, parameters)
                block = torch.from_dlpack(found)
                if len(parts) == 1:
                    return block
                step, outputs = len(a), block.shape[-1]
                if out is None:
                    out = block.new_empty(len(x), len(x), outputs, outputs)
                rows, columns = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
                out[rows, columns] = block
                if i != j:
                    out[columns, rows] = block.permute(1, 0, 3, 2)
        assert out is not None
        return out

    return run


def _weight(layer: nn.Module) -> jax.Array:
    """A linear layer's with the inputs first: a transposition in the network would hide from
    neural-tangents that the weight enters by a product, at 70 times the cost."""
    weight = layer.weight.detach()
    return jnp.asarray((weight.T if weight.ndim == 2 else weight).numpy())


def tangents_as_matrix(kernel: Tensor) -> Tensor:
    """The kernel as (N m) × (N m), rows by observation."""
    rows = kernel.shape[0] * kernel.shape[2]
    return kernel.permute(0, 2, 1, 3).reshape(rows, rows)
