"""Posteriors at several temperatures, whose chains change places.

    p_j(θ) ∝ exp(−β_j n L_n(θ) − ½ γ |θ − θ̂|²)

In the narrow arms of a singular posterior a cold chain moves slowly along, a hot one does not. Two
chains at neighbouring temperatures change places with probability
min(1, exp((β_j − β_k) (n L_n(θ_j) − n L_n(θ_k)))), which keeps the product of all p_j (Geyer 1991;
Hukushima & Nemoto 1996, arXiv cond-mat/9512035): the cold chain so gets into arms that it could not
have walked into.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightlike.length.potential import Potential
from lightlike.length.sampling import State


class Ladder:
    """All temperatures of one problem; points (L · C, D) go level after level.

    Args:
        potential: n L_n and its gradient.
        nll: n L_n(θ̂).
        temperatures: β_j, in the order of the levels.
        localisation: γ.
        chains: C, of each level.
        generator: On the CPU, for the exchanges.
    """

    def __init__(
        self,
        potential: Potential,
        nll: float,
        temperatures: Sequence[float],
        localisation: float,
        chains: int,
        generator: torch.Generator,
    ) -> None:
        self.potential, self.nll, self.gamma = potential, nll, localisation
        self.centre, self.chains, self.generator = potential.problem.theta, chains, generator
        self.beta = self.centre.new_tensor(temperatures).repeat_interleave(chains)
        self.levels = len(temperatures)

    def target(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U = β n (L_n − L_n(θ̂)) + ½ γ |θ − θ̂|², ∇U, and n (L_n − L_n(θ̂))."""
        loss, gradient = self.potential(points)
        away, excess = points - self.centre, loss - self.nll
        energy = self.beta * excess + 0.5 * self.gamma * away.square().sum(1)
        return energy, self.beta[:, None] * gradient + self.gamma * away, excess

    def swap(self, state: State, index: int) -> tuple[State, Tensor]:
        """Every other pair of neighbours: the even ones, then the odd ones."""
        order = torch.arange(len(state.points))
        shares = torch.zeros(self.levels, dtype=torch.float64)
        uniform = torch.rand(len(order), generator=self.generator, dtype=torch.float64)
        excess, beta = state.record.cpu(), self.beta.cpu()
        for level in range(index % 2, self.levels - 1, 2):
            here = torch.arange(level * self.chains, (level + 1) * self.chains)
            there = here + self.chains
            gain = (beta[here] - beta[there]) * (excess[here] - excess[there])
            # Between two infinite losses that is no number, and nothing moves.
            taken = uniform[here] < gain.clamp_max(0.0).exp()
            shares[level] = taken.double().mean()
            order[here[taken]], order[there[taken]] = there[taken], here[taken]
        return self._moved(state, order.to(self.beta.device)), shares

    def _moved(self, state: State, order: Tensor) -> State:
        """The state with its points in another order, at the temperatures of their new places."""
        still = order == torch.arange(len(order), device=order.device)
        points, record = state.points[order], state.record[order]
        pull = self.gamma * (points - self.centre)
        ratio = (self.beta / self.beta[order])[:, None]
        gradient = ratio * (state.gradient[order] - pull) + pull
        energy = self.beta * record + 0.5 * (pull * (points - self.centre)).sum(1)
        return State(
            points,
            torch.where(still, state.energy, energy),
            torch.where(still[:, None], state.gradient, gradient),
            record,
        )
