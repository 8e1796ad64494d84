"""Gaussian priors N(μ, diag σ²) on the selected parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightlike.errors import PriorError, choice_error
from lightlike.length.initialisation import FromInitialisation
from lightlike.length.layerwise import PerLayer
from lightlike.length.prior import Mean, Prior, ResolvedPrior, named_mean, named_vector
from lightlike.numbers import is_finite
from lightlike.problem.parameters import Selection

__all__ = [
    "FromInitialisation",
    "Isotropic",
    "PerLayer",
    "PerParameter",
    "Prior",
    "ResolvedPrior",
    "resolve_prior",
]


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
        elif not is_finite(self.variance) or not self.variance > 0:
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
        value = 1.0 if isinstance(self.variance, str) else float(self.variance)
        return torch.full((selection.size,), value, dtype=torch.float64, device=like.device)

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {
            "name": "isotropic",
            "variance": self.variance if isinstance(self.variance, str) else float(self.variance),
            "mean": named_mean(self.mean),
        }


@dataclass(frozen=True)
class PerParameter(Prior):
    """N(μ, diag σ²) with a variance for every parameter.

    Args:
        variance: A vector (D,) in the order of the selected parameters, or a mapping from every
            selected parameter's name to a number or a tensor of its shape. 0 holds a parameter at
            its mean. A name that no parameter of the model has is an error.
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
            if self.variance.is_complex():
                raise PriorError(
                    f"The variances are of type {self.variance.dtype}.",
                    "A variance is a real number; its imaginary part would be dropped.",
                    "Give real numbers.",
                )
            return self.variance.detach().to(like.device, torch.float64)
        self._check_names(self.variance, selection)
        return named_vector(self.variance, selection, like, "variance")

    def describe(self) -> dict[str, object]:
        """Name and settings."""
        return {
            "name": "per_parameter",
            "mean": named_mean(self.mean),
        }

    @staticmethod
    def _check_names(names: object, selection: Selection) -> None:
        known = {n for entry in selection.entries for n in (entry.name, *entry.aliases)}
        for name in names if isinstance(names, Mapping) else ():
            if name not in known and name not in selection.excluded:
                raise PriorError(
                    f"PerParameter's {name!r} gives no parameter its variance.",
                    "It may be misspelt, and another parameter go without what was meant for it.",
                    f"The parameters are: {', '.join(map(repr, sorted(known)))}.",
                )


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
