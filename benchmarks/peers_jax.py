"""neural-tangents' structured empirical tangent kernel, with what it misses in a current jax.

neural-tangents 0.6.5 was written for jax 0.4. Its structured derivatives, "Fast Finite Width Neural
Tangent Kernel" (arXiv 2206.08720), still run on jax 0.10 once some names are back: `_restore_names`
gives jax those that moved, and `_Patched` stands in for two modules inside neural-tangents. The one
thing written anew is `_linearize`, from jax's public `linearize` and `make_jaxpr`.

Importing this module needs the environment variable NPROC set first if jax shall use another number
of threads than there are cores.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.extend.linear_util
import torch
from jax import numpy as jnp
from jax._src import source_info_util
from jax._src.util import safe_map, safe_zip
from jax.interpreters import ad
from networks_jax import NETWORKS
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

# Samples of a batch. Pairs of batches above the diagonal need not be computed, which gains more
# than the repeated back-propagation costs: twofold for the MLP. Found by trying.
BATCH = {"mlp": 100, "cnn": 150, "gpt": 1}


# Arrays keep the precision that they are given.
jax.config.update("jax_enable_x64", True)


def prepare_tangents(
    kind: str, model: nn.Module, x: Tensor, dtype: torch.dtype, batch: int | None = None
) -> Callable[[], Tensor]:
    """The tangent kernel J_i J_jᵀ, (N, N, m, m), as a call of compiled programs.

    With T positions in a sample it is (N, N, T, T, m, m). Of neural-tangents' implementations the
    structured derivatives are the fastest here.

    Args:
        kind: A key of NETWORKS.
        model: The network, for its weights.
        x: Inputs.
        dtype: Of the weights and of the kernel.
        batch: Samples of a batch; all of them if N is no multiple of it.
    """
    function, weights = NETWORKS[kind]
    parameters = weights(copy.deepcopy(model).to(dtype))
    x = x.to(dtype) if x.is_floating_point() else x
    kernel = nt.empirical_ntk_fn(
        function,
        trace_axes=(),
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    step = batch or BATCH[kind]
    step = len(x) if len(x) % step else step
    parts = jnp.split(jnp.asarray(x.numpy()), len(x) // step)
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
                if out is None:
                    out = block.new_empty(len(x), len(x), *block.shape[2:])
                rows, columns = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
                out[rows, columns] = block
                if i != j:
                    out[columns, rows] = block.permute(_swapped(block.ndim))
        assert out is not None
        return out

    return run


def _swapped(dimensions: int) -> list[int]:
    """The order of dimensions that exchanges the two members of each pair."""
    return [index ^ 1 for index in range(dimensions)]


def tangents_as_matrix(kernel: Tensor) -> Tensor:
    """The kernel as a square matrix, rows by observation."""
    first, second = range(0, kernel.ndim, 2), range(1, kernel.ndim, 2)
    rows = kernel.permute(*first, *second)
    return rows.flatten(kernel.ndim // 2).flatten(0, kernel.ndim // 2 - 1)
