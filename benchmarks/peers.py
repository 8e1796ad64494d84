"""Other ways to the Gram matrix: nngeometry, and the Jacobian written out with torch.func."""

from __future__ import annotations

import copy

import torch
from nngeometry.metrics import FIM
from nngeometry.object.fspace import FMatDense
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.utils.data import DataLoader, TensorDataset


def nngeometry_gram(model: nn.Module, x: Tensor) -> Tensor:
    """nngeometry's dense dual of the Fisher matrix, (m - 1, N, m - 1, N), not divided by N.

    One batch of everything is the fastest that it can do: smaller ones are back-propagated again
    for every pair of batches.
    """
    loader = DataLoader(TensorDataset(x), batch_size=len(x))
    gram: Tensor = FIM(model, loader, FMatDense, variant="classif_logits").to_torch()
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


def explicit_gram(model: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A Aᵀ from all entries of A: Jacobians of single samples, whitened, multiplied."""
    model, x = copy.deepcopy(model).to(dtype), x.to(dtype)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def output(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        result: Tensor = functional_call(model, values, (sample,))
        return result

    with torch.no_grad():
        root = softmax_root(model(x)).mT / len(x) ** 0.5
        jacobians = vmap(jacrev(output), in_dims=(None, 0))(parameters, x)
        whitened = [(root @ jacobians.pop(name).flatten(2)).flatten(0, 1) for name in parameters]
        rows = torch.cat(whitened, 1)
        whitened.clear()
        return rows @ rows.T
