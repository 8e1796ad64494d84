"""How fast this machine is at the kinds of work that a measurement consists of.

A product of large matrices runs at the speed of arithmetic, a product with one vector at that of
memory, and dense decompositions are halves of both: reduction to tridiagonal or bidiagonal form
(Golub & Van Loan 2013, 8.3 and 5.4) spends half of its operations in products with vectors.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from scipy.linalg.lapack import dpotrf

from lightlike.metric.buffers import empty

# Sizes that rates are measured at: a product that fills the caches with work, a matrix larger than
# most last-level caches' share of one core, decompositions that are over in milliseconds.
PRODUCT, VECTOR, SMALL = 768, 2048, 384
# Bytes that are touched and hashed.
TOUCHED, HASHED = 32 << 20, 4 << 20


@dataclass(frozen=True)
class Rates:
    """Measured once in a process for a device and a number of threads.

    Attributes:
        product: Float64 operations a second of a matrix product.
        memory: Bytes a second that a product of a matrix with a vector reads.
        touch: Bytes a second of memory written for the first time.
        hashing: Bytes a second of SHA-256.
        values: Seconds a squared size of eigenvalues, beyond what their operations take.
        vectors: The same a cubed size of what eigenvectors take more than eigenvalues.
        singular: As `values`, of singular values.
        cholesky: Float64 operations a second of a Cholesky factorisation.
    """

    product: float
    memory: float
    touch: float
    hashing: float
    values: float
    vectors: float
    singular: float
    cholesky: float

    def operations(self, count: float) -> float:
        """Seconds of products of matrices."""
        return count / self.product

    def fresh(self, size: float) -> float:
        """Seconds of bytes written for the first time."""
        return size / self.touch

    def eigenvalues(self, n: float) -> float:
        """Seconds of the eigenvalues of a symmetric matrix (n, n)."""
        return _eigenvalues(n, self.product, self.memory) + self.values * n**2

    def eigenvectors(self, n: float) -> float:
        """Seconds of its eigenvalues and eigenvectors."""
        return self.eigenvalues(n) + self.vectors * n**3

    def singular_values(self, long: float, short: float) -> float:
        """Seconds of the singular values of a matrix, the longer side compressed by QR first."""
        found = _singular_values(short, self.product, self.memory) + self.singular * short**2
        return found + self.operations(2 * long * short**2 - 2 / 3 * short**3)

    def factorisation(self, n: float) -> float:
        """Seconds of a Cholesky factorisation."""
        return n**3 / 3 / self.cholesky


def _eigenvalues(n: float, product: float, memory: float) -> float:
    """Two halves of 4/3 n³ operations: products of matrices, and of one triangle with vectors.

    A symmetric product with a vector reads 8 bytes for four operations.
    """
    return 2 / 3 * n**3 / product + 4 / 3 * n**3 / memory


def _singular_values(n: float, product: float, memory: float) -> float:
    """Two halves of 8/3 n³ operations, of which the second reads 8 bytes for two."""
    return 4 / 3 * n**3 / product + 16 / 3 * n**3 / memory


def rates(device: torch.device) -> Rates:
    """The rates of a device with the threads that are in use now."""
    return _measured(device, torch.get_num_threads())


@cache
def _measured(device: torch.device, threads: int) -> Rates:  # noqa: ARG001 — a rate for each
    draws = torch.Generator().manual_seed(0)
    matrix = torch.randn(PRODUCT, PRODUCT, generator=draws, dtype=torch.float64).to(device)
    product = 2.0 * PRODUCT**3 / _best(lambda: matrix @ matrix, device)
    wide = torch.ones(VECTOR, VECTOR, dtype=torch.float64, device=device)
    memory = wide.nbytes / _best(lambda: wide @ wide[0], device)
    block = matrix[:SMALL, :SMALL]
    small = block @ block.T
    shifted = (small + torch.eye(SMALL, dtype=small.dtype, device=device)).cpu().numpy()
    values = _best(lambda: torch.linalg.eigvalsh(small), device)
    both = _best(lambda: torch.linalg.eigh(small), device)
    singular = _best(lambda: torch.linalg.svdvals(block), device)
    cholesky = _best(lambda: dpotrf(shifted.T, lower=0), device)
    text = bytes(HASHED)
    hashing = HASHED / _best(lambda: hashlib.sha256(text), torch.device("cpu"))

    def touch() -> None:
        empty(TOUCHED // 8, device=device).fill_(1.0)

    return Rates(
        product=product,
        memory=memory,
        touch=TOUCHED / _best(touch, device),
        hashing=hashing,
        values=max(0.0, values - _eigenvalues(SMALL, product, memory)) / SMALL**2,
        vectors=max(0.0, both - values) / SMALL**3,
        singular=max(0.0, singular - _singular_values(SMALL, product, memory)) / SMALL**2,
        cholesky=SMALL**3 / 3 / cholesky,
    )


def _best(work: Callable[[], object], device: torch.device, tries: int = 3) -> float:
    """Seconds of the quickest of some tries."""
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        found = work()
        if device.type != "cpu" and isinstance(found, torch.Tensor):
            # Reading a number waits for a device that works on its own.
            float(found.flatten()[0])
        best = min(best, time.perf_counter() - start)
    return max(best, 1e-9)
