"""How PyTorch and Hugging Face initialise the parameters of each kind of module.

A scheme is read from the module's type, never from its values: mean and variance of the law that
its parameters were drawn from. U(±b) has variance b²/3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Scheme:
    """Mean and variance of an initial parameter; where the variance is 0 it is a constant.

    Attributes:
        mean: A number, or a tensor of the parameter's shape.
        variance: The same.
    """

    mean: float | Tensor
    variance: float | Tensor


Rule = Callable[[Any, str, Tensor], Scheme | None]


def fans(shape: torch.Size) -> tuple[int, int]:
    """Inputs and outputs of a weight (out, in, *kernel), as torch.nn.init counts them."""
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def xavier(shape: torch.Size) -> Scheme:
    """Variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)."""
    return Scheme(0.0, 2.0 / sum(fans(shape)))


def affine(module: nn.Linear, name: str, _: Tensor) -> Scheme | None:
    """U(±1/√fan_in) for weight and bias: Kaiming's law with a = √5."""
    if name not in ("weight", "bias"):
        return None
    return Scheme(0.0, 1.0 / (3.0 * fans(module.weight.shape)[0]))


def bilinear(module: nn.Bilinear, name: str, _: Tensor) -> Scheme | None:
    """U(±1/√(first inputs)) for weight and bias."""
    return Scheme(0.0, 1.0 / (3.0 * module.in1_features)) if name in ("weight", "bias") else None


def table(module: nn.Embedding, name: str, parameter: Tensor) -> Scheme | None:
    """N(0, 1), the row of the padding token 0."""
    return _rows(module, parameter, 1.0) if name == "weight" else None


def gain(_: nn.Module, name: str, __: Tensor) -> Scheme | None:
    """Gains 1, shifts 0."""
    return {"weight": Scheme(1.0, 0.0), "bias": Scheme(0.0, 0.0)}.get(name)


def slope(module: nn.PReLU, name: str, _: Tensor) -> Scheme | None:
    """A constant slope."""
    return Scheme(float(module.init), 0.0) if name == "weight" else None


def recurrent(module: nn.RNNBase | nn.RNNCellBase, _: str, __: Tensor) -> Scheme:
    """U(±1/√hidden)."""
    return Scheme(0.0, 1.0 / (3.0 * module.hidden_size))


def attention(_: nn.MultiheadAttention, name: str, parameter: Tensor) -> Scheme | None:
    """Xavier's law for projections, 0 for their biases."""
    if name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
        return xavier(parameter.shape)
    if name in ("bias_k", "bias_v"):
        return xavier(parameter.shape)
    return Scheme(0.0, 0.0) if name == "in_proj_bias" else None


RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    ((nn.Linear, nn.modules.conv._ConvNd), affine),
    ((nn.Bilinear,), bilinear),
    ((nn.Embedding, nn.EmbeddingBag), table),
    (
        (
            nn.LayerNorm,
            nn.GroupNorm,
            nn.RMSNorm,
            nn.modules.batchnorm._NormBase,
        ),
        gain,
    ),
    ((nn.PReLU,), slope),
    ((nn.RNNBase, nn.RNNCellBase), recurrent),
    ((nn.MultiheadAttention,), attention),
)
RESETS = ("reset_parameters", "_reset_parameters")


def scheme_of(model: nn.Module, name: str, parameter: Tensor) -> Scheme | None:
    """The scheme of a parameter by PyTorch's defaults; None if its module has none of its own.

    Args:
        model: The whole model, as modules above may initialise what is in them.
        name: The parameter's.
        parameter: Itself, for its shape.
    """
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    above = _above(model, owner)
    found = None
    for kinds, rule in RULES:
        kind = next((k for k in kinds if isinstance(module, k)), None)
        if kind is not None and _keeps_reset(type(module), kind):
            found = rule(module, leaf, parameter)
    if isinstance(above[-1] if above else None, nn.MultiheadAttention) and leaf == "bias":
        found = Scheme(0.0, 0.0)
    if any(type(m) is nn.Transformer for m in above) and parameter.ndim > 1:
        found = xavier(parameter.shape)
    return found


def pretrained_scheme(host: nn.Module, name: str, parameter: Tensor) -> Scheme | None:
    """The scheme of a parameter of a Hugging Face model, by `initializer_range` of its config.

    N(0, range²) for weights of linear, convolution and embedding layers, range/√(2 layers) for
    GPT-2's residual projections; biases 0, gains 1. What a model does beyond that has to be found
    by running its own initialiser.

    Args:
        host: The pretrained model.
        name: The parameter's, in it.
        parameter: Itself.
    """
    config: Any = host.config
    deviation = getattr(config, "initializer_range", None)
    owner, _, leaf = name.rpartition(".")
    module = host.get_submodule(owner)
    kind = type(module).__name__
    if "Norm" in kind:
        return gain(module, leaf, parameter)
    linear = isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or kind == "Conv1D"
    if leaf == "bias" and linear:
        return Scheme(0.0, 0.0)
    if deviation is None or leaf != "weight":
        return None
    variance = float(deviation) ** 2
    if kind == "Conv1D" and owner.endswith("c_proj") and hasattr(config, "n_layer"):
        variance /= 2 * config.n_layer
    if isinstance(module, nn.Embedding):
        return _rows(module, parameter, variance)
    return Scheme(0.0, variance) if linear else None


def hosts(model: nn.Module) -> dict[str, nn.Module]:
    """Hugging Face models in a model by the prefix of their parameters, outermost first."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name == n or name.startswith(f"{n}." if n else "") for n in found)
        pretrained = any(k.__name__ == "PreTrainedModel" for k in type(module).__mro__)
        if pretrained and not inside:
            found[name] = module
    return found


def _rows(module: nn.Embedding, parameter: Tensor, variance: float) -> Scheme:
    if module.padding_idx is None:
        return Scheme(0.0, variance)
    rows = torch.full_like(parameter, variance, dtype=torch.float64)
    rows[module.padding_idx] = 0.0
    return Scheme(0.0, rows)


def _keeps_reset(kind: type, base: type) -> bool:
    """Whether a class initialises itself as the one it is derived from does."""
    known = next((k for k in base.__mro__ if any(r in vars(k) for r in RESETS)), base)
    mine = next((k for k in kind.__mro__ if any(r in vars(k) for r in RESETS)), kind)
    return mine is known or mine.__module__.startswith("torch.nn.")


def _above(model: nn.Module, owner: str) -> list[nn.Module]:
    """The modules that a module stands in, outermost first."""
    parts = owner.split(".") if owner else []
    return [model.get_submodule(".".join(parts[:k])) for k in range(len(parts))]
