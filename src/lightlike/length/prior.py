"""What every Gaussian prior N(μ, diag σ²) on the selected parameters can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import PriorError
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

    @property
    def isotropic(self) -> bool:
        """Whether all variances are equal."""
        return bool((self.variance == self.variance[0]).all())


class Prior(ABC):
    """A Gaussian prior with independent parameters.

    A prior of one's own gives `variances`, or `moments` if it has to see the model.
    """

    mean: Mean | None = 0.0

    def variances(self, selection: Selection, like: Tensor) -> Tensor:
        """σ² of every selected parameter, (D,), on the device of `like`."""
        raise NotImplementedError(f"{type(self).__name__} gives neither variances nor moments")

    def moments(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """μ and σ² of every selected parameter, both (D,) float64."""
        theta = problem.theta
        variance = self.variances(problem.selection, theta)
        mean = 0.0 if self.mean is None else self.mean
        return named_vector(mean, problem.selection, theta, "mean"), variance

    @property
    def by_evidence(self) -> bool:
        """Whether something in it is to be fitted to the labels."""
        return False

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Name and settings, for the record."""

    def resolve(self, problem: Problem) -> ResolvedPrior:
        """The prior on a problem's parameter vector.

        Raises:
            PriorError: if a mean or variance is missing, of the wrong shape, negative or not
                finite, or all variances are zero.
        """
        mean, variance = self.moments(problem)
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
        if not bool(torch.isfinite(mean).all()):
            raise PriorError(
                "The prior mean is NaN or infinite somewhere.",
                "Every distance from it would be so too.",
                "Give finite numbers.",
            )
        return ResolvedPrior(mean, variance, 0, self.describe())


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
        if not isinstance(values, Real) or isinstance(values, bool):
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
        given = values[name]
        if isinstance(given, bool) or not isinstance(given, Real | Tensor | np.ndarray):
            raise PriorError(
                f"The prior's {what} for {entry.name!r} is {given!r}.",
                "It is not a number, nor are there numbers in it.",
                "Give a number or a tensor of the parameter's shape.",
            )
        if isinstance(given, Tensor) and (given.is_complex() or given.dtype == torch.bool):
            raise PriorError(
                f"The prior's {what} for {entry.name!r} is of {given.dtype}.",
                "Only real numbers are means or variances.",
                "Give a tensor of real numbers.",
            )
        given = given if isinstance(given, Tensor | np.ndarray) else float(given)
        value = torch.as_tensor(given, dtype=torch.float64, device=like.device).detach()
        if value.ndim and value.shape != entry.shape:
            raise PriorError(
                f"The prior's {what} for {entry.name!r} has shape {tuple(value.shape)}, the "
                f"parameter {tuple(entry.shape)}.",
                "They must correspond entry by entry.",
                "Take it from a model of the same architecture.",
            )
        parts.append(value.expand(entry.shape).reshape(-1))
    return torch.cat(parts)


def named_mean(mean: Mean) -> float | str:
    """A mean as the record has it."""
    return mean if isinstance(mean, int | float) else "given"
