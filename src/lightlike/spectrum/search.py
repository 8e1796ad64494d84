"""The search for leading eigenpairs, step by step, and for what it may have missed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import CapacityError, ChoiceError, EstimateError
from lightlike.spectrum.forecast import forecast
from lightlike.spectrum.krylov import Krylov
from lightlike.spectrum.leading import Leading, Vector, errors_of, within
from lightlike.spectrum.missing import largest_unseen
from lightlike.spectrum.rounding import EPS

State = dict[str, Tensor]

# Steps over which the forecast of a check must fall by one each for the search to go on before it.
LOOK = 4
# Checks that may run out of room in the basis.
CROWDED = 3
# Products are taken to be good to this many rounding units of λ_1, or to this many times what one
# random combination of eigenvectors shows: a component of a standard normal is smaller than its
# inverse with probability 0.08.
UNITS, PROBED = 8.0, 10.0


@dataclass(frozen=True)
class Options:
    """What is searched for; see `lightlike.spectrum.lanczos`.

    Attributes:
        count: How many, as asked for.
        tolerance: Bound on errors, relative to λ_1.
        block: Vectors at once.
        seed: Of the random vectors.
        chance: Probability that is allowed of an eigenvalue having been missed.
        maximum: Products at most.
        precision: Rounding unit of products.
        span: Rows of the basis at which it is restarted.
    """

    count: int
    tolerance: float
    block: int
    seed: int
    chance: float
    maximum: int
    precision: float
    span: int

    def fingerprint(self, size: int) -> Tensor:
        """What the course of a search depends on."""
        found = size, self.count, self.tolerance, self.block, self.seed, self.chance, self.span
        return torch.tensor(found, dtype=torch.float64)


class Search:
    """A search for the largest eigenvalues.

    Args:
        krylov: The basis, empty.
        options: What is searched for.
    """

    def __init__(self, krylov: Krylov, options: Options) -> None:
        self.krylov, self.options = krylov, options
        self.size = int(krylov.operator.shape[0])
        self.count = min(options.count, self.size)
        self.random = torch.Generator().manual_seed(options.seed)
        self.decades = math.log(math.sqrt(2 / math.pi * max(self.size, 2)) / options.chance)
        self.forecasts = [math.inf] * LOOK
        self.first, self.lengths, self.checks, self.restarts, self.crowded = 0, 0.0, 0, 0, 0
        if self.size:
            krylov.add(self._normal(min(options.block, self.size)))

    @property
    def checking(self) -> bool:
        """Whether what was found is set aside and the rest of A searched."""
        return self.krylov.aside is not None

    def step(self) -> bool:
        """One step; whether every eigenvalue is bounded and none was missed."""
        return self._check() if self.checking else self._advance()

    def _advance(self) -> bool:
        krylov = self.krylov
        if not len(krylov.pending):
            # The basis is invariant: what it holds is exact, but need not be all.
            if krylov.size < self.count:
                krylov.add(self._normal(1))
            else:
                self._begin(krylov.size)
            return krylov.size == self.size
        self._multiply()
        kept = self._ripe()
        if kept is not None:
            self._begin(kept)
        elif krylov.size + len(krylov.pending) > self.options.span:
            self._restart((self.count + self.options.span) // 2)
        return False

    def _check(self) -> bool:
        krylov = self.krylov
        if len(krylov.pending):
            self._multiply()
        values, residuals = self._found()
        unseen, top = self._unseen()
        allowed = self.options.tolerance * max(krylov.largest(), 0.0)
        enough = len(values) >= self.count
        full = krylov.size + 1 > krylov.capacity
        if enough and top <= float(values[self.count - 1]) + allowed:
            if within(values, residuals, unseen, self.count, allowed):
                return True
            if not within(values, residuals, top, self.count, allowed):
                # Nothing new, so that what was found has to be sharpened.
                krylov.drop(self.first)
            elif not full:
                if not len(krylov.pending):
                    self._start()
                return False
            elif (crowded := self.crowded + 1) < CROWDED:
                self.crowded = crowded
            else:
                raise self._cramped()
        krylov.rejoin()
        self.forecasts = [math.inf] * LOOK
        if krylov.size + len(krylov.pending) > self.options.span:
            self._restart((self.count + self.options.span) // 2)
        return False

    def _multiply(self) -> None:
        krylov, most = self.krylov, self.options.maximum
        if krylov.products + len(krylov.pending) > most:
            raise self._unsettled()
        krylov.step()
        krylov.confirm(self.options.precision)

    def _restart(self, keep: int) -> None:
        krylov = self.krylov
        keep = min(keep, self.options.span - 2 * len(krylov.pending))
        keep = min(max(keep, self.count + 1), krylov.size)
        values, vectors, _ = krylov.ritz()
        krylov.turn(values[:keep], vectors[:, :keep])
        self.restarts += 1

    def _ripe(self) -> int | None:
        """Beside how many pairs to check now that none was missed, None if it is too early."""
        krylov, options = self.krylov, self.options
        if krylov.size <= self.count or not len(krylov.pending):
            return None
        values, _, coupled = krylov.ritz()
        residuals = coupled.norm(dim=0).numpy()
        steps, kept = forecast(
            values.numpy(),
            residuals,
            self.count,
            options.tolerance,
            self.decades,
            krylov.capacity // 2,
        )
        self.forecasts = [*self.forecasts[1:], steps]
        # One step more here should save one there.
        falls = steps > LOOK and steps <= self.forecasts[0] - (LOOK - 1)
        full = krylov.size + len(krylov.pending) > options.span
        return None if math.isinf(steps) or (falls and not full) else kept

    def _begin(self, kept: int) -> None:
        """Keep the first pairs, set the pending block aside and start afresh beside them."""
        krylov = self.krylov
        values, vectors, _ = krylov.ritz()
        krylov.turn(values[:kept], vectors[:, :kept])
        krylov.set_aside()
        self.first, self.lengths = krylov.size, 0.0
        self.checks += 1
        self._start()

    def _start(self) -> None:
        """One more random start of the search for what was missed."""
        if length := self.krylov.add(self._normal(1)):
            self.lengths += math.log(math.sqrt(2 / math.pi) * length)

    def _found(self) -> tuple[Vector, Vector]:
        """θ and r of the pairs that are set aside for a check."""
        assert self.krylov.aside is not None
        values = self.krylov.projected.diagonal()[: self.first].numpy()
        return values, self.krylov.aside[1][:, : self.first].norm(dim=0).numpy()

    def _unseen(self) -> tuple[float, float]:
        """A bound on eigenvalues beyond the pairs set aside, and the largest one seen there."""
        krylov, first = self.krylov, self.first
        if krylov.size == first:
            return 0.0, 0.0  # they are all
        inner = krylov.projected[first:, first:]
        ritz = torch.linalg.eigvalsh(inner).numpy()
        top = float(ritz.max())
        if krylov.size >= self.size:
            return top, top
        last = krylov.coupling[0, -1:].numpy() if len(krylov.pending) else np.zeros(1)
        steps = np.concatenate([inner.diagonal(1).numpy(), last])
        # Over all checks, however many, the chances add up to `chance` at most.
        chance = self.options.chance / (self.checks * (self.checks + 1.0))
        scale = krylov.largest()
        return largest_unseen(ritz, np.abs(steps), self.lengths, chance, scale), top

    def _cramped(self) -> CapacityError:
        rows = self.krylov.capacity
        return CapacityError(
            f"All {self.count} eigenvalues were found, but a basis of {rows} vectors leaves too "
            "little room to make sure that no other one is as large.",
            "Returned as they are, one might be missing.",
            "Raise memory=... or tolerance=..., or ask for another number: at a gap behind the "
            "last one it takes less.",
        )

    def _unsettled(self) -> EstimateError:
        values, _, coupled = self.krylov.ritz()
        if self.checking:
            stage = "all pairs were found, but one may still have been missed"
        else:
            worst = float(coupled.norm(dim=0)[: self.count].max()) / max(float(values[0]), 1e-300)
            stage = f"residuals go up to {worst:.1g} λ_1"
        return EstimateError(
            f"{self.options.maximum:,} products did not settle {self.count} eigenvalues to "
            f"{self.options.tolerance:.1g} of the largest: {stage}.",
            "Returned as they are, some might be wrong or missing.",
            "Raise maximum=... or tolerance=..., ask for fewer, or give memory=... for a larger "
            "basis; a state that keep=... was given last continues from there.",
        )

    def _normal(self, rows: int) -> Tensor:
        return torch.randn(rows, self.size, generator=self.random, dtype=torch.float64)

    def state(self) -> State:
        """All that the rest of the search depends on; views of it."""
        whole = self.first, self.checks, self.restarts, self.crowded
        counters = [*whole, self.lengths, *self.forecasts]
        return {
            "options": self.options.fingerprint(self.size),
            "random": self.random.get_state(),
            "search": torch.tensor(counters, dtype=torch.float64),
            **self.krylov.state(),
        }

    def resume(self, state: State) -> None:
        """Go on from a state.

        Raises:
            ChoiceError: if it is of another search.
        """
        mine = self.state()
        if not mine.keys() <= state.keys() or not torch.equal(state["options"], mine["options"]):
            raise ChoiceError(
                "The state to go on from is of another search.",
                "With another size, count, tolerance, block, seed, chance or memory the result "
                "would be neither the one nor the other.",
                "Give the options of the call that kept it, or no state.",
            )
        self.random.set_state(state["random"])
        self.krylov.resume(state)
        *whole, self.lengths = state["search"][:5].tolist()
        self.first, self.checks, self.restarts, self.crowded = map(int, whole)
        self.forecasts = state["search"][5:].tolist()

    def result(self) -> Leading:
        """The pairs and their bounds, once `step` has said that it is done."""
        values, residuals = self._found()
        unseen = max(self._unseen()[0], 0.0)
        held = min(self.count, len(values))
        converged = errors_of(values, residuals, unseen, held)[0]
        noise = self._noise(values)
        errors, beyond = errors_of(values, residuals, unseen, held, noise)
        told = int((values[:held] > errors).sum())
        if told < held:  # the others cannot be told from zero
            held = told
            errors, beyond = errors_of(values, residuals, unseen, held, noise)
        allowed = self.options.tolerance * float(values[0]) if len(values) else 0.0
        return Leading(
            eigenvalues=torch.from_numpy(values[:held].copy()),
            eigenvectors=self.krylov.basis[:held].T.clone(),
            residuals=torch.from_numpy(residuals[:held].copy()),
            errors=torch.from_numpy(errors.copy()),
            converged=torch.from_numpy(converged[:held] <= allowed),
            beyond=max(beyond, 0.0),
            noise=noise,
            chance=self.options.chance,
            tolerance=self.options.tolerance,
            products=self.krylov.products,
            reasons=self._reasons(held, noise, len(values)),
        )

    def _noise(self, values: Vector) -> float:
        """What products are off by, from one with a random combination of the vectors found."""
        few = min(self.count, len(values))
        if not few or not values[0] > 0.0:
            return 0.0
        krylov = self.krylov
        assert krylov.aside is not None
        rows, coupled = krylov.aside
        signs = torch.where(self._normal(1)[0, :few] > 0, 1.0, -1.0).double() / math.sqrt(few)
        X = krylov.basis[:few]
        product = krylov.apply((signs.to(X) @ X)[None])[0]
        expected = (signs * torch.from_numpy(values[:few].copy())).to(X) @ X
        expected += (coupled[:, :few] @ signs).to(X) @ rows
        off = float((product - expected).norm())
        units = UNITS * max(self.options.precision, EPS) * float(values[0])
        return max(units, PROBED * math.sqrt(few) * off, krylov.skew)

    def _reasons(self, held: int, noise: float, kept: int) -> tuple[str, ...]:
        options = self.options
        found = [f"{self.krylov.products} products from blocks of {options.block}"]
        if self.restarts:
            found.append(f"{self.restarts} restarts of a basis of {options.span}")
        if self.checks:
            found.append(
                f"{self.checks} searches for what was missed, the last beside {kept} pairs: one "
                f"may be missing with probability {options.chance:.0e} at most"
            )
        if held < self.count:
            found.append(f"only {held} are told from zero")
        if noise > options.tolerance * self.krylov.largest():
            found.append(f"products themselves are known to {noise:.1g} only")
        return tuple(found)
