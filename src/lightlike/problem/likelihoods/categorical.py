"""Classes from logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightlike.errors import ModelError, TargetError
from lightlike.problem.likelihoods.base import (
    Likelihood,
    bregman,
    finite_targets,
    shape_error,
)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Classes from logits: log p = h_y − log Σ_j e^{h_j}; Λ = diag p − p pᵀ of rank m − 1.

    The root is diag(√p) Q where the m − 1 columns of Q are an orthonormal basis of √p^⊥, taken
    from the Householder reflection that sends √p to minus the most probable class's axis: with that
    pivot no entry suffers cancellation, however saturated the softmax is.

    Args:
        ignore_index: Labels of this value are not observations (padding, prompts).
        dim: Dimension of the output that holds the classes; 1 for (N, C, H, W) segmentation.
    """

    ignore_index: int = -100
    dim: int = -1
    name: ClassVar[str] = "categorical"

    @property
    def output_dim(self) -> int:  # type: ignore[override]
        """Where the classes are."""
        return self.dim

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """−log softmax(h)_y: (n, m), integer (n,) -> (n,). Ignored labels give 0."""
        ignored = targets == self.ignore_index
        safe = targets.masked_fill(ignored, 0).unsqueeze(-1)
        nll = -torch.log_softmax(outputs, -1).gather(-1, safe).squeeze(-1)
        return nll.masked_fill(ignored, 0.0)

    def root(self, outputs: Tensor) -> Tensor:
        """diag(√p) Q, (n, m) -> (n, m, m − 1)."""
        n, m = outputs.shape
        q = (0.5 * torch.log_softmax(outputs, -1)).exp()
        top = q.argmax(-1, keepdim=True)
        # Householder vector √p + e_top; its reflection's columns other than `top` span √p^⊥.
        w = q.scatter_add(-1, top, torch.ones_like(top, dtype=q.dtype))
        scale = 1.0 + q.gather(-1, top)
        others = torch.arange(m - 1, device=q.device).expand(n, m - 1)
        others = others + (others >= top)
        columns = -(w / scale).unsqueeze(-1) * q.gather(-1, others).unsqueeze(-2)
        columns.scatter_add_(1, others.unsqueeze(1), torch.ones_like(columns[:, :1]))
        return q.unsqueeze(-1) * columns

    def columns(self, width: int) -> int:
        """M − 1."""
        return width - 1

    def sketch(self, outputs: Tensor, draws: Tensor) -> Tensor:
        """√p ∘ (Ξ − √p √pᵀΞ) in O(m) an entry of Ξ: (n, m), (n, m, c) -> (n, m, c).

        The matrix diag √p − p √pᵀ has one column more than `root` and the same outer product. Its
        columns sum to zero, which gives the most probable class's row without cancellation.
        """
        q = (0.5 * torch.log_softmax(outputs, -1)).exp().unsqueeze(-1)
        rows = q * (draws - q * (q * draws).sum(1, keepdim=True))
        top = q.argmax(1, keepdim=True).expand(-1, 1, draws.shape[-1])
        rows.scatter_(1, top, 0.0)
        return rows.scatter_(1, top, -rows.sum(1, keepdim=True))

    def weigh(self, outputs: Tensor, x: Tensor) -> Tensor:
        """The product p ∘ (x − pᵀx): (n, m), (n, m) -> (n, m).

        A shift of x changes nothing. By that of the most probable class, whose entry is 0 then, no
        term cancels where the softmax is saturated.
        """
        p = torch.softmax(outputs, -1)
        x = x - x.gather(-1, outputs.argmax(-1, keepdim=True))
        return p * (x - (p * x).sum(-1, keepdim=True))

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Integer labels (n,)."""
        p = torch.softmax(outputs, -1)
        return torch.multinomial(p, 1, generator=generator).squeeze(-1)

    def divergence(self, start: Tensor, outputs: Tensor) -> Tensor:
        """Σ_j q_j (log q_j − log p_j), q = softmax(start): (n, m), (n, m) -> (n,).

        Written as Σ_j [p_j − q_j − q_j log(p_j/q_j)], no term of which is negative.
        """
        a, b = torch.log_softmax(start, -1), torch.log_softmax(outputs, -1)
        return bregman(a, b).sum(-1)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether the label is the most probable class: (n, m), integer (n,) -> (n,)."""
        return (outputs.argmax(-1) == targets).to(outputs.dtype)

    def arrange(self, targets: Tensor, positions: torch.Size, width: int) -> Tensor:
        """Check that labels are whole numbers in 0..m−1 (or ignored) and flatten them."""
        if targets.shape != positions:
            if targets.shape == (*positions, 1):
                targets = targets.squeeze(-1)
            else:
                raise shape_error(targets, tuple(positions), self.name)
        if targets.is_floating_point() or targets.is_complex():
            finite_targets(targets)
            if not bool((targets == targets.round()).all()):
                raise TargetError(
                    "Class labels are not whole numbers.",
                    "The categorical likelihood needs the index of one class an observation.",
                    "Pass integer labels, or one-hot/soft labels turned into indices by argmax.",
                )
        targets = targets.reshape(-1).long()
        counted = targets[targets != self.ignore_index]
        if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= width):
            raise TargetError(
                f"Class labels run from {int(counted.min())} to {int(counted.max())}, "
                f"the model has {width} outputs (classes 0 to {width - 1}).",
                "A label without an output has no probability.",
                "Renumber the labels, widen the last layer, or mark them with "
                f"ignore_index={self.ignore_index}.",
            )
        return targets

    def observed(self, targets: Tensor) -> Tensor | None:
        """Mask of labels that are not ignore_index, or None if all count."""
        mask = targets != self.ignore_index
        return None if bool(mask.all()) else mask

    def check_outputs(self, width: int) -> None:
        """At least two classes."""
        if width < 2:
            raise ModelError(
                f"The model gives {width} logit for each observation.",
                "A categorical distribution needs two or more classes.",
                "Use likelihood='bernoulli' for one logit, or Categorical(dim=...) if the classes "
                "are not in the last dimension.",
            )

    def uniform_nll(self, width: int) -> float:
        """Log m."""
        return math.log(width)

    def label_entropy(self, targets: Tensor) -> float:
        """−Σ f log f over the observed class frequencies f."""
        counts = torch.bincount(targets[targets != self.ignore_index]).double()
        f = counts[counts > 0] / counts.sum()
        return float(torch.special.entr(f).sum())

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {"name": self.name, "ignore_index": self.ignore_index, "dim": self.dim}
