"""How the dimension varies over parameter space: along a path, and near a point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, choice_error
from lightlike.geometry.checks import at_point, check_fisher, each
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.geometry.tables import cells, dimension_cells, render
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_positive, check_seed, check_whole
from lightlike.problem.parameters import Point
from lightlike.results import Result, fields_of

REGIONS = ("ball", "sphere")


@dataclass(frozen=True)
class DimensionPath(Result):
    """The dimension d̂(θ) at each of some points of parameter space.

    Attributes:
        dimensions: One a point, each with its bounds, kind and gap.
        distances: Euclidean distance of each from the first point, over the selected parameters.
        parameters: D.
        rows: K.
    """

    dimensions: tuple[Dimension, ...]
    distances: tuple[float, ...]
    parameters: int
    rows: int

    def _records(self) -> list[dict[str, Any]]:
        listed = zip(self.distances, self.dimensions, strict=True)
        return [{"distance": x, **dimension_cells(d)} for x, d in listed]

    def __str__(self) -> str:
        listed = enumerate(zip(self.distances, self.dimensions, strict=True))
        rows = [(f"{i}", f"{x:.4g}", *cells(d), f"{d.gap:.1f}") for i, (x, d) in listed]
        return render(
            f"Dimension at {len(rows)} points (D = {self.parameters:,}, K = {self.rows:,})",
            ("point", "distance", "dimension", "kind", "gap (log10)"),
            rows,
        )


@dataclass(frozen=True)
class DimensionNear(Result):
    """The dimension at a point and at random points near it.

    Where the network is smooth in θ, the rank is lower semicontinuous: close enough to θ it is
    nowhere less than at θ. Where it is analytic, almost all points have the greatest rank, so that
    the greatest found is a lower bound of the generic rank. A network of ReLU units is so piece by
    piece: points at which some unit is on for other observations belong to another.

    Attributes:
        here: d̂ at θ itself.
        dimensions: d̂ at each of the random points.
        radius: Of the ball or sphere around θ, Euclidean, over the selected parameters.
        region: "ball" or "sphere", from which the points are drawn uniformly.
        parameters: D.
        rows: K.
        seed: Of the points.
    """

    here: Dimension
    dimensions: tuple[Dimension, ...]
    radius: float
    region: str
    parameters: int
    rows: int
    seed: int

    @property
    def least(self) -> int:
        """The least dimension drawn."""
        return min(d.value for d in self.dimensions)

    @property
    def greatest(self) -> int:
        """The greatest dimension drawn."""
        return max(d.value for d in self.dimensions)

    @property
    def counts(self) -> dict[int, int]:
        """How many points have each dimension."""
        return dict(sorted(Counter(d.value for d in self.dimensions).items()))

    @property
    def generic(self) -> int:
        """A certain lower bound of the generic rank on these data."""
        return max(d.lower for d in (self.here, *self.dimensions))

    @property
    def singular(self) -> bool:
        """Whether the rank at θ is certainly less than at some point near it."""
        return self.here.upper < self.generic

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            **fields_of(self),
            "counts": {str(value): count for value, count in self.counts.items()},
            "least": self.least,
            "greatest": self.greatest,
            "generic": self.generic,
            "singular": self.singular,
        }

    def _records(self) -> list[dict[str, Any]]:
        listed = [("at θ", self.here), *(("nearby", d) for d in self.dimensions)]
        return [{"where": where, **dimension_cells(d)} for where, d in listed]

    @property
    def verdict(self) -> str:
        """What the points say of θ, in a sentence."""
        text = f"The generic rank on these data is {self.generic:,} or more"
        if self.singular:
            short = self.generic - self.here.upper
            return f"{text}: θ is singular, at least {short:,} short of it."
        return f"{text}; no point drawn shows θ to be singular."

    def __str__(self) -> str:
        rows = [("at θ", *cells(self.here), "1")]
        for value, count in self.counts.items():
            kinds = {d.kind for d in self.dimensions if d.value == value}
            kind = "exact" if kinds == {"exact"} else "certified"
            rows.append(("nearby", f"{value:,}", kind, f"{count:,}"))
        return render(
            f"Dimension near θ: {len(self.dimensions)} points in a {self.region} of radius "
            f"{self.radius:.3g} (D = {self.parameters:,}, K = {self.rows:,}, seed {self.seed})",
            ("where", "dimension", "kind", "points"),
            rows,
            [self.verdict],
        )


def dimension_path(
    F: Fisher,
    points: Iterable[Point],
    method: str = "auto",
    *,
    memory: int | float | str | None = None,
) -> DimensionPath:
    """The local dimension d̂(θ) = rank Î(θ) at each of some points, such as checkpoints.

    Args:
        F: From `lightlike.fisher`: the model, data and likelihood; its own point is not counted.
        points: Flat vectors (D,), modules or state dicts, as `Fisher.at` takes them; see also
            `lightlike.between`. They are read one at a time.
        method: "auto", "gram", "metric" or "svd", as in `lightlike.spectrum`.
        memory: What may be used, in bytes or as "8 GB".

    Raises:
        ParameterError, ModelError: if a point does not fit the model, or its outputs are not finite
            there; the message counts points from 0.
        ChoiceError: if there is no point.

    Source: arXiv 1905.11027, where the dimension varies with θ.
    """
    check_fisher(F)
    dimensions, distances = [], []
    first: Tensor | None = None
    for index, point in enumerate(each(points)):
        there = at_point(F, point, f"Point {index}")
        theta = there.problem.theta
        first = theta if first is None else first
        dimensions.append(dimension_of(there.decomposition(method, memory).spectrum))
        distances.append(float((theta - first).norm()))
    if not dimensions:
        raise ChoiceError(
            "The path has no points.",
            "There is nothing to measure.",
            "Give one or more flat vectors or state dicts.",
        )
    rows = F.root.shape[0]
    return DimensionPath(tuple(dimensions), tuple(distances), F.shape[0], rows)


def between(F: Fisher, other: Fisher | Point, steps: int) -> list[Tensor]:
    """Points of the straight line from F's θ to another, both ends among them.

    θ_j = θ + j / (steps − 1) · (θ' − θ). Only the selected parameters change; buffers and others
    stay those of F.

    Args:
        F: Where the line begins.
        other: Where it ends: another Fisher matrix of the same architecture, a flat vector (D,), a
            module or a state dict.
        steps: Number of points, two or more.

    Returns:
        Flat vectors (D,), float64.

    Raises:
        ChoiceError: if the steps are no whole number, or fewer than two.
        ParameterError: if the ends do not have the same parameters.
    """
    check_fisher(F)
    check_whole("steps", steps, 2)
    start = F.problem.theta
    if isinstance(other, Fisher):
        other = other.problem.selection.split(other.problem.theta)
    end = at_point(F, other, "The end of the line").problem.theta
    line = [start + j / (steps - 1) * (end - start) for j in range(steps - 1)]
    return [*line, end.clone()]


def dimension_near(
    F: Fisher,
    radius: float,
    draws: int = 8,
    seed: int = 0,
    *,
    region: str = "ball",
    method: str = "auto",
    memory: int | float | str | None = None,
) -> DimensionNear:
    """The local dimension at random points near θ, and whether θ is singular among them.

    Points are θ + r u, u uniform on the unit sphere of R^D; r = radius on a sphere, radius times
    the D-th root of a uniform number in a ball. Almost every one of them is generic.

    Args:
        F: From `lightlike.fisher`.
        radius: Euclidean, over the selected parameters, above 0.
        draws: Number of points.
        seed: Of the points.
        region: "ball" or "sphere".
        method: "auto", "gram", "metric" or "svd", as in `lightlike.spectrum`.
        memory: What may be used, in bytes or as "8 GB".

    Raises:
        ChoiceError: if the radius is not positive, there are no draws or the region is unknown.
        ModelError: if the outputs are not finite at some point.
    """
    check_fisher(F)
    check_positive("radius", radius)
    check_whole("draws", draws, 1)
    check_seed(seed)
    if region not in REGIONS:
        raise choice_error("region", region, [repr(name) for name in REGIONS])
    generator = torch.Generator().manual_seed(seed)
    points = (_draw(F.problem.theta, radius, region, generator) for _ in range(draws))
    path = dimension_path(F, points, method, memory=memory)
    here = dimension_of(F.decomposition(method, memory).spectrum)
    return DimensionNear(
        here, path.dimensions, float(radius), region, F.shape[0], F.root.shape[0], seed
    )


def _draw(theta: Tensor, radius: float, region: str, generator: torch.Generator) -> Tensor:
    direction = torch.randn(len(theta), generator=generator, dtype=torch.float64)
    if region == "ball":
        share = torch.rand((), generator=generator, dtype=torch.float64)
        radius *= float(share) ** (1.0 / len(theta))
    step: Tensor = radius * direction / direction.norm()
    return theta + step.to(theta.device)
