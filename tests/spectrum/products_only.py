"""Matrices of which only products are to be had."""

import torch


class Operator:
    """Products with a matrix, counted; rounded to another type if one is given."""

    def __init__(self, full, dtype=None):
        self.full = full if dtype is None else full.to(dtype)
        self.shape, self.dtype, self.count = full.shape, dtype, 0
        if dtype is not None:
            self.precision = torch.finfo(dtype).eps

    def __matmul__(self, v):
        self.count += 1 if v.ndim == 1 else v.shape[1]
        return self.full @ (v if self.dtype is None else v.to(self.dtype))
