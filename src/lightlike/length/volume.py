"""The volume of a box of parameters as the Fisher metric measures it, ∫_Θ √det I(θ) dθ."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.integrate import cubature
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import qmc
from torch import Tensor

from lightlike.errors import CapacityError, ModelError, UndefinedError
from lightlike.metric.jacobian import Backward, whitening
from lightlike.problem.evaluation import Outputs
from lightlike.problem.problem import Problem
from lightlike.spectrum.rounding import EPS

# Points that a quadrature may visit; starts and steps of a search for singular points.
MOST_POINTS = 50_000
STARTS, SEARCH = 32, 150
# Share of the largest singular value below which a minimum is followed to the last bit.
NEAR = 0.1
# Relative standard error of a mean above which its logarithm has no normal error any more.
LOOSE = 0.2


@dataclass(frozen=True)
class Volume:
    """Log of ∫_Θ √det I dθ.

    Attributes:
        log: The logarithm.
        error: Of the quadrature, as it estimates itself, or the standard error of Monte Carlo.
        points: Points at which the metric was computed.
        smallest: The smallest singular value of A met, as a share of the largest met anywhere.
    """

    log: float
    error: float
    points: int
    smallest: float


class Region:
    """A box Θ and the metric in it.

    A(θ) has few columns: they are taken one by one, J e_j by differentiating u ↦ Jᵀu, which costs
    as much as D gradients whatever K is. To be used inside `isolated` and `twice`.

    Args:
        problem: The model, data and likelihood.
        bounds: Lower and upper bounds, (D, 2).
    """

    def __init__(self, problem: Problem, bounds: Tensor) -> None:
        self.problem = problem.reference
        self.low, self.high = bounds.double().cpu().numpy().T
        self.points = 0
        self.seen: list[tuple[float, np.ndarray]] = []
        self.largest = 0.0
        self._batches = list(self.problem.batches())
        self._backward = Backward()

    def root(self, theta: np.ndarray) -> Tensor:
        """A(θ), (K, D)."""
        problem = self.problem
        vector = torch.from_numpy(np.array(theta)).to(problem.theta)
        evaluator = problem.evaluator.at(problem.selection.split(vector))
        rows = []
        for batch in self._batches:
            outputs = evaluator.outputs(batch)
            images = self._images(outputs, list(evaluator.leaves.values()))
            found = whitening(problem, outputs).mT @ images
            found = found if outputs.observed is None else found[outputs.observed]
            rows.append(found.reshape(-1, problem.parameters))
        return torch.cat(rows)

    def log_density(self, theta: np.ndarray) -> float:
        """½ log det I(θ); remembers the extreme singular values.

        Raises:
            UndefinedError: where I(θ) is singular, to the float64 rank of A.
        """
        A = self.root(theta)
        self.points += 1
        s = torch.linalg.svdvals(A)
        self.largest = max(self.largest, float(s[0]))
        smallest = float(s[-1]) if len(A) >= A.shape[1] else 0.0
        self.seen.append((smallest, np.array(theta)))
        self._check(smallest, theta)
        norms = A.norm(dim=0)
        # Columns of equal length: units of the parameters do not cost digits.
        return float((torch.linalg.svdvals(A / norms).log() + norms.log()).sum())

    def quadrature(self, tolerance: float) -> Volume:
        """By adaptive cubature over the box.

        Raises:
            UndefinedError: if a singular point is met or found.
            CapacityError: if the integral does not converge.
        """
        size = len(self.low)
        self.search()
        centre = self.log_density((self.low + self.high) / 2)

        def density(points: np.ndarray) -> np.ndarray:
            if self.points > MOST_POINTS:
                raise CapacityError(
                    f"The integral did not converge within {MOST_POINTS:,} points.",
                    f"A relative error of {tolerance:g} was asked for.",
                    "Give a smaller region, a larger tolerance, or method='monte_carlo'.",
                )
            return np.array([math.exp(self.log_density(p) - centre) for p in points])

        rules: dict[int, Literal["gk21", "gk15", "genz-malik"]] = {1: "gk21", 2: "gk15"}
        rule = rules.get(size, "genz-malik")
        result = cubature(density, self.low, self.high, rule=rule, rtol=tolerance, atol=0.0)
        if result.status != "converged" or not result.estimate > 0:
            raise CapacityError(
                f"The integral did not converge: {result.estimate:.6g} ± {result.error:.2g}.",
                f"A relative error of {tolerance:g} was asked for.",
                "Give a smaller region, a larger tolerance, or method='monte_carlo'.",
            )
        log = centre + math.log(float(result.estimate))
        return Volume(log, float(result.error / result.estimate), self.points, self.least())

    def monte_carlo(self, draws: int, seed: int) -> Volume:
        """By uniform draws from the box, with the standard error of the logarithm.

        Raises:
            UndefinedError: if a singular point is met or found, or too few draws dominate.
        """
        self.search()
        generator = torch.Generator().manual_seed(int(seed))
        unit = torch.rand(draws, len(self.low), generator=generator, dtype=torch.float64).numpy()
        logs = np.array([self.log_density(self.low + (self.high - self.low) * u) for u in unit])
        mean = float(logsumexp(logs)) - math.log(draws)
        spread = float(np.exp(logs - mean).std(ddof=1)) / math.sqrt(draws)
        if not spread <= LOOSE:
            raise UndefinedError(
                f"√det I varies so much over the region that {draws:,} draws know its mean to "
                f"{spread:.0%} only.",
                "A few draws dominate, and an error bar around them would not cover.",
                "Give more draws or a smaller region.",
            )
        box = float(np.log(self.high - self.low).sum())
        return Volume(mean + box, spread, self.points, self.least())

    def least(self) -> float:
        """The smallest singular value met over the largest met."""
        return min(s for s, _ in self.seen) / self.largest

    def search(self) -> None:
        """Look for singular points: √λ_min(I) is minimised from the lowest point met.

        It is sought at the point nearest to 0, where units of a network die, at the corners of a
        small box and at points spread over it. This finds singular points; it cannot prove that
        there are none.
        """
        size = len(self.low)
        spread = qmc.Sobol(size, scramble=False).random(STARTS)
        side = self.high - self.low
        starts = [np.clip(0.0, self.low, self.high), *(self.low + side * spread)]
        if size <= 3:
            corners = zip(self.low, self.high, strict=True)
            starts += [np.array(corner) for corner in itertools.product(*corners)]
        for start in starts:
            self.log_density(start)
        lowest = min(self.seen, key=lambda pair: pair[0])[1]

        def smallest(theta: np.ndarray) -> float:
            inside = np.clip(theta, self.low, self.high)
            s = torch.linalg.svdvals(self.root(inside))
            value = float(s[-1]) if len(s) == len(self.low) else 0.0
            self.points += 1
            self.seen.append((value, inside))
            self._check(value, inside)
            return value

        # λ_min falls to 0 with a kink in its root, which a search along lines follows to the bit.
        box = list(zip(self.low, self.high, strict=True))
        found = minimize(
            smallest, lowest, method="Powell", bounds=box,
            options={"maxfev": SEARCH // 3, "xtol": 1e-3, "ftol": 1e-3},
        )  # fmt: skip
        if float(found.fun) < NEAR * self.largest:
            minimize(
                smallest, found.x, method="Powell", bounds=box,
                options={"maxfev": SEARCH, "xtol": 1e-15, "ftol": 0.0},
            )  # fmt: skip

    def _check(self, smallest: float, theta: np.ndarray) -> None:
        rows = self.problem.survey.rows
        if smallest > max(rows, len(theta)) * EPS * self.largest:
            return
        where = ", ".join(f"{t:.4g}" for t in theta[:6]) + (", …" if len(theta) > 6 else "")
        raise UndefinedError(
            f"The Fisher matrix is singular at θ = ({where}) inside the region.",
            "There √det I is 0 and the expansion behind this length does not hold.",
            "Give bounds that stay away from there, remove redundant parameters, or use the "
            "Gaussian razor, which is defined everywhere.",
        )

    def _images(self, outputs: Outputs, leaves: list[Tensor]) -> Tensor:
        """J_i of every observation, (n, m, D)."""
        h, size = outputs.h, self.problem.parameters
        u = torch.zeros_like(h, requires_grad=True)
        try:
            found = torch.autograd.grad(h, leaves, u, create_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise ModelError(
                f"An operation cannot be differentiated twice: {error}.",
                "The metric all over the region is taken by differentiating a gradient.",
                "Use operations that have a double backward.",
            ) from error
        pairs = zip(leaves, found, strict=True)
        flat = torch.cat(
            [(torch.zeros_like(a) if g is None else g).reshape(-1) for a, g in pairs]
        ).double()
        columns = self._backward(flat, [u], torch.eye(size, dtype=flat.dtype, device=flat.device))[
            0
        ]
        if columns is None:
            return h.new_zeros(*h.shape, size)
        return columns.detach().permute(1, 2, 0)
