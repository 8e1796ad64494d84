"""Values and tangents of layers, with as few operations as they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightlike.metric.products.duals import apart, maybe_apart, together, total

aten: Any = torch.ops.aten


class _Scaled(torch.autograd.Function):
    """f(x), whose derivative f'(x) of every entry is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        (slope,) = ctx.saved_tensors
        return g[0] * slope, None, None


def bend(function: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """f(x) entry by entry: the tangent f'(x) dx, f'(x) computed once."""
    if kwargs.pop("inplace", False) or any(isinstance(t, Tensor) for t in args):
        return None
    x, dx = apart(x)
    if dx is None or not x.requires_grad:
        return None
    at = x.detach().requires_grad_(True)
    value = function(at, *args, **kwargs)
    (slope,) = torch.autograd.grad(value, at, torch.ones_like(value))
    found: Tensor = _Scaled.apply(x, value.detach(), slope)  # type: ignore[no-untyped-call]
    return together(found, dx * slope)


def normalise(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """Normalised inputs, z w + b with z = (x − mean) / deviation: the tangent dz w + z dw + db.

    dz is a symmetric map of dx, so that PyTorch's kernel for the way back does it.
    """
    (x, dx), (w, dw), (b, db) = apart(x), maybe_apart(weight), maybe_apart(bias)
    shape = list(normalized_shape)
    if any(t is not None and t.dtype != x.dtype for t in (w, b)):
        return None
    y, mean, rstd = torch.native_layer_norm(x, shape, w, b, eps)
    at, terms = x.detach(), []
    if dx is not None:
        mask = [True, False, False]
        dz = aten.native_layer_norm_backward(dx, at, shape, mean, rstd, None, None, mask)[0]
        terms.append(dz if w is None else dz * w.detach())
    if dw is not None:
        z = ((at - mean) * rstd).detach()
        terms = [torch.addcmul(terms[0], z, dw) if terms else z * dw]
    if db is not None:
        terms.append(db if terms else db.expand_as(y))
    return together(y, total(terms))


class _Attention(torch.autograd.Function):
    """P v with P = softmax(q kᵀ), whose entries are known."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, P: Tensor, scale: float) -> Tensor:
        # The factor goes into what is kept.
        ctx.save_for_backward(q * scale, k * scale, v, P)
        return torch.bmm(P, v)

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        q, k, v, P = ctx.saved_tensors
        g = given[0]
        along = aten._softmax_backward_data(torch.bmm(g, v.mT), P, -1, P.dtype)
        return torch.bmm(along, k), torch.bmm(along.mT, q), torch.bmm(P.mT, g), None, None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """softmax(s q kᵀ) v: the tangent dP v + P dv with dP = (diag p − p pᵀ) s (dq kᵀ + q dkᵀ).

    The derivative of the softmax is symmetric, so that PyTorch's kernel for the way back does it.
    """
    duals = [apart(t) for t in (query, key, value)]
    lead = query.shape[:-2]
    alike = all(t.shape[:-2] == lead and t.dtype == query.dtype for t, _ in duals)
    if dropout_p or enable_gqa or not alike or any(d is None for _, d in duals):
        return None
    if attn_mask is not None and (attn_mask.requires_grad or apart(attn_mask)[1] is not None):
        return None
    (q, dq), (k, dk), (v, dv) = (
        tuple(t.reshape(-1, *t.shape[-2:]) for t in pair if t is not None) for pair in duals
    )
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    with torch.no_grad():
        P = _weights(q, k, scale, lead, attn_mask, is_causal)
        ahead = torch.bmm(dq, (k * scale).mT) + torch.bmm(q * scale, dk.mT)
        along = aten._softmax_backward_data(ahead, P, -1, P.dtype)
        tangent = torch.bmm(along, v) + torch.bmm(P, dv)
    out: Tensor = _Attention.apply(q, k, v, P, scale)  # type: ignore[no-untyped-call]
    return together(*(t.view(*lead, *t.shape[1:]) for t in (out, tangent)))


def _weights(
    q: Tensor, k: Tensor, scale: float, lead: torch.Size, mask: Tensor | None, causal: bool
) -> Tensor:
    """softmax(s q kᵀ + mask), a row that may attend to nothing being 0: (batch, T, S)."""
    scores = torch.bmm(q * scale, k.mT)
    if causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
        scores = scores.masked_fill(~ones.tril(), -math.inf)
    if mask is not None:
        wide = scores.view(*lead, *scores.shape[1:])
        masked = wide.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else wide + mask
        scores = masked.flatten(0, len(lead) - 1)
    found: Tensor = aten._safe_softmax(scores, -1)
    return found


def pool(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The largest entries of windows, (N, C, H, W): tangents are picked from where these are."""
    (x, dx) = apart(x)
    value, places = functional.max_pool2d_with_indices(x, *args, **kwargs)
    if dx is None:
        return together(value, None)
    # With channels last, which is how the kernels ahead of it may have laid them.
    last = places.permute(0, 2, 3, 1)
    samples = torch.arange(len(x), device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)
    index = (samples * x.shape[2:].numel() + last) * x.shape[1] + channels
    found = dx.permute(0, 2, 3, 1).reshape(-1).index_select(0, index.flatten())
    return together(value, found.view(last.shape).permute(0, 3, 1, 2))
