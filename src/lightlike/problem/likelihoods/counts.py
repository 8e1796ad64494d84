"""Coins and counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightlike.errors import TargetError
from lightlike.problem.likelihoods.base import Diagonal, bregman


@dataclass(frozen=True)
class Bernoulli(Diagonal):
    """Independent coins from logits (multi-label): Λ = diag p(1 − p), p = sigmoid(h)."""

    name: ClassVar[str] = "bernoulli"

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Σ_j softplus(h_j) − y_j h_j, written without cancellation: (n, m), (n, m) -> (n,)."""
        signed = torch.where(targets > 0.5, -outputs, outputs)
        return torch.nn.functional.softplus(signed).sum(-1)

    def deviations(self, outputs: Tensor) -> Tensor:
        """√(p(1 − p)), (n, m) -> (n, m)."""
        half = torch.nn.functional.logsigmoid(outputs) + torch.nn.functional.logsigmoid(-outputs)
        return (0.5 * half).exp()

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels 0.0 or 1.0, (n, m)."""
        return torch.bernoulli(torch.sigmoid(outputs), generator=generator)

    def divergence(self, start: Tensor, outputs: Tensor) -> Tensor:
        """Σ_j q_j log(q_j/p_j) + (1 − q_j) log((1 − q_j)/(1 − p_j)): (n, m), (n, m) -> (n,)."""
        log = torch.nn.functional.logsigmoid
        heads = bregman(log(start), log(outputs))
        return (heads + bregman(log(-start), log(-outputs))).sum(-1)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Share of coins that show the more probable side: (n, m), (n, m) -> (n,)."""
        return ((outputs > 0) == (targets > 0.5)).to(outputs.dtype).mean(-1)

    def arrange(self, targets: Tensor, positions: torch.Size, width: int) -> Tensor:
        """Check that labels are 0 or 1 and flatten them."""
        targets = super().arrange(targets, positions, width)
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise TargetError(
                f"Bernoulli labels run from {float(targets.min()):g} to {float(targets.max()):g}.",
                "A coin shows 0 or 1; anything else has no probability.",
                "Threshold the labels, or use likelihood='categorical' for classes.",
            )
        return targets

    def uniform_nll(self, width: int) -> float:
        """M log 2."""
        return width * math.log(2)

    def label_entropy(self, targets: Tensor) -> float:
        """Sum of the binary entropies of the observed frequencies."""
        f = targets.double().mean(0)
        return float((torch.special.entr(f) + torch.special.entr(1 - f)).sum())


@dataclass(frozen=True)
class Poisson(Diagonal):
    """Independent counts from log rates: log p = y h − e^h − log y!; Λ = diag e^h."""

    name: ClassVar[str] = "poisson"

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Σ_j e^{h_j} − y_j h_j + log y_j!: (n, m), (n, m) -> (n,)."""
        return (outputs.exp() - targets * outputs + torch.lgamma(targets + 1)).sum(-1)

    def deviations(self, outputs: Tensor) -> Tensor:
        """e^{h/2}, (n, m) -> (n, m)."""
        return (0.5 * outputs).exp()

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts as floats, (n, m)."""
        return torch.poisson(outputs.exp(), generator=generator)

    def divergence(self, start: Tensor, outputs: Tensor) -> Tensor:
        """Σ_j e^{h_j} − e^{g_j} − e^{g_j} (h_j − g_j), g = start: (n, m), (n, m) -> (n,)."""
        return bregman(start, outputs).sum(-1)

    def arrange(self, targets: Tensor, positions: torch.Size, width: int) -> Tensor:
        """Check that labels are counts and flatten them."""
        targets = super().arrange(targets, positions, width)
        if not bool(((targets >= 0) & (targets == targets.round())).all()):
            raise TargetError(
                f"Poisson labels run from {float(targets.min()):g} to {float(targets.max()):g} "
                "and are not all whole numbers from 0 up.",
                "Only counts have a probability under a Poisson distribution.",
                "Pass counts, or use likelihood='gaussian' for measurements.",
            )
        return targets
