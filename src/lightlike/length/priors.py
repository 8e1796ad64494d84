"""Gaussian priors N(μ, diag σ²) on the selected parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from lightlike.errors import PriorError, choice_error
from lightlike.problem.parameters import Selection
from lightlike.problem.problem import Problem

Mean = float | Mapping[str, Tensor]


@dataclass(frozen=True)
class ResolvedPrior:
    """A prior on one problem's parameter vector.

    Attributes:
        mean: μ, (D,).
        variance: σ², (D,); zeros are parameters held at their mean.
        tuned: Numbers that were fitted to the data.
        description: For the record.
    """

    mean: Tensor
    variance: Tensor
    tuned: int
    description: dict[str, object]


class Prior(ABC):
    """A Gaussian prior with independent parameters."""

    mean: Mean

    @abstractmethod
    def variances(self, selection: Selection, like: Tensor) -> Tensor:
        """σ² of every selected parameter, (D,), on the device of `like`."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Name and settings, for the record."""

    def resolve(self, problem: Problem) -> ResolvedPrior:
        """The prior on a problem's parameter vector.

        Raises:
            PriorError: if a mean or variance is missing, of the wrong shape, negative or not
                finite, or all variances are zero.
        """
        theta = problem.theta
        variance = self.variances(problem.selection, theta)
        if not bool(torch.isfinite(variance).all()) or bool((variance < 0).any()):
            raise PriorError(
                "A prior variance is negative, NaN or infinite.",
                "Such a prior is improper and gives no code length.",
                "Give finite variances, 0 for parameters that are held fixed.",
            )
        if not bool((variance > 0).any()):
            raise PriorError(
                "All prior variances are zero.",
                "Nothing is left to be described.",
                "Give at least one parameter a positive variance.",
            )
        mean = named_vector(self.mean, problem.selection, theta, "mean")
        if not bool(torch.isfinite(mean).all()):
            raise PriorError(
                "The prior mean is NaN or infinite somewhere.",
                "Every distance from it would be so too.",
                "Give finite numbers.",
            )
        return ResolvedPrior(mean, variance, 0, self.describe())


@dataclass(frozen=True)
class Isotropic(Prior):
    """N(μ, σ² I).

    Args:
        variance: σ², or "evidence" to maximise the evidence over it (empirical Bayes), which costs
            at most ½ log N more for the tuned number; that is reported beside the length.
        mean: μ: 0, another number, or a state dict (initialisation, pretrained weights).
    """

    variance: float | str = 1.0
    mean: Mean = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.variance, str):
            if self.variance != "evidence":
                raise choice_error("variance", self.variance, ["a positive number", "'evidence'"])
        elif not (
            isinstance(self.variance, Real) and math.isfinite(self.variance) and self.variance > 0
        ):
            raise PriorError(
                f"Isotropic(variance={self.variance!r}) is not a proper prior.",
                "Only a finite positive variance gives a code length.",
                "Give such a number, or 'evidence' to have it fitted.",
            )

    @property
    def by_evidence(self) -> bool:
        """Whether the variance is fitted to the data."""
        return self.variance == "evidence"

    def variances(self, selection: Selection, like: Tensor) -> Tensor:
        """σ² everywhere; 1 where it is still to be fitted."""
        value = 1.0 if isinstance(self.variance, str) else self.variance
        return torch.full((selection.size,), value, dtype=torch.float64, device=like.device)

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {
            "name": "isotropic",
            "variance": self.variance if isinstance(self.variance, str) else float(self.variance),
            "mean": self.mean if isinstance(self.mean, int | float) else "given",
        }


@dataclass(frozen=True)
class PerParameter(Prior):
    """N(μ, diag σ²) with a variance for every parameter.

    Args:
        variance: A vector (D,) in the order of the selected parameters, or a mapping from every
            selected parameter's name to a number or a tensor of its shape. 0 holds a parameter at
            its mean.
        mean: μ: 0, another number, or a state dict.
    """

    variance: Tensor | Mapping[str, float | Tensor]
    mean: Mean = field(default=0.0)

    def variances(self, selection: Selection, like: Tensor) -> Tensor:
        """σ² of every selected parameter."""
        if isinstance(self.variance, Tensor):
            if self.variance.shape != (selection.size,):
                raise PriorError(
                    f"The variances have shape {tuple(self.variance.shape)}, "
                    f"the selected parameters call for ({selection.size},).",
                    "Each parameter needs its own variance.",
                    "Give one number each, in the order of the model's parameters.",
                )
            return self.variance.detach().to(like.device, torch.float64)
        return named_vector(self.variance, selection, like, "variance")

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {
            "name": "per_parameter",
            "mean": self.mean if isinstance(self.mean, int | float) else "given",
        }


def resolve_prior(prior: Prior | None) -> Prior:
    """The prior itself, or the default N(0, I).

    Raises:
        ChoiceError: if it is something else.
    """
    if prior is None:
        return Isotropic()
    if not isinstance(prior, Prior):
        raise choice_error("prior", prior, ["None", "an object from lightlike.priors"])
    return prior


def named_vector(
    values: float | Mapping[str, float | Tensor] | Mapping[str, Tensor],
    selection: Selection,
    like: Tensor,
    what: str,
) -> Tensor:
    """One number, or numbers and tensors by parameter name, as a vector (D,).

    Raises:
        PriorError: if a selected parameter is missing or its tensor has another shape.
    """
    if not isinstance(values, Mapping):
        if not isinstance(values, Real):
            raise PriorError(
                f"The prior's {what} is a {type(values).__name__}.",
                "Which entry belongs to which parameter is not known.",
                "Give one number, or a mapping from parameter names such as a state dict.",
            )
        return torch.full_like(like, float(values))
    parts = []
    for entry in selection.entries:
        name = next((n for n in (entry.name, *entry.aliases) if n in values), None)
        if name is None:
            raise PriorError(
                f"The prior's {what} has no entry for parameter {entry.name!r}.",
                "A default would be a silent choice of prior.",
                "Give an entry for every selected parameter.",
            )
        value = torch.as_tensor(values[name], dtype=torch.float64, device=like.device).detach()
        if value.ndim and value.shape != entry.shape:
            raise PriorError(
                f"The prior's {what} for {entry.name!r} has shape {tuple(value.shape)}, the "
                f"parameter {tuple(entry.shape)}.",
                "They must correspond entry by entry.",
                "Take it from a model of the same architecture.",
            )
        parts.append(value.expand(entry.shape).reshape(-1))
    return torch.cat(parts)
