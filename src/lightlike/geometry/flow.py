"""Walks inside the radical: an objective falls, the predictions stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, choice_error
from lightlike.geometry.checks import check_fisher
from lightlike.geometry.linearisation import linearise
from lightlike.geometry.objectives import Objective, resolve_objective
from lightlike.geometry.predictions import Start
from lightlike.geometry.walk import Control, Walk, WalkStep
from lightlike.geometry.walker import Place, Walker, look_around
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.numbers import check_positive, check_seed, check_whole, is_finite
from lightlike.problem.data import Stream
from lightlike.problem.problem import Problem
from lightlike.progress import Progress
from lightlike.spectrum.memory import resolve_memory

# Steps in a row without a gain, or factorisations without a step, before giving up.
PATIENCE = 3


def walk(
    F: Fisher,
    objective: Any,
    *,
    budget: float = 1e-3,
    max_steps: int = 50,
    step: float | None = None,
    epsilon: float | str = 0.0,
    tolerance: float = 1e-3,
    held_out: Any = None,
    seed: int = 0,
    progress: str | bool | Progress = False,
    memory: int | float | str | None = None,
) -> Walk:
    """Walk from θ in the radical of the metric: the objective falls while predictions stay.

    At each point the objective's way down is projected on the radical of *that* point, the null
    space of A(θ), and a Gauss–Newton step of least norm in the screen brings the predictions back
    to the start's. A step is halved, and tried with less of the way back, until the measured
    divergence, the mean over observations of KL(p(· | x_i, θ_0) ‖ p(· | x_i, θ)), is within the
    budget and the objective is lower.

    With ε > 0 the radical is a soft one: of a direction of eigenvalue λ of Î the share ε/(λ + ε)
    is left free, as is optimal for a quadratic objective that is weighed against the divergence
    with the multiplier ε. "auto" begins at ε = budget / |θ − goal|² and raises it as long as the
    budget is not spent.

    The radical of a singular metric is that of Sun & Nielsen, arXiv 1905.11027; weights are put on
    0 and corrected for as in Hassibi & Stork 1993 (optimal brain surgeon,
    doi:10.1109/ICNN.1993.298572), with the exact metric and many at a time.

    Args:
        F: From `lightlike.fisher`.
        objective: "norm" (smallest |θ|²), "sparse" (as many weights as possible exactly 0), "grid"
            (as many as possible exactly on multiples of `step`), another model (a module, a state
            dict or a vector (D,); smallest |θ − θ'|²), or a function of the vector θ (D,) that
            returns a scalar which PyTorch can differentiate.
        budget: Bound on the divergence in nats per observation, above 0.
        max_steps: Largest number of factorisations of A Aᵀ or AᵀA.
        step: Distance between the points of the grid, for "grid".
        epsilon: ε ≥ 0 in units of the eigenvalues of Î, or "auto"; for "sparse" and "grid" of
            those of W^½ Î W^½, W the reweighting with mean 1.
        tolerance: The walk ends where the objective falls by less than this share of its size.
        held_out: More data, on which predictions at both ends are compared.
        seed: Of the controls, random directions.
        progress: As in `measure`.
        memory: What may be used, in bytes or as "8 GB"; the smaller of A Aᵀ and AᵀA has to fit.

    Returns:
        The end, the path and two straight walks of the same length to compare it with.

    Raises:
        ChoiceError: for an unknown objective or an option out of range.
        ParameterError: if another model does not fit, or is not finite.
        ModelError: if a function gives NaN or infinity.
        CapacityError: if neither matrix fits in memory.
        DataError: if the held-out data cannot be read.
    """
    _check(F, budget, max_steps, epsilon, tolerance)
    check_seed(seed)
    problem, room = F.problem.reference, float(resolve_memory(memory))
    goal = resolve_objective(objective, step, problem)
    start = Start(problem)
    others = None if held_out is None else Stream(held_out)
    if others is not None:
        # What is wrong with them shows before the work is done.
        start.fidelity(problem.theta, others)
    soft = Softness(epsilon, budget, goal, problem.theta)
    first = soft.value
    walker = Walker(start, goal, budget)
    path, stopped = _follow(walker, soft, max_steps, tolerance, room, Progress.resolve(progress))
    theta, steps = path[-1][0].theta, tuple(point for _, point in path)
    displacement = float((theta - problem.theta).norm())
    return Walk(
        theta=theta,
        objective=goal.name,
        steps=steps,
        stopped=stopped,
        budget=budget,
        epsilon=steps[-1].epsilon,
        divergence_kind=problem.likelihood.divergence_kind,
        displacement=displacement,
        controls=_controls(start, displacement, first, seed, room),
        data=start.fidelity(theta),
        held_out=None if others is None else start.fidelity(theta, others),
        seed=seed,
        selection=problem.selection,
        others=others_of(problem),
        slots=saved_names(problem),
    )


def others_of(problem: Problem) -> dict[str, Tensor]:
    """Copies of what a walk does not move: frozen parameters and buffers, by canonical name."""
    moved = {entry.name for entry in problem.selection.entries}
    values = problem.evaluator.values
    return {name: v.detach().clone() for name, v in values.items() if name not in moved}


def saved_names(problem: Problem) -> dict[str, str]:
    """The names that the model's state dict has, and the canonical name of each."""
    slots = problem.evaluator.slots
    saved = problem.evaluator.model.state_dict(keep_vars=True)
    return {name: slots[name] for name in saved if name in slots}


class Softness:
    """The ε of each step: given, or raised for as long as the budget is not spent.

    Attributes:
        value: ε of the next step.
        auto: Whether it changes.
    """

    def __init__(self, epsilon: float | str, budget: float, goal: Objective, theta: Tensor) -> None:
        self.auto, self.budget = isinstance(epsilon, str), budget
        if isinstance(epsilon, str):
            # To second order no way to the goal through directions below ε takes more than half.
            size = float(goal.pull(theta)[0].square().sum())
            self.value = budget / size if size > 0.0 else 0.0
        else:
            self.value = float(epsilon)

    def taken(self, divergence: float) -> None:
        """After a step that led to a divergence."""
        if self.auto and divergence <= 0.5 * self.budget:
            self.value *= 2.0 if divergence > 0.25 * self.budget else 4.0

    def refused(self, over: bool) -> None:
        """After no step was found, because all were over the budget or none lowered the value."""
        if self.auto:
            self.value *= 0.25 if over else 4.0


def _follow(
    walker: Walker,
    soft: Softness,
    max_steps: int,
    tolerance: float,
    memory: float,
    progress: Progress,
) -> tuple[list[tuple[Place, WalkStep]], str]:
    """The places of the walk with their records, the last gain being the end; and why it ended."""
    goal = walker.objective
    here = walker.place(walker.start.problem.theta)
    best = goal.value(here.theta)
    path, kept, stale, distance = [(here, _record(best, here, 0.0, soft.value))], 1, 0, 0.0
    least, patience = tolerance * abs(best), PATIENCE if soft.auto or goal.snaps else 1
    taken = f"all {max_steps:,} steps were taken: a larger max_steps=... may lead further"
    stopped = taken
    for _ in progress.track(range(max_steps), "Walking", max_steps):
        if not bool(goal.pull(here.theta)[0].any()):
            stopped = "the objective is as low as it can be"
            break
        around = look_around(walker, here, soft.value, memory)
        found = walker.advance(here, around)
        if found is None:
            soft.refused(walker.over)
            stale += 1
            stopped = _refusal(walker)
            if not soft.auto or stale >= patience:
                break
            continue
        distance += float((found.theta - here.theta).norm())
        here, value = found, goal.value(found.theta)
        path.append((here, _record(value, here, distance, soft.value, around.line)))
        soft.taken(here.divergence)
        stale = 0 if best - value > least else stale + 1
        if value < best:
            best, kept = value, len(path)
        if stale >= patience:
            often = "the last step" if patience == 1 else f"each of the last {patience} steps"
            stopped = (
                f"the objective no longer falls: {often} lowered it by less than {tolerance:.3g} "
                "of what it was at the start"
            )
            break
    else:
        stopped = taken
    return path[:kept], stopped


def _refusal(walker: Walker) -> str:
    """Why no step was taken."""
    if walker.over:
        return (
            "no step that lowers the objective keeps within the budget of "
            f"{walker.budget:.3g} nats per observation"
        )
    return "no step in the radical lowers the objective: what would, changes the predictions"


def _record(
    value: float, here: Place, distance: float, epsilon: float, line: Any = None
) -> WalkStep:
    return WalkStep(
        objective=value,
        squared_norm=float(here.theta.square().sum()),
        zeros=int((here.theta == 0).sum()),
        distance=distance,
        divergence=here.divergence,
        epsilon=epsilon,
        radical=None if line is None else line.radical,
        radical_kind=None if line is None else "counted" if line.counted else "at least",
    )


def _controls(
    start: Start, length: float, epsilon: float, seed: int, memory: float
) -> tuple[Control, ...]:
    """Straight lines of a length in a random direction, and in its part in the radical."""
    theta = start.problem.theta
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randn(theta.shape, generator=random, dtype=theta.dtype).to(theta.device)
    inside = linearise(Root(start.problem), None, epsilon, memory).project(drawn)
    ways = {"random": drawn}
    # What rounding leaves of a direction is no direction.
    if float(inside.norm()) > 1e-6 * float(drawn.norm()):
        ways["random in the radical"] = inside
    return tuple(
        Control(name, length, start.divergence(start.at(theta + length * way / way.norm())))
        for name, way in ways.items()
    )


def _check(
    F: Fisher, budget: float, max_steps: int, epsilon: float | str, tolerance: float
) -> None:
    check_fisher(F)
    if F.root.weights is not None or F.root.layer is not None:
        raise ChoiceError(
            "The Fisher matrix is that of a prior's scale or of one layer.",
            "A walk moves all selected parameters, in their own units.",
            "Pass the matrix from lightlike.fisher; select parameters there.",
        )
    check_positive("budget", budget)
    check_whole("max_steps", max_steps, 1)
    known = epsilon == "auto" if isinstance(epsilon, str) else is_finite(epsilon) and epsilon >= 0
    if not known:
        raise choice_error("epsilon", epsilon, ["a finite number, 0 or positive", "'auto'"])
    if not is_finite(tolerance) or tolerance < 0.0:
        raise choice_error("tolerance", tolerance, ["a finite number, 0 or positive"])
