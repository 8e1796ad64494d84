"""Matrices whose eigenvalues are known."""

import numpy as np
import torch


def planted(values, seed=0):
    """A symmetric matrix with given eigenvalues."""
    random = np.random.default_rng(seed)
    Q = np.linalg.qr(random.standard_normal((len(values), len(values))))[0]
    full = (Q * np.asarray(values, dtype=float)) @ Q.T
    return torch.as_tensor((full + full.T) / 2)


def toeplitz(n):
    """Second differences: eigenvalues 2 − 2 cos(kπ/(n + 1)), k = 1..n."""
    return torch.as_tensor(2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
