"""What every likelihood can do, and the checks that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightlike.errors import TargetError


class Likelihood(ABC):
    """What turns a model's outputs into a distribution over labels. Subclass it for your own.

    A subclass implements `nll`, `root` and `sample`. The last dimension of the model's output
    (or `output_dim`) holds the m parameters of one observation; every other dimension counts
    observations. Where outputs are wide, `columns`, `sketch` and `weigh` may be given too, so that
    no root is ever made; a subclass that gives another `root` falls back to their general form.
    """

    name: ClassVar[str] = "custom"
    output_dim: int = -1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "root" in vars(cls):
            # What an ancestor says of its own root does not hold for this one.
            for name in ("columns", "sketch", "weigh"):
                if name not in vars(cls):
                    setattr(cls, name, getattr(Likelihood, name))
        if {"root", "nll"} & set(vars(cls)) and "divergence" not in vars(cls):
            # Nor does the closed form for an ancestor's distribution.
            cls.divergence = Likelihood.divergence  # type: ignore[method-assign]

    @abstractmethod
    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """−log p(y | h) of each observation: (n, m), (n, ...) -> (n,)."""

    @abstractmethod
    def root(self, outputs: Tensor) -> Tensor:
        """L with L Lᵀ = E_y[s sᵀ], s the score in h: (n, m) -> (n, m, r), r its rank."""

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one label for each observation: (n, m) -> (n, ...), in the form `nll` takes."""

    def columns(self, width: int) -> int | None:  # noqa: ARG002
        """Columns of `root` for outputs with `width` entries; None if it must be made to know."""
        return None

    def sketch(self, outputs: Tensor, draws: Tensor) -> Tensor:
        """L Ξ with E[L Ξ Ξᵀ Lᵀ] = Λ for random Ξ with E[Ξ Ξᵀ] = I: (n, m), (n, s, c) -> (n, m, c).

        The draws have s = max(m, r) rows, of which this form uses the first r. Theory: row
        sketches of the Fisher matrix's root, arXiv 2505.13614.
        """
        root = self.root(outputs)
        return root @ draws[:, : root.shape[-1]]

    def weigh(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Λ x: (n, m), (n, m) -> (n, m)."""
        root = self.root(outputs)
        return (root @ (root.mT @ x.unsqueeze(-1))).squeeze(-1)

    def divergence(self, start: Tensor, outputs: Tensor) -> Tensor:
        """KL(p(· | start) ‖ p(· | h)) of each observation in nats: (n, m), (n, m) -> (n,).

        This general form is ½ δᵀ Λ(start) δ with δ = h − start, its second-order term only;
        `divergence_kind` tells. Give the closed form where there is one.
        """
        change = outputs - start
        return 0.5 * (change * self.weigh(start, change)).sum(-1)

    @property
    def divergence_kind(self) -> str:
        """What `divergence` gives: "exact", or "second-order"."""
        general = type(self).divergence is Likelihood.divergence
        return "second-order" if general else "exact"

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor | None:  # noqa: ARG002
        """Share of an observation's labels that are the most probable ones, (n,).

        None where labels are not a choice.
        """
        return None

    def arrange(self, targets: Tensor, positions: torch.Size, width: int) -> Tensor:  # noqa: ARG002
        """Check labels against outputs of shape (*positions, width) and flatten them to (n, ...).

        Raises:
            TargetError: if there is not one label for each position, or an entry is not finite.
        """
        if targets.shape[: len(positions)] != positions:
            raise shape_error(targets, (*positions, "..."), self.name)
        targets = targets.reshape(-1, *targets.shape[len(positions) :])
        return finite_targets(targets.double()) if targets.is_floating_point() else targets

    def observed(self, targets: Tensor) -> Tensor | None:  # noqa: ARG002
        """Mask of the observations that count, or None if all do. Takes arranged labels."""
        return None

    def check_outputs(self, width: int) -> None:  # noqa: B027
        """Raise a ModelError if outputs with `width` entries cannot be this likelihood's."""

    def uniform_nll(self, width: int) -> float | None:  # noqa: ARG002
        """Nats per observation of a code that knows nothing; None where labels are not discrete."""
        return None

    def label_entropy(self, targets: Tensor) -> float | None:  # noqa: ARG002
        """Empirical entropy of the labels in nats per observation; None where not discrete."""
        return None

    def describe(self) -> dict[str, object]:
        """Name and settings, for the record."""
        return {"name": self.name}


class Elementwise(Likelihood):
    """Labels are numbers, `target_width` of them an observation, each with a density of its own."""

    def target_width(self, width: int) -> int:
        """Number of label entries of one observation whose output has `width` entries."""
        return width

    def arrange(self, targets: Tensor, positions: torch.Size, width: int) -> Tensor:
        """Labels of shape (*positions, w), or (*positions,) if w = 1, become (n, w) in float64.

        Raises:
            TargetError: if the shape is another, or an entry is not finite.
        """
        expected = (*positions, self.target_width(width))
        if targets.shape == positions and expected[-1] == 1:
            targets = targets.unsqueeze(-1)
        if tuple(targets.shape) != expected:
            raise shape_error(targets, expected, self.name)
        return finite_targets(targets.reshape(-1, expected[-1])).double()


class Diagonal(Elementwise):
    """Labels whose scores are uncorrelated: Λ is diagonal."""

    @abstractmethod
    def deviations(self, outputs: Tensor) -> Tensor:
        """√diag Λ, (n, m) -> (n, m)."""

    def root(self, outputs: Tensor) -> Tensor:
        """The diagonal matrix √Λ, (n, m) -> (n, m, m)."""
        return torch.diag_embed(self.deviations(outputs))

    def columns(self, width: int) -> int:
        """As many as outputs."""
        return width

    def sketch(self, outputs: Tensor, draws: Tensor) -> Tensor:
        """√Λ ∘ Ξ: (n, m), (n, m, c) -> (n, m, c)."""
        return self.deviations(outputs).unsqueeze(-1) * draws

    def weigh(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Λ ∘ x: (n, m), (n, m) -> (n, m)."""
        return self.deviations(outputs).square() * x


def bregman(a: Tensor, b: Tensor) -> Tensor:
    """The divergence e^b − e^a − e^a (b − a) ≥ 0 of e^a from e^b, entry by entry."""
    start, end = a.exp(), b.exp()
    return (end - start - start * (b - a)).clamp_min(0.0)


def shape_error(targets: Tensor, expected: tuple[object, ...], name: str) -> TargetError:
    """The error for labels whose shape does not follow from the outputs'."""
    classes = ", or say where the classes are with Categorical(dim=...)"
    return TargetError(
        f"Labels have shape {tuple(targets.shape)}; the model's outputs call for "
        f"({', '.join(map(str, expected))}) under the {name} likelihood.",
        "Broadcasting them silently would pair labels with the wrong outputs.",
        f"Reshape the labels{classes if name == 'categorical' else ''}.",
    )


def finite_targets(targets: Tensor) -> Tensor:
    """The labels themselves, if they are all real and finite."""
    if targets.is_complex():
        raise TargetError(
            "The labels are complex numbers.",
            "None of the likelihoods gives them a probability.",
            "Pass real labels.",
        )
    if not bool(torch.isfinite(targets).all()):
        raise TargetError(
            f"{int((~torch.isfinite(targets)).sum())} label entries are NaN or infinite.",
            "The description length would be NaN too.",
            "Drop those observations, or pass the data without labels.",
        )
    return targets
