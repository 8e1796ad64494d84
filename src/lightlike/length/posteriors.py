"""Gaussian posteriors over the parameters, drawn from without a D × D matrix.

All in prior units x = Σ^{-½}(θ − μ), where the prior is N(0, I), the root is B = √N A Σ^½ and
H = BᵀB. Each q has a mean m, and

    KL(q ‖ p) = ½|m|² + width,   width = ½ [tr C − D − log det C] ≥ 0,   spread = tr H C

for its covariance C. Held parameters (variance 0) stay at 0 in every one of them: B's columns are 0
there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightlike.length.eigenbasis import Eigenbasis
from lightlike.metric.root import Root
from lightlike.spectrum.symmetric import Shifted


class Posterior(ABC):
    """A Gaussian over x.

    Attributes:
        mean: m, (D,).
        width: ½ [tr C − D − log det C].
        spread: tr H C.
    """

    mean: Tensor
    width: float
    spread: float

    @abstractmethod
    def deviations(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws of x − m, (D, count)."""


class Laplace(Posterior):
    """C = (I + H)⁻¹, m = z − C(b + z) with z = Σ^{-½}(θ̂ − μ) and b = Σ^½ ∇NLL.

    Where A Aᵀ is at hand: for standard normal u ∈ R^D and v ∈ R^K, u − Bᵀ(I + B Bᵀ)⁻¹(B u + v) has
    covariance C (Papandreou & Yuille 2010; Matheron's rule). Otherwise L⁻ᵀu with L Lᵀ = I + H.

    Args:
        root: A Σ^½.
        shifted: I + c G with c G = B Bᵀ (left) or H.
        left: Which one.
        logdet: log det(I + H).
        gamma: tr H C.
        z: (D,).
        b: (D,).
    """

    def __init__(
        self,
        root: Root,
        shifted: Shifted,
        left: bool,
        logdet: float,
        gamma: float,
        z: Tensor,
        b: Tensor,
    ) -> None:
        self.root, self.shifted, self.left = root, shifted, left
        self.observations = root.problem.survey.observations
        self.width, self.spread = 0.5 * (logdet - gamma), gamma
        self.mean = self._mean(z, b)

    def deviations(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws of x − m, (D, count)."""
        rows, columns = self.root.shape
        u = normal(columns, count, generator, self.root.device)
        if not self.left:
            out: Tensor = torch.linalg.solve_triangular(self.shifted.factor.mT, u, upper=True)
            return out
        v = normal(rows, count, generator, self.root.device)
        scale = math.sqrt(self.observations)
        solved = self.shifted.solve(scale * self.root.mv(u) + v)
        return u - scale * self.root.rmv(solved)

    def _mean(self, z: Tensor, b: Tensor) -> Tensor:
        """The mean z − C(b + z) = C(H z − b), without z itself, large along the radical."""
        n = self.observations
        if not self.left:
            image = n * self.root.rmv(self.root.mv(z)) - b
            return self.shifted.solve(image[:, None])[:, 0]
        solved = self.shifted.solve(self.root.mv(b + z)[:, None])[:, 0]
        return n * self.root.rmv(solved) - b


class MeanField(Posterior):
    """The best Gaussian with independent parameters for the quadratic loss: C = diag(I + H)⁻¹.

    Args:
        diagonal: Those of H, (D,).
        mean: That of the Laplace posterior, which it shares.
    """

    def __init__(self, diagonal: Tensor, mean: Tensor) -> None:
        self.mean, self.variance = mean, 1.0 / (1.0 + diagonal)
        # ½ Σ (v − 1 − log v) with v = 1/(1 + h).
        self.width = 0.5 * float((torch.log1p(diagonal) - diagonal * self.variance).sum())
        self.spread = float((diagonal * self.variance).sum())

    def deviations(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws of x − m, (D, count)."""
        u = normal(len(self.mean), count, generator, self.mean.device)
        return self.variance.sqrt()[:, None] * u


class Screen(Posterior):
    """The Laplace posterior along the k best determined directions, the prior along all others.

    With eigenvectors v_k of H, C = I − Σ_k (h_k/(1 + h_k)) v_k v_kᵀ.

    Args:
        basis: The v_k, with λ_k = h_k/N.
        trace: tr H.
        mean: Of the Laplace posterior; its part along the v_k is taken.
    """

    def __init__(self, basis: Eigenbasis, trace: float, mean: Tensor) -> None:
        self.basis = basis
        self.values = basis.root.problem.survey.observations * basis.values
        self.mean = basis.sum(basis.parts(mean[:, None]))[:, 0]
        shrunk = self.values / (1.0 + self.values)
        self.width = 0.5 * float((torch.log1p(self.values) - shrunk).sum())
        self.spread = float(shrunk.sum()) + max(0.0, trace - float(self.values.sum()))

    def deviations(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws of x − m, (D, count)."""
        u = normal(len(self.mean), count, generator, self.mean.device)
        # 1/√(1 + h) − 1 without cancellation.
        root = (1.0 + self.values).sqrt()
        change = -self.values / (root * (1.0 + root))
        return u + self.basis.sum(change[:, None] * self.basis.parts(u))


def normal(rows: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers, the same whatever the device, (rows, count) float64."""
    return torch.randn(rows, count, generator=generator, dtype=torch.float64).to(device)


def squared_columns(root: Root) -> Tensor:
    """The diagonal of Aᵀ A, (D,), from all rows."""
    found = torch.zeros(root.shape[1], dtype=torch.float64, device=root.device)
    for slab in root.slabs("Diagonal"):
        found += slab.square().sum(0)
    return found
