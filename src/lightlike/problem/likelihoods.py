"""Output distributions p(y | h): negative log-likelihood, whitening factor of the score, sampling.

With natural parameter h and score s = ∂ log p(y | h)/∂h, every likelihood gives a root L(h) of the
score's covariance, E_y[s sᵀ] = L Lᵀ, with exactly rank(E[s sᵀ]) columns (theory: Sun & Nielsen,
arXiv 1905.11027). All functions act on a batch of n observations: outputs are (n, m), roots
(n, m, r) and negative log-likelihoods (n,), in nats and with every constant included.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, ModelError, TargetError, choice_error

LOG_2PI = math.log(2 * math.pi)


class Likelihood(ABC):
    """What turns a model's outputs into a distribution over labels. Subclass it for your own.

    A subclass implements `nll`, `root` and `sample`. The last dimension of the model's output
    (or `output_dim`) holds the m parameters of one observation; every other dimension counts
    observations.
    """

    name: ClassVar[str] = "custom"
    output_dim: int = -1

    @abstractmethod
    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """−log p(y | h) of each observation: (n, m), (n, ...) -> (n,)."""

    @abstractmethod
    def root(self, outputs: Tensor) -> Tensor:
        """L with L Lᵀ = E_y[s sᵀ], s the score in h: (n, m) -> (n, m, r), r its rank."""

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one label for each observation: (n, m) -> (n, ...), in the form `nll` takes."""

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

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Integer labels (n,)."""
        p = torch.softmax(outputs, -1)
        return torch.multinomial(p, 1, generator=generator).squeeze(-1)

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


@dataclass(frozen=True)
class Gaussian(Elementwise):
    """Independent N(h, s²) for every output, s² known: Λ = I/s², root I/s.

    Args:
        variance: The noise variance s² > 0.
    """

    variance: float = 1.0
    name: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        real = isinstance(self.variance, Real)
        if not (real and math.isfinite(self.variance) and self.variance > 0):
            raise ChoiceError(
                f"Gaussian(variance={self.variance!r}) has no density.",
                "The noise variance divides every residual.",
                "Give a finite number above 0.",
            )

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """½ Σ_j [(y_j − h_j)²/s² + log 2πs²]: (n, m), (n, m) -> (n,)."""
        squares = (outputs - targets).square().sum(-1) / self.variance
        return 0.5 * (squares + outputs.shape[-1] * (LOG_2PI + math.log(self.variance)))

    def root(self, outputs: Tensor) -> Tensor:
        """I/s, (n, m) -> (n, m, m)."""
        eye = torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
        return (eye / math.sqrt(self.variance)).expand(len(outputs), -1, -1)

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels (n, m)."""
        return outputs + math.sqrt(self.variance) * _normal_like(outputs, generator)

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {"name": self.name, "variance": self.variance}


@dataclass(frozen=True)
class HeteroscedasticGaussian(Elementwise):
    """N(μ, e^v) with mean and log-variance heads, h = (μ_1..μ_q, v_1..v_q).

    The score's covariance in (μ, v) is diag(e^{−v}, ½); its root is the square root of that. The
    parametrisation is not the natural one, so the metric is the Fisher matrix and not the
    generalised Gauss–Newton matrix's Hessian reading.
    """

    name: ClassVar[str] = "heteroscedastic_gaussian"

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """½ Σ_j [(y_j − μ_j)² e^{−v_j} + v_j + log 2π]: (n, 2q), (n, q) -> (n,)."""
        mean, log_variance = outputs.chunk(2, -1)
        squares = (targets - mean).square() * (-log_variance).exp()
        return 0.5 * (squares + log_variance + LOG_2PI).sum(-1)

    def root(self, outputs: Tensor) -> Tensor:
        """diag(e^{−v/2}, √½), (n, 2q) -> (n, 2q, 2q)."""
        log_variance = outputs.chunk(2, -1)[1]
        half = torch.full_like(log_variance, math.sqrt(0.5))
        return torch.diag_embed(torch.cat([(-0.5 * log_variance).exp(), half], -1))

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels (n, q)."""
        mean, log_variance = outputs.chunk(2, -1)
        return mean + (0.5 * log_variance).exp() * _normal_like(mean, generator)

    def target_width(self, width: int) -> int:
        """Half the outputs are means."""
        return width // 2

    def check_outputs(self, width: int) -> None:
        """An even number of outputs."""
        if width % 2:
            raise ModelError(
                f"The model gives {width} outputs for each observation.",
                "Mean and log-variance heads come in pairs: first all means, then all "
                "log-variances.",
                "Give the model an even number of outputs, or use Gaussian(variance=...).",
            )


@dataclass(frozen=True)
class Bernoulli(Elementwise):
    """Independent coins from logits (multi-label): Λ = diag p(1 − p), p = sigmoid(h)."""

    name: ClassVar[str] = "bernoulli"

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Σ_j softplus(h_j) − y_j h_j, written without cancellation: (n, m), (n, m) -> (n,)."""
        signed = torch.where(targets > 0.5, -outputs, outputs)
        return torch.nn.functional.softplus(signed).sum(-1)

    def root(self, outputs: Tensor) -> Tensor:
        """Diagonal √(p(1 − p)), (n, m) -> (n, m, m)."""
        half = torch.nn.functional.logsigmoid(outputs) + torch.nn.functional.logsigmoid(-outputs)
        return torch.diag_embed((0.5 * half).exp())

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels 0.0 or 1.0, (n, m)."""
        return torch.bernoulli(torch.sigmoid(outputs), generator=generator)

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
class Poisson(Elementwise):
    """Independent counts from log rates: log p = y h − e^h − log y!; Λ = diag e^h."""

    name: ClassVar[str] = "poisson"

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Σ_j e^{h_j} − y_j h_j + log y_j!: (n, m), (n, m) -> (n,)."""
        return (outputs.exp() - targets * outputs + torch.lgamma(targets + 1)).sum(-1)

    def root(self, outputs: Tensor) -> Tensor:
        """Diagonal e^{h/2}, (n, m) -> (n, m, m)."""
        return torch.diag_embed((0.5 * outputs).exp())

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts as floats, (n, m)."""
        return torch.poisson(outputs.exp(), generator=generator)

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


NAMED: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Categorical, Gaussian, Bernoulli, Poisson, HeteroscedasticGaussian)
}


def resolve_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """A likelihood from its name, or the object itself.

    Raises:
        ChoiceError: for an unknown name or another type; it lists the names.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if isinstance(likelihood, str) and likelihood in NAMED:
        return NAMED[likelihood]()
    raise choice_error(
        "likelihood", likelihood, [*map(repr, NAMED), "an object from lightlike.likelihoods"]
    )


def shape_error(targets: Tensor, expected: tuple[object, ...], name: str) -> TargetError:
    """The error for labels whose shape does not follow from the outputs'."""
    return TargetError(
        f"Labels have shape {tuple(targets.shape)}; the model's outputs call for "
        f"({', '.join(map(str, expected))}) under the {name} likelihood.",
        "Broadcasting them silently would pair labels with the wrong outputs.",
        "Reshape the labels, or say where the classes are with Categorical(dim=...).",
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


def _normal_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
