"""Other ways to the Gram matrix: nngeometry, and the Jacobian written out with torch.func."""

from __future__ import annotations

import copy

import torch
from nngeometry.metrics import FIM
from nngeometry.object.fspace import FMatDense
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

SLAB = 2 << 30  # bytes of Jacobian held at once
IN_FLIGHT = 1 << 30  # bytes of gradients by sample held at once, before they are put together


def nngeometry_gram(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """nngeometry's dense dual of the Fisher matrix, (m - 1, N, m - 1, N), not divided by N.

    One batch of everything is the fastest that it can do: smaller ones are back-propagated again
    for every pair of batches.
    """
    model, x = copy.deepcopy(model).to(dtype), x.to(dtype)
    loader = DataLoader(TensorDataset(x), batch_size=len(x))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # it makes its intermediate tensors in it
    try:
        gram: Tensor = FIM(model, loader, FMatDense, variant="classif_logits").to_torch()
    finally:
        torch.set_default_dtype(before)
    return gram


def as_matrix(gram: Tensor) -> Tensor:
    """nngeometry's result as K × K, divided by N, rows by observation."""
    outputs, observations = gram.shape[:2]
    rows = outputs * observations
    matrix: Tensor = gram.permute(1, 0, 3, 2).reshape(rows, rows) / observations
    return matrix


def softmax_root(logits: Tensor) -> Tensor:
    """diag(√p) Q, (N, m, m - 1), Q any orthonormal basis of √p^⊥, here from a QR factorisation.

    It differs from lightlike's by a rotation in each observation, which leaves eigenvalues alone.
    """
    q = (0.5 * torch.log_softmax(logits, -1)).exp().unsqueeze(-1)
    basis = torch.linalg.qr(q, mode="complete").Q[..., 1:]
    return q * basis


def explicit_gram(
    model: nn.Module, x: Tensor, dtype: torch.dtype, slab: int = SLAB, in_flight: int = IN_FLIGHT
) -> Tensor:
    """A Aᵀ from the entries of A: vmap over samples of jacrev of the whitened outputs, multiplied.

    Where A does not fit in `slab` bytes it is taken some parameters at a time.
    """
    model, x = copy.deepcopy(model).to(dtype), x.to(dtype) if x.is_floating_point() else x
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        logits = model(x)
        positions = logits[0].numel() // logits.shape[-1]
        observations = len(x) * positions
        root = softmax_root(logits.view(len(x), positions, -1)).mT / observations**0.5

    def rows(some: dict[str, Tensor], sample: Tensor, whitener: Tensor) -> Tensor:
        output = functional_call(model, {**parameters, **some}, (sample.unsqueeze(0),))
        whitened: Tensor = whitener @ output.view(positions, -1, 1)
        return whitened.flatten()

    size = root.shape[1] * root.shape[2]
    out = torch.zeros(len(x) * size, len(x) * size, dtype=dtype)
    item = torch.finfo(dtype).bits // 8
    # The fused kernels of attention have no rule for vmap over backward passes.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for some in _slabs(parameters, slab // (item * len(out))):
            width = sum(p.numel() for p in some.values())
            at_once = max(1, min(len(x), in_flight // (item * size * width)))
            by_sample = vmap(jacrev(rows), in_dims=(None, 0, 0), chunk_size=at_once)
            jacobians = by_sample(some, x, root)
            block = torch.cat([jacobians.pop(name).flatten(2) for name in some], 2).flatten(0, 1)
            out.addmm_(block, block.T)
            del block
    return out


def _slabs(parameters: dict[str, Tensor], columns: int) -> list[dict[str, Tensor]]:
    """Runs of parameters with at most so many columns each, or one parameter."""
    found: list[dict[str, Tensor]] = []
    used = columns + 1
    for name, p in parameters.items():
        if used + p.numel() > columns:
            found.append({})
            used = 0
        found[-1][name] = p
        used += p.numel()
    return found
