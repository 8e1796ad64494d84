"""Where a walk is going: what is to be taken away from θ, in which metric, and how far it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightlike.errors import ChoiceError, ModelError, choice_error
from lightlike.numbers import check_positive
from lightlike.problem.isolation import isolated
from lightlike.problem.parameters import Point, point
from lightlike.problem.problem import Problem
from lightlike.vectors import is_vector

NAMES = ["'norm'", "'sparse'", "'grid'", "a state dict or vector (D,)", "a function of θ"]

# η of the reweighting, as a share of the mean way.
ETA = 0.03


class Objective(ABC):
    """What a walk makes smaller.

    Attributes:
        name: For the record.
        longest: Largest multiple of `pull` that makes sense as one step.
        snaps: Whether weights near their goal are put on it, and stay.
    """

    name: str
    longest: ClassVar[float] = 1.0
    snaps: ClassVar[bool] = False

    @abstractmethod
    def value(self, theta: Tensor) -> float:
        """The objective at θ (D,)."""

    @abstractmethod
    def pull(self, theta: Tensor) -> tuple[Tensor, Tensor | None]:
        """What to take away from θ (D,), and the weights W of the metric of steps or None."""

    def goal(self, theta: Tensor) -> Tensor:
        """Where each weight would be put, (D,)."""
        raise NotImplementedError(f"{self.name} puts no weight anywhere")


class Nearest(Objective):
    """The squared distance |θ − c|² from a point c, 0 or another model."""

    def __init__(self, name: str, centre: Tensor) -> None:
        self.name, self.centre = name, centre

    def value(self, theta: Tensor) -> float:
        """|θ − c|²."""
        return float((theta - self.centre).square().sum())

    def pull(self, theta: Tensor) -> tuple[Tensor, None]:
        """θ − c, in the plain metric."""
        return theta - self.centre, None


class Snapped(Objective):
    """As many weights as possible exactly on multiples of a step; on 0 for an infinite step.

    The guide is iteratively reweighted least squares: with d_j the way to the nearest multiple,
    Σ d_j²/w_j and w_j = |d_j| + η follow Σ |d_j|, of which few are left at its least (Daubechies,
    DeVore, Fornasier & Güntürk 2010, doi:10.1002/cpa.20303). Heavier weights, such as d_j² + η²,
    get there with fewer factorisations but through much larger weights θ.
    """

    snaps = True

    def __init__(self, name: str, step: float) -> None:
        self.name, self.step = name, step

    def goal(self, theta: Tensor) -> Tensor:
        """The nearest multiples of the step."""
        if math.isinf(self.step):
            return torch.zeros_like(theta)
        return torch.round(theta / self.step) * self.step

    def value(self, theta: Tensor) -> float:
        """Number of weights that are not on a multiple."""
        return float((theta != self.goal(theta)).sum())

    def pull(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The way to the multiples, and w scaled to a mean of 1 over weights under way."""
        d = theta - self.goal(theta)
        under_way = d != 0
        if not bool(under_way.any()):
            return d, torch.zeros_like(d)
        size = d.abs()
        weights = torch.where(under_way, size + ETA * size[under_way].mean(), 0.0)
        return d, weights / weights[under_way].mean()


class Falling(Objective):
    """Any function of θ that PyTorch can differentiate, followed down its gradient."""

    longest = math.inf

    def __init__(self, function: Callable[[Tensor], Any], theta: Tensor) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        self.function = function
        slope, size = self._slope(theta)[1].norm(), theta.norm()
        # A first step of a tenth of |θ| at most; what comes after follows the slope.
        self.scale = 0.1 * float(size if size > 0 else 1.0) / float(slope) if slope > 0 else 1.0

    def value(self, theta: Tensor) -> float:
        """The function's value."""
        return self._slope(theta)[0]

    def pull(self, theta: Tensor) -> tuple[Tensor, None]:
        """Its gradient, scaled."""
        return self.scale * self._slope(theta)[1], None

    def _slope(self, theta: Tensor) -> tuple[float, Tensor]:
        with isolated():
            leaf = theta.detach().clone().requires_grad_(True)
            value = self.function(leaf)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise ChoiceError(
                    f"The objective {self.name} does not give a scalar that depends on θ.",
                    "A walk follows its gradient.",
                    "Return one number made of the given vector by PyTorch operations.",
                )
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        found = float(value.detach())
        if not math.isfinite(found) or not bool(torch.isfinite(gradient).all()):
            raise ModelError(
                f"The objective {self.name} or its gradient is NaN or infinite.",
                "There is no direction to go in.",
                "Check it at the model's own parameters; smooth what has no slope there.",
            )
        return found, gradient


def resolve_objective(objective: Any, step: float | None, problem: Problem) -> Objective:
    """An objective from a name, another model or a function.

    Raises:
        ChoiceError: for another name, a grid without a step, or a step without a grid.
        ParameterError: if another model does not fit, or is not finite.
    """
    named = isinstance(objective, str)
    if (step is not None) != (named and objective == "grid"):
        raise ChoiceError(
            f"step={step!r} does not go with the objective {objective!r}.",
            "The step is the distance between the points of a grid.",
            "Give it with 'grid', and with nothing else.",
        )
    if named and objective == "grid":
        check_positive("step", step)
        assert step is not None
        return Snapped("grid", float(step))
    if named and objective == "norm":
        return Nearest("norm", torch.zeros_like(problem.theta))
    if named and objective == "sparse":
        return Snapped("sparse", math.inf)
    if is_vector(objective) or isinstance(objective, Mapping | nn.Module):
        return Nearest("model", _centre(objective, problem))
    if callable(objective):
        return Falling(objective, problem.theta)
    raise choice_error("objective", objective, NAMES)


def _centre(other: Point, problem: Problem) -> Tensor:
    evaluator, selection = problem.evaluator, problem.selection
    found = point(other, selection, evaluator.values, evaluator.slots)
    return selection.flatten(found).detach().to(problem.theta)
