"""KFAC written down naively for linear layers whose inputs and outputs are seen, in float64.

Nothing here comes from lightlike. Inputs are read by forward hooks, gradients at a layer's output
by one backward pass a row of the score's root.
"""

import copy

import numpy as np
import torch

from oracles.reference import score_root, whitened


def seen(model, batches, name, likelihood):
    """Inputs x (N, P, in) and whitened rows g (N, k, P, out) at the output of a linear layer."""
    model = copy.deepcopy(model).double()
    layer = model.get_submodule(name)
    inputs, rows = [], []
    held = {}

    def note(_, args, output):
        held["x"], held["y"] = args[0], output

    handle = layer.register_forward_hook(note)
    for x, _ in batches:
        for one in x:
            h = model(one[None].double() if one.is_floating_point() else one[None])
            h = h.reshape(-1, h.shape[-1])
            mine = []
            for i in range(len(h)):
                root = torch.from_numpy(score_root(likelihood, h[i].detach().numpy()))
                for row in root:
                    (g,) = torch.autograd.grad(h[i] @ row, held["y"], retain_graph=True)
                    mine.append(g.reshape(-1, g.shape[-1]))
            inputs.append(held["x"].detach().reshape(-1, held["x"].shape[-1]))
            rows.append(torch.stack(mine))
    handle.remove()
    observations = sum(len(g) // len(root) for g in rows)
    return torch.stack(inputs), torch.stack(rows) / observations**0.5


def kfac(x, g, *, bias, reduce=False):
    """L ⊗ R on (weight, bias) columns from seen inputs and rows."""
    if bias:
        x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    if reduce:
        x, g = x.mean(1, keepdim=True), g.sum(2, keepdim=True)
    A = torch.einsum("npi,npj->ij", x, x) / (x.shape[0] * x.shape[1])
    G = torch.einsum("nkpo,nkpq->oq", g, g)
    return in_order(torch.kron(G, A), len(G), len(A), bias=bias)


def in_order(matrix, outs, ins, *, bias):
    """From rows (out, in + 1) one after another to the weight, then the bias."""
    if not bias:
        return matrix
    index = torch.arange(outs * ins).view(outs, ins)
    order = torch.cat([index[:, :-1].reshape(-1), index[:, -1]])
    return matrix[order][:, order]


def fisher(model, batches, likelihood):
    """The exact Fisher matrix, (D, D)."""
    A = torch.from_numpy(np.ascontiguousarray(whitened(model, batches, likelihood)))
    return A.T @ A
