"""The Fisher–Rao length of a path through parameter space."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import ConsistencyError, choice_error
from lightlike.geometry.checks import at_point, check_fisher, listed
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_share, check_whole
from lightlike.problem.parameters import Point
from lightlike.results import Result
from lightlike.spectrum.rounding import EPS

# Nodes of the Gauss–Legendre rule on each piece, held against the same rule on its halves; pieces
# that each segment is cut into at first, and by what share of one their ends are drawn at random,
# so that no feature of the network falls on them by design.
NODES, PIECES, JITTER = 4, 8, 0.5
# A piece is off by no more than this multiple of the difference of the two rules, as far as that
# can be told; and, as where the speed jumps the error only halves with the piece but the difference
# may vanish by chance, by no less than this share of what its other half and itself were off by.
SAFETY, DECAY = 4.0, 0.125


@dataclass(frozen=True)
class PathLength(Result):
    """The length of a piecewise linear path in the Fisher metric.

    Attributes:
        value: ∫ √(θ̇ᵀ Î(θ) θ̇) dt, without units: its square is twice a KL divergence to second
            order.
        error: An estimate of the absolute error, of quadrature and of rounding.
        segments: The length of each segment, in order.
        evaluations: At how many points A was evaluated.
    """

    value: float
    error: float
    segments: tuple[float, ...]
    evaluations: int

    def __float__(self) -> float:
        return self.value

    def _records(self) -> list[dict[str, float]]:
        return [{"segment": i, "length": v} for i, v in enumerate(self.segments)]


def fisher_length(
    F: Fisher,
    points: Iterable[Point],
    *,
    relative_error: float = 1e-3,
    evaluations: int = 4000,
) -> PathLength:
    """The Fisher–Rao length Σ ∫₀¹ ‖A(θ(t)) Δθ‖ dt of the straight lines from point to point.

    It does not change when the model is parametrised in another way along the same path, and
    steps in the radical cost nothing (Rao 1945, doi:10.1007/978-1-4612-0919-5_16). Each segment is
    cut into 8 pieces, about as long, and each piece integrated by the 4-point Gauss–Legendre rule
    and by the same rule on its two halves: four times their difference is the error, and the piece
    where it is largest is halved until the sum is small enough. Where units of a piecewise linear
    network switch, the speed jumps, and that error is what is left of the jump.

    A feature narrower than the distance of the first points, about 1/100 of a segment, can be
    missed, and is then not in the error: give points on both sides of where one is expected.

    Args:
        F: From `lightlike.fisher`: model, data and likelihood.
        points: At least two checkpoints: flat vectors (D,), modules or state dicts. Of other
            entries of state dicts, such as running statistics, those of F stay.
        relative_error: Of the whole length, at which refinement stops.
        evaluations: At how many points A may be evaluated beyond the first 96 of each segment.

    Raises:
        ChoiceError: if there are fewer than two points, the error is not between 0 and 1, or the
            evaluations are no whole number.
        ParameterError: if a point does not fit the model or is not finite.
        ConsistencyError: if the error asked for is not reached.
    """
    check_fisher(F)
    points = listed(points)
    if len(points) < 2:
        raise choice_error("points", f"{len(points)} points", ["two points or more"])
    check_share("relative_error", relative_error)
    check_whole("evaluations", evaluations, 0)
    path = Speed(F, [flat_point(F, point, index) for index, point in enumerate(points)])
    order = count()
    pieces: list[tuple[float, int, Piece]] = []
    random = torch.Generator().manual_seed(0)
    for segment in range(len(points) - 1):
        for start, stop in pairwise(grid(random)):
            whole = path.integrate(segment, start, stop)
            found = piece(path, segment, start, stop, whole, 0.0)
            pieces.append((-found.error, next(order), found))
    heapq.heapify(pieces)
    first = path.evaluations
    while True:
        value = math.fsum(p.value for *_, p in pieces)
        error = math.fsum(p.error for *_, p in pieces)
        if error <= relative_error * value + path.rounding:
            break
        if path.evaluations - first + 4 * NODES > evaluations:
            raise ConsistencyError(
                f"After {path.evaluations} evaluations the length {value:.6g} is known to "
                f"{error:.2g}, not to {relative_error:.2g} of itself.",
                "The metric changes too abruptly along the path for the quadrature to settle.",
                "Give more points, a larger relative_error=..., or allow more evaluations=....",
            )
        _, _, split = heapq.heappop(pieces)
        for start, stop, part in split.halves():
            found = piece(path, split.segment, start, stop, part, DECAY * split.error)
            heapq.heappush(pieces, (-found.error, next(order), found))
    sums = [0.0] * (len(points) - 1)
    for *_, found in pieces:
        sums[found.segment] += found.value
    return PathLength(value, error + path.rounding, tuple(sums), path.evaluations)


@dataclass(frozen=True)
class Piece:
    """A part [start, stop] of a segment, the integrals over its halves and their error."""

    segment: int
    start: float
    stop: float
    left: float
    right: float
    error: float

    @property
    def value(self) -> float:
        """The better of the two integrals."""
        return self.left + self.right

    def halves(self) -> list[tuple[float, float, float]]:
        """Start, stop and integral of each."""
        middle = (self.start + self.stop) / 2
        return [(self.start, middle, self.left), (middle, self.stop, self.right)]


def grid(random: torch.Generator) -> list[float]:
    """The ends of the first pieces of a segment, from 0 to 1."""
    drawn = torch.rand(PIECES - 1, generator=random, dtype=torch.float64).tolist()
    inner = [(i + 1 + JITTER * (x - 0.5)) / PIECES for i, x in enumerate(drawn)]
    return [0.0, *inner, 1.0]


def piece(
    path: Speed, segment: int, start: float, stop: float, whole: float, least: float
) -> Piece:
    """A piece, from the rule on all of it and on its halves, with an error of no less than some."""
    middle = (start + stop) / 2
    left = path.integrate(segment, start, middle)
    right = path.integrate(segment, middle, stop)
    error = max(SAFETY * abs(left + right - whole), least)
    return Piece(segment, start, stop, left, right, error)


class Speed:
    """‖A(θ(t)) Δθ‖ along the segments of a path.

    Args:
        F: At any point.
        points: Flat vectors (D,).
    """

    def __init__(self, F: Fisher, points: list[Tensor]) -> None:
        self.F, self.points = F, points
        self.evaluations = 0
        self._size = 0.0
        random = torch.Generator().manual_seed(0)
        # ‖A g‖² is ‖A‖²_F in expectation.
        g = torch.randn(len(points[0]), 1, generator=random, dtype=torch.float64)
        self._probe = g.to(points[0].device)
        self._steps = [stop - start for start, stop in pairwise(points)]
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        self._rule = list(zip(nodes.tolist(), weights.tolist(), strict=True))

    @property
    def rounding(self) -> float:
        """What rounding of A Δθ may add to the length: it decides where the path is radical."""
        return 8 * EPS * self._size * sum(float(step.norm()) for step in self._steps)

    def integrate(self, segment: int, start: float, stop: float) -> float:
        """The Gauss–Legendre sum over t from start to stop."""
        step = self._steps[segment]
        if not bool(step.any()):
            return 0.0
        half, middle = (stop - start) / 2, (stop + start) / 2
        total = 0.0
        for node, weight in self._rule:
            theta = self.points[segment] + (middle + half * node) * step
            columns = torch.cat([step[:, None], self._probe], 1)
            speed, size = self.F.at(theta).root.mv(columns).norm(dim=0).tolist()
            total += half * weight * speed
            self._size = max(self._size, size)
            self.evaluations += 1
        return total


def flat_point(F: Fisher, point: Point, index: int) -> Tensor:
    """A checkpoint as a flat vector (D,) in float64; an error says which point it was.

    Raises:
        ParameterError: if it does not fit the model or is not finite.
    """
    return at_point(F, point, f"Point {index}").problem.theta.to(F.device, torch.float64)
