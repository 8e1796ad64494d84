"""Low-rank approximation from one block of random products, and how far it is from the matrix.

With G (D, l) standard normal and Y = A G, the Nyström approximation is Y (GᵀY)⁺ Yᵀ, positive
semi-definite and nowhere above A (Halko, Martinsson & Tropp 2011, doi:10.1137/090771806; cut down
to rank k as in Tropp, Yurtsever, Udell & Cevher 2017, arXiv 1706.05736). A bound after the fact on
‖M‖, M = A − A_k: for the leading unit eigenvector u of a symmetric M and standard normal w,
|M w| ≥ ‖M‖ |uᵀw|, so that with q such vectors

    ‖M‖ ≤ α max |M w|,  except with probability P(|N(0, 1)| ≤ 1/α)^q ≤ (√(2/π) / α)^q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import erfinv
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.numbers import check_positive, check_seed, check_share, check_whole
from lightlike.spectrum.matrices import device_of, multiplied
from lightlike.spectrum.rounding import EPS

# Vectors beyond the rank that is asked for, which the range finder needs to be near the best.
OVERSAMPLING = 10
# Relative size of negative eigenvalues that pass for rounding.
NEGATIVE = 1e-8


@dataclass(frozen=True)
class LowRank:
    """A_k = U diag(λ) Uᵀ, a low-rank approximation of a positive semi-definite A.

    Attributes:
        eigenvalues: λ, descending, (k,) float64.
        vectors: U, orthonormal columns (D, k) float64.
        error: A bound on ‖A − A_k‖, the largest singular value.
        chance: Probability at most that it does not hold.
        products: Products with one vector that were made.
    """

    eigenvalues: Tensor
    vectors: Tensor
    error: float
    chance: float
    products: int

    @property
    def shape(self) -> tuple[int, int]:
        """(D, D)."""
        return len(self.vectors), len(self.vectors)

    def __matmul__(self, v: Tensor) -> Tensor:
        """A_k v for one vector (D,) or a block (D, c)."""
        inner = self.vectors.T @ v
        scaled: Tensor = (
            self.eigenvalues * inner if v.ndim == 1 else self.eigenvalues[:, None] * inner
        )
        return self.vectors @ scaled

    def precondition(self, v: Tensor, damping: float) -> Tensor:
        """P⁻¹ v, which makes conjugate gradients on A + μ I converge in few steps.

        P⁻¹ = (λ_k + μ) U (diag(λ) + μ)⁻¹ Uᵀ + (I − U Uᵀ) (Frangella, Tropp & Udell 2023,
        arXiv 2110.02820): the condition number left is (λ_k + μ + ‖A − A_k‖) / μ at most.

        Args:
            v: One vector (D,) or a block (D, c).
            damping: μ > 0.
        """
        check_positive("damping", damping)
        least = float(self.eigenvalues[-1]) if len(self.eigenvalues) else 0.0
        inner = self.vectors.T @ v
        factor = (least + damping) / (self.eigenvalues + damping) - 1.0
        scaled: Tensor = factor * inner if v.ndim == 1 else factor[:, None] * inner
        return v + self.vectors @ scaled


def nystrom(
    op: Any,
    rank: int,
    *,
    oversampling: int = OVERSAMPLING,
    probes: int = 10,
    chance: float = 1e-6,
    seed: int = 0,
) -> LowRank:
    """A low-rank approximation of a symmetric positive semi-definite A, and a bound on its error.

    It takes rank + oversampling + probes products in two blocks; `lanczos` comes closer to the
    leading eigenvalues themselves, one product after another.

    Args:
        op: A tensor, an array, or an operator with `shape` and `@`.
        rank: k.
        oversampling: Random vectors beyond it.
        probes: q, random vectors that the error is seen with.
        chance: Probability that is allowed of the bound not to hold.
        seed: Of the random vectors.

    Raises:
        ChoiceError: if an option makes no sense.
        EstimateError: if a product is not finite.
        ValueError: if the operator is not square or not positive semi-definite.
    """
    for name, value, least in (
        ("rank", rank, 1),
        ("oversampling", oversampling, 0),
        ("probes", probes, 1),
    ):
        check_whole(name, value, least)
    check_share("chance", chance)
    check_seed(seed)
    operator, device = multiplied(op), device_of(op)
    size = int(operator.shape[0])
    random = torch.Generator().manual_seed(seed)
    count = min(rank + oversampling, size)
    start = torch.randn(size, count, generator=random, dtype=torch.float64).to(device)
    values, vectors = approximation(start, _products(operator, start), min(rank, size))
    w = torch.randn(size, probes, generator=random, dtype=torch.float64).to(device)
    image = _products(operator, w)
    apart = image - vectors @ (values[:, None] * (vectors.T @ w))
    # α with P(|N(0, 1)| ≤ 1/α) = chance^{1/q}, and what rounding adds.
    within = math.sqrt(2.0) * float(erfinv(chance ** (1.0 / probes)))
    largest = float(apart.norm(dim=0).max()) if size else 0.0
    top = float(values[0]) if len(values) else 0.0
    return LowRank(
        eigenvalues=values,
        vectors=vectors,
        error=largest / within + 10.0 * math.sqrt(count) * EPS * top,
        chance=chance,
        products=count + probes,
    )


def approximation(start: Tensor, image: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (≤ k) and vectors (D, ≤ k) of the Nyström approximation.

    Args:
        start: G, (D, l).
        image: A G.
        rank: k.

    Raises:
        ValueError: if GᵀAG has a clearly negative eigenvalue.
    """
    basis, triangle = torch.linalg.qr(start)
    # Of orthonormal columns Q in place of G: A Q = A G R⁻¹.
    image = torch.linalg.solve_triangular(triangle, image, upper=True, left=False)
    norm = float(torch.linalg.matrix_norm(image)) if image.numel() else 0.0
    if not norm:
        return image.new_zeros(0), image[:, :0]
    core = basis.T @ image
    core = (core + core.T) / 2
    inner, turned = torch.linalg.eigh(core)
    if float(inner[0]) < -NEGATIVE * norm:
        raise ValueError(
            f"the operator is not positive semi-definite: xᵀA x = {float(inner[0]):.3g} for a unit "
            f"vector, where ‖A Q‖ = {norm:.3g}"
        )
    # Directions whose part of the core is rounding would be divided by it.
    kept = inner > math.sqrt(len(core)) * EPS * norm * 10.0
    half = (image @ turned[:, kept]) / inner[kept].sqrt()
    left, singular, _ = torch.linalg.svd(half, full_matrices=False)
    held = min(rank, len(singular))
    return singular[:held].square(), left[:, :held].contiguous()


def _products(operator: Any, block: Tensor) -> Tensor:
    found = torch.as_tensor(operator @ block).to(block.device, torch.float64)
    if not bool(found.isfinite().all()):
        raise EstimateError(
            "A product of the operator has entries that are not finite.",
            "Nothing that follows from it would be a number.",
            "Look at the parameters and data for infinite or undefined values.",
        )
    return found
