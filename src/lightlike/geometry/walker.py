"""One walk under way: how long a step may be, and how the predictions are brought back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightlike.geometry.linearisation import Linearisation, linearise
from lightlike.geometry.objectives import Objective
from lightlike.geometry.predictions import Start
from lightlike.metric.root import Root
from lightlike.problem.evaluation import Outputs
from lightlike.problem.problem import Problem

# Corrections with one factorisation, shortest multiple of a step that is tried, shares of the way
# back to the start's predictions that are tried with it, weights put on their goal at first as a
# share of all, and how often that number is changed in one step.
CORRECTIONS = 4
SHORTEST = 1e-4
WAYS_BACK = (1.0, 0.5, 0.0)
SNAP_SHARE = 0.02
SNAP_TRIALS = 8
# A fall by a smaller share of the objective's size is none.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Place:
    """A point, its outputs by batch and how far they are from the start's."""

    theta: Tensor
    outputs: list[Tensor] | None
    divergence: float


@dataclass(frozen=True)
class Around:
    """What is known around one point: the steps of the objective and of the predictions.

    Attributes:
        pull: The objective's step, and what of the residual it is expected to make.
        back: The step that brings the predictions back, and what it is expected to leave.
        away: What there is of the residual without a step, in the same terms.
        hard: Whether ε = 0: the pull is in the radical.
    """

    problem: Problem
    present: list[Outputs]
    line: Linearisation
    pull: tuple[Tensor, Tensor]
    back: tuple[Tensor, Tensor]
    away: Tensor
    hard: bool

    def step(self, length: float, share: float) -> tuple[Tensor, Tensor]:
        """A multiple of the pull with a share of the way back, and what it is to leave."""
        left = length * self.pull[1] + share * self.back[1] + (1.0 - share) * self.away
        return length * self.pull[0] + share * self.back[0], left


class Walker:
    """One walk under way.

    Args:
        start: Predictions at θ_0.
        objective: What falls.
        budget: Bound on the divergence.

    Attributes:
        length: Multiple of the objective's pull that was taken last.
        over: Whether the last step that was not taken was so for its divergence.
        snap: How many weights were put on their goal together last.
    """

    def __init__(self, start: Start, objective: Objective, budget: float) -> None:
        self.start, self.objective, self.budget = start, objective, budget
        self.length, self.over = 0.5, False
        self.snap = max(1, int(SNAP_SHARE * start.problem.parameters))

    def place(self, theta: Tensor) -> Place:
        """θ with its predictions."""
        outputs = self.start.at(theta)
        return Place(theta, outputs, self.start.divergence(outputs))

    def advance(self, here: Place, around: Around) -> Place | None:
        """The next point: the longest step within the budget on which the objective falls."""
        value = self.objective.value(here.theta)
        snaps = self.objective.snaps
        # The way back may cost the objective more than a short step gains: then less of it. With a
        # soft radical it is part of what is weighed, and not to be had for less.
        for share in WAYS_BACK if around.hard else WAYS_BACK[:1]:
            length = min(2.0 * self.length, self.objective.longest)
            while length >= SHORTEST:
                step, left = around.step(length, share)
                found = self.settle(here.theta + step, around, left)
                if found.divergence <= self.budget and (
                    snaps or self.objective.value(found.theta) < value - ROUNDING * abs(value)
                ):
                    self.length = length
                    return self.snapped(found, around, left) if snaps else found
                self.over = found.divergence > self.budget
                length /= 2.0
        return None

    def settle(
        self, theta: Tensor, around: Around, left: Tensor, moving: Tensor | None = None
    ) -> Place:
        """Bring the predictions back by Gauss–Newton steps, as long as these help.

        Args:
            theta: Where a step led.
            around: The linearisation.
            left: What of the residual is meant to stay.
            moving: Mask of weights that may change; all if None.
        """
        best = self.place(theta)
        for _ in range(CORRECTIONS):
            if best.outputs is None or best.divergence <= 1e-3 * self.budget:
                break
            r = self.start.residual(around.problem, around.present, best.outputs)
            change = around.line.correct(r, left)
            found = self.place(best.theta + (change if moving is None else change * moving))
            if not found.divergence < best.divergence:
                break
            slow = found.divergence > 0.5 * best.divergence
            best = found
            if slow:
                break
        return best

    def snapped(self, here: Place, around: Around, left: Tensor) -> Place:
        """Put as many of the nearest weights on their goal as the budget allows."""
        goal = self.objective.goal(here.theta)
        away = (here.theta - goal).abs()
        order = torch.argsort(away, stable=True)
        done = int((away == 0).sum())
        best, count, rising = here, min(self.snap, len(order) - done), True
        for _ in range(SNAP_TRIALS):
            if count < 1:
                break
            chosen = order[: done + count]
            theta = here.theta.clone()
            theta[chosen] = goal[chosen]
            moving = torch.ones_like(theta)
            moving[chosen] = 0.0
            found = self.settle(theta, around, left, moving)
            if found.divergence <= self.budget:
                best, self.snap = found, count
                if not rising or done + count >= len(order):
                    break
                count = min(2 * count, len(order) - done)
            elif best is not here:
                break
            else:
                count, rising = count // 2, False
        return best


def look_around(walker: Walker, here: Place, epsilon: float, memory: float) -> Around:
    """Linearise at a point."""
    problem = walker.start.problem.at(here.theta)
    present = Start.present(problem)
    r = walker.start.residual(problem, present, [o.h for o in present])
    d, weights = walker.objective.pull(here.theta)
    line = linearise(Root(problem), weights, epsilon, memory)
    pull = line.step(d, torch.zeros_like(r))
    back = line.step(torch.zeros_like(d), r)
    return Around(problem, present, line, pull, back, line.remaining(r), epsilon == 0.0)
