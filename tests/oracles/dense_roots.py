"""The number of null directions from the dense root, by plain differentiation."""

import copy

import numpy as np
import torch
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel


def dense_root(model, x, softmax=False):
    """A (K, D) up to its scale: rows of outputs, whitened by the labels' covariance if softmax."""
    model = copy.deepcopy(model).double()
    names = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def outputs(values):
        out = functional_call(model, values, x if isinstance(x, tuple) else (x,))
        out = getattr(out, "logits", out)
        return out.reshape(-1, out.shape[-1])

    with torch.no_grad():
        h = outputs(names)
    with sdpa_kernel(SDPBackend.MATH):
        found = jacrev(outputs)(names)
    rows = torch.cat([found[n].reshape(*h.shape, -1) for n in names], -1)
    if softmax:
        p = torch.softmax(h, -1)
        rows = p.sqrt()[..., None] * (rows - torch.einsum("nk,nkd->nd", p, rows)[:, None])
    return rows.reshape(-1, rows.shape[-1]).detach().numpy()


def nullity(model, x, softmax=False, tolerance=1e-10):
    """D − rank A, where no singular value is near the cut."""
    small = np.linalg.qr(dense_root(model, x, softmax), mode="r")
    values = np.linalg.svd(small, compute_uv=False)
    rank = int((values > tolerance * values[0]).sum())
    below = values[rank] if rank < len(values) else 0.0
    assert below < 1e-3 * values[rank - 1], "no gap: the rank is a matter of taste here"
    return small.shape[1] - rank
