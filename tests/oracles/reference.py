"""The root A written down naively: one backward pass an output entry, scores label by label.

Nothing here comes from lightlike; likelihoods are given by name and number.
"""

import copy

import numpy as np
import torch
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats


def score_root(name, h, variance=1.0):
    """Rows R with Rᵀ R = E_y[s sᵀ] for one observation's outputs h (m,), from the labels' law."""
    if name == "categorical":
        p = np.exp(h - h.max())
        p /= p.sum()
        return np.sqrt(p)[:, None] * (np.eye(len(h)) - p)
    if name == "gaussian":
        return np.eye(len(h)) / np.sqrt(variance)
    if name == "bernoulli":
        p = 1 / (1 + np.exp(-h))
        return np.diag(np.sqrt((1 - p) * p**2 + p * (1 - p) ** 2))
    if name == "poisson":
        rate = np.exp(h.max())  # far enough that what is left out is below rounding
        counts = np.arange(int(rate + 40 * np.sqrt(rate)) + 100)[:, None]
        weights = stats.poisson.pmf(counts, np.exp(h))
        return np.diag(np.sqrt((weights * (counts - np.exp(h)) ** 2).sum(0)))
    z, weights = hermegauss(12)  # heteroscedastic: score z e^{-v/2} of a mean, (z² − 1)/2 of v
    weights = weights / weights.sum()
    v = np.split(h, 2)[1]
    means = np.exp(-v / 2) * np.sqrt((weights * z**2).sum())
    spreads = np.full(len(v), np.sqrt((weights * (z**2 - 1) ** 2).sum() / 4))
    return np.diag(np.concatenate([means, spreads]))


def jacobians(model, batches, names=None):
    """Outputs (n, m) and Jacobians (n, m, D) of all observations, in a double copy of a model."""
    model = copy.deepcopy(model).double()
    leaves = [
        p for n, p in model.named_parameters()
        if p.requires_grad and (names is None or n in names)
    ]  # fmt: skip
    outputs, rows = [], []
    for args, _ in batches:
        args = args if isinstance(args, tuple) else (args,)
        args = [a.double() if a.is_floating_point() else a for a in args]
        out = model(*args)
        out = (out[:, None] if out.ndim == 1 else out).reshape(-1, out.shape[-1])
        for observation in out:
            outputs.append(observation.detach().numpy())
            for entry in observation:
                entry = entry + 0 * sum(leaf.sum() for leaf in leaves)
                found = torch.autograd.grad(entry, leaves, retain_graph=True)
                rows.append(torch.cat([g.reshape(-1) for g in found]).numpy())
    h = np.array(outputs)
    return h, np.array(rows).reshape(*h.shape, -1)


def whitened(model, batches, name, *, variance=1.0, names=None, ignore_index=None):
    """A as numpy sees it, rows of all observations that count: (n · rows, D)."""
    h, jacobian = jacobians(model, batches, names)
    counted = np.ones(len(h), dtype=bool)
    if ignore_index is not None:
        labels = torch.cat([y.reshape(-1) for _, y in batches])
        counted = (labels != ignore_index).numpy()
    rows = [
        score_root(name, o, variance) @ j
        for o, j in zip(h[counted], jacobian[counted], strict=True)
    ]
    return np.concatenate(rows) / np.sqrt(counted.sum())
