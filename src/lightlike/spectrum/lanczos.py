"""Leading eigenvalues of a symmetric positive semi-definite operator, and that none was missed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightlike.errors import CapacityError, ChoiceError, EstimateError, choice_error
from lightlike.spectrum.krylov import Krylov
from lightlike.spectrum.leading import Leading, Vector, errors_of
from lightlike.spectrum.matrices import device_of, multiplied, precision_of
from lightlike.spectrum.memory import format_bytes, resolve_memory
from lightlike.spectrum.missing import largest_unseen
from lightlike.spectrum.rounding import EPS

State = dict[str, Tensor]

# Vectors between restarts and room for a check, as multiples of the number of eigenvalues asked
# for and at least: orthogonalisation against a few hundred costs as much as products.
SPAN, LEAST_SPAN = 5, 100
ROOM, LEAST_ROOM = 10, 200
# Share of the tolerance that pairs must meet before it is checked that none was missed: the bound
# on what was not seen is not as low then as the next pair suggests.
AHEAD = 0.25
# Products are taken to be good to this many rounding units of λ_1, or to this many times what one
# random combination of eigenvectors shows: a component of a standard normal is smaller than its
# inverse with probability 0.08.
UNITS, PROBED = 8.0, 10.0
# Relative asymmetry, and relative size of negative eigenvalues, that pass for rounding.
ASYMMETRY = 1e-5
NEGATIVE = 1e-6


def lanczos(
    op: Any,
    count: int,
    *,
    tolerance: float = 1e-7,
    block: int = 1,
    seed: int = 0,
    maximum: int | None = None,
    memory: int | float | str | None = None,
    chance: float = 1e-6,
    state: State | None = None,
    keep: Callable[[State], None] | None = None,
) -> Leading:
    """The largest eigenvalues of a symmetric positive semi-definite A, with bounds on their errors.

    Block Lanczos with full orthogonalisation and thick restarts, in float64 whatever the products
    are computed in. A Krylov space from one start sees one vector of each eigenspace, so the pairs
    it finds are set aside and the rest of A is searched from a fresh random vector, until an
    eigenvalue above the last one would have been missed with probability `chance` at most
    (`lightlike.spectrum.missing`); one that shows up there is taken in, and the search goes on.
    Errors are bounded by residuals and gaps (`lightlike.spectrum.leading`), the error of the
    products themselves included.

    Args:
        op: A tensor, an array, or an operator with `shape` and `@`; its attribute `precision`, if
            it has one, is the rounding unit of its products.
        count: How many.
        tolerance: Bound on the error of each eigenvalue by residuals and gaps, relative to λ_1.
        block: Vectors at once: eigenvalues of up to this multiplicity come without a search.
        seed: Of the random vectors.
        maximum: Products with one vector at most; 1,000 + 100 · count unless given.
        memory: Bytes or a text such as "8 GB" for the basis; what is available unless given.
        chance: Probability that is allowed of an eigenvalue having been missed.
        state: What `keep` was given, to go on from there, with the same options: the result is the
            same to the bit.
        keep: Called after every product of a block with all that the rest depends on. It is not
            copied: save or clone it before returning.

    Returns:
        The pairs; fewer than `count` if the matrix is smaller, or its rank within the errors.

    Raises:
        ChoiceError: if an option makes no sense, or the state is of other options.
        CapacityError: if the basis does not fit in memory.
        EstimateError: if `maximum` products do not do, or one is not finite.
        ValueError: if the operator is not square, symmetric and positive semi-definite.
    """
    return Search(
        op, count, tolerance, block, seed, maximum, memory, chance, keep
    ).run(state)  # fmt: skip


class Search:
    """The state of a search for leading eigenvalues; see `lanczos` for the arguments."""

    def __init__(
        self,
        op: Any,
        count: int,
        tolerance: float,
        block: int,
        seed: int,
        maximum: int | None,
        memory: int | float | str | None,
        chance: float,
        keep: Callable[[State], None] | None,
    ) -> None:
        for name, value in (("count", count), ("block", block)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise choice_error(name, value, ["a whole number from 1 up"])
        if not 1e-14 <= tolerance < 1.0:
            raise choice_error("tolerance", tolerance, ["a number from 1e-14 to below 1"])
        if not 0.0 < chance < 1.0:
            raise choice_error("chance", chance, ["a probability above 0 and below 1"])
        self.operator = multiplied(op)
        self.precision = precision_of(op)
        self.size = int(self.operator.shape[0])
        self.count, self.block = min(count, self.size), min(block, max(self.size, 1))
        self.tolerance, self.chance, self.keep = tolerance, chance, keep
        self.maximum = 1000 + 100 * count if maximum is None else maximum
        # The count and block as they were asked for, so that a state is told from another's.
        self.options = torch.tensor(
            [self.size, count, tolerance, block, seed, chance], dtype=torch.float64
        )
        self.random = torch.Generator().manual_seed(seed)
        room = self._room(memory)
        self.span = min(room, max(SPAN * count, LEAST_SPAN))
        self.krylov = Krylov(self.operator, room, device_of(op))
        self.first, self.lengthss, self.checks, self.restarts = 0, 0.0, 0, 0

    def _room(self, memory: int | float | str | None) -> int:
        """Rows of the basis there is memory for; pending blocks and products take some more."""
        most = min(self.size, max(ROOM * self.count, LEAST_ROOM))
        budget = resolve_memory(memory)
        fitting = int(budget / (8.0 * max(self.size, 1))) - 4 * self.block - 4
        least = min(self.size, self.count + 2 * self.block + 8)
        if fitting < least:
            raise CapacityError(
                f"A basis of {least + 4 * self.block + 4} vectors of {self.size:,} entries needs "
                f"{format_bytes(8.0 * self.size * (least + 4 * self.block + 4))}, but "
                f"{format_bytes(budget)} may be used.",
                "Without it, eigenvalues would come twice or be wrong.",
                "Ask for fewer eigenvalues, or raise memory=... if more is there.",
            )
        # Room for whole blocks.
        return min(fitting, most) + self.block

    def run(self, state: State | None) -> Leading:
        """Search until every eigenvalue is bounded and none was missed."""
        if state is not None:
            self._resume(state)
        elif self.size:
            self.krylov.add(self._normal(self.block))
        while not (self.check() if self.checking else self.advance()):
            if self.keep is not None:
                self.keep(self.state())
        return self._result()

    @property
    def checking(self) -> bool:
        """Whether what was found is set aside and the rest of A searched."""
        return self.krylov.aside is not None

    def advance(self) -> bool:
        """One step of the search itself; whether nothing is left to do."""
        krylov = self.krylov
        if not len(krylov.pending):
            # The basis is invariant: what it holds is exact, but need not be all.
            if krylov.size >= self.size:
                krylov.set_aside()
                self.first = krylov.size
                values, vectors, _ = krylov.ritz()
                krylov.turn(values, vectors)
                return True
            if krylov.size < self.count:
                krylov.add(self._normal(1))
            else:
                self._begin_check(krylov.size)
            return False
        self._afford()
        krylov.step()
        self._confirm()
        if (kept := self._ripe()) is not None:
            self._begin_check(kept)
        elif krylov.size + len(krylov.pending) > self.span and len(krylov.pending):
            self.restarts += 1
            values, vectors, _ = krylov.ritz()
            keep = min((self.count + self.span) // 2, self.span - 2 * len(krylov.pending))
            keep = min(max(keep, self.count + 1), krylov.size)
            krylov.turn(values[:keep], vectors[:, :keep])
        return False

    def check(self) -> bool:
        """One step of the search for what was missed; whether nothing was."""
        krylov = self.krylov
        if len(krylov.pending):
            self._afford()
            krylov.step()
            self._confirm()
        values, residuals = self._found()
        unseen, top = self._unseen()
        allowed = self.tolerance * max(self.largest, top)
        least = float(values[self.count - 1]) if len(values) >= self.count else -math.inf
        missed = top > least + allowed
        if not missed:
            if self._within(values, residuals, unseen):
                return True
            hopeless = not self._within(values, residuals, top)
            full = krylov.size + 1 > krylov.capacity
            if not (hopeless or full):
                if not len(krylov.pending):
                    self._start()
                return False
            if hopeless and not full:
                # Nothing new: sharpen what was found.
                krylov.drop(self.first)
        self._rejoin()
        return False

    def _rejoin(self) -> None:
        self.krylov.rejoin()
        if self.krylov.size + len(self.krylov.pending) > self.span:
            values, vectors, _ = self.krylov.ritz()
            keep = max(self.count + 1, min(self.first, self.span // 2))
            keep = min(keep, self.krylov.size)
            self.krylov.turn(values[:keep], vectors[:, :keep])
            self.restarts += 1

    def _begin_check(self, kept: int) -> None:
        """Keep the first pairs, set the pending block aside and start afresh beside them."""
        krylov = self.krylov
        values, vectors, _ = krylov.ritz()
        krylov.turn(values[:kept], vectors[:, :kept])
        krylov.set_aside()
        self.first = krylov.size
        self.checks += 1
        self.lengths = 0.0
        self._start()

    def _start(self) -> None:
        """One more random start of the search for what was missed."""
        length = self.krylov.add(self._normal(1))
        self.lengths += math.log(math.sqrt(2 / math.pi) * length) if length else 0.0

    def _ripe(self) -> int | None:
        """How many pairs to keep for a check: the most with which the bounds could be met."""
        krylov = self.krylov
        if not len(krylov.pending) or krylov.size <= self.count:
            return None
        values, _, coupled = krylov.ritz()
        theta, residuals = values.numpy(), coupled.norm(dim=0).numpy()
        allowed = AHEAD * self.tolerance * float(theta[0])
        # No gap is wider than θ itself.
        reach = residuals[: self.count]
        if (np.minimum(reach, reach**2 / np.maximum(theta[: self.count], allowed)) > allowed).any():
            return None
        best = None
        for kept in range(self.count, len(theta)):
            if self._within(theta[:kept], residuals[:kept], max(float(theta[kept]), 0.0), AHEAD):
                best = kept
            elif best is not None:
                break
        return best

    def _within(self, values: Vector, residuals: Vector, unseen: float, share: float = 1.0) -> bool:
        """Whether residuals and gaps bound all errors by a share of the tolerance."""
        if len(values) < self.count:
            return unseen <= share * self.tolerance * self.largest
        errors, _ = errors_of(values, residuals, max(unseen, 0.0), self.count)
        return bool((errors <= share * self.tolerance * self.largest).all())

    @property
    def largest(self) -> float:
        """θ_1 of all of the basis."""
        return float(torch.linalg.eigvalsh(self.krylov.projected)[-1]) if self.krylov.size else 0.0

    def _found(self) -> tuple[Vector, Vector]:
        """θ and r of the pairs that were set aside for a check."""
        assert self.krylov.aside is not None
        values = self.krylov.projected.diagonal()[: self.first].numpy()
        coupled = self.krylov.aside[1][:, : self.first]
        residuals = coupled.norm(dim=0) if len(coupled) else torch.zeros(self.first)
        return values, residuals.double().numpy()

    def _unseen(self) -> tuple[float, float]:
        """A bound on eigenvalues beyond the pairs set aside, and the largest one seen there."""
        krylov, first = self.krylov, self.first
        if krylov.size == first:
            return 0.0, 0.0
        inner = krylov.projected[first:, first:]
        ritz = torch.linalg.eigvalsh(inner).numpy()
        last = krylov.coupling[0, -1:].numpy() if len(krylov.pending) else np.zeros(1)
        steps = np.concatenate([inner.diagonal(1).numpy(), last])
        if not len(krylov.pending) and krylov.size >= self.size:
            return float(ritz.max()), float(ritz.max())  # nothing else is left
        # Over all checks the chances add up to `chance` at most.
        chance = self.chance / (self.checks * (self.checks + 1.0))
        unseen = largest_unseen(ritz, np.abs(steps), self.lengths, chance, self.largest)
        return unseen, float(ritz.max())

    def _confirm(self) -> None:
        """Raise a ValueError if the operator is visibly no positive semi-definite matrix."""
        krylov, scale = self.krylov, self.krylov.scale
        allowed = max(ASYMMETRY, 1e3 * self.precision)
        if krylov.skew > allowed * scale:
            raise ValueError(
                f"the operator is not symmetric, or changes from product to product: xᵀA y and "
                f"yᵀA x differ by {krylov.skew:.2g} where the largest entry is {scale:.2g}"
            )
        least = float(torch.linalg.eigvalsh(krylov.projected)[0])
        if least < -max(NEGATIVE, 1e2 * self.precision) * scale:
            raise ValueError(
                f"the operator is not positive semi-definite: xᵀA x = {least:.3g} for a unit "
                f"vector, where the largest entry is {scale:.3g}"
            )

    def _afford(self) -> None:
        done, next_ = self.krylov.products, len(self.krylov.pending)
        if done + next_ <= self.maximum:
            return
        values, _, coupled = self.krylov.ritz()
        some = coupled.norm(dim=0)[: self.count] / max(float(values[0]), 1e-300)
        stage = (
            "with all pairs found, an eigenvalue may still have been missed"
            if (self.checking)
            else f"residuals of the largest {len(some)} go up to {float(some.max()):.1g} λ_1"
        )
        raise EstimateError(
            f"{self.maximum} products did not settle {self.count} eigenvalues to "
            f"{self.tolerance:.1g} of the largest: {stage}.",
            "Returned as they are, some might be wrong or missing.",
            "Raise maximum=... or tolerance=..., ask for fewer eigenvalues, or give memory=... for "
            "a larger basis; with keep=..., the next call goes on from the last state.",
        )

    def _normal(self, rows: int) -> Tensor:
        return torch.randn(rows, self.size, generator=self.random, dtype=torch.float64)

    def state(self) -> State:
        """All that the rest of the search depends on; views of it."""
        found = {"options": self.options, "random": self.random.get_state()}
        found.update(self.krylov.state())
        found["search"] = torch.tensor(
            [self.first, self.lengthss, self.checks, self.restarts], dtype=torch.float64
        )
        return found

    def _resume(self, state: State) -> None:
        same = {"options", "random", "basis", "search"} <= state.keys()
        if not same or not torch.equal(state["options"], self.options):
            raise ChoiceError(
                "The state to go on from is of another search.",
                "With another matrix size, count, tolerance, block, seed or chance the result "
                "would be neither the one nor the other.",
                "Give the options of the call that kept it, or no state.",
            )
        self.random.set_state(state["random"])
        self.krylov.resume(state)
        first, self.lengths, checks, restarts = state["search"].tolist()
        self.first, self.checks, self.restarts = int(first), int(checks), int(restarts)

    def _result(self) -> Leading:
        values, residuals = self._found()
        unseen = max(self._unseen()[0], 0.0)
        noise = self._noise(values)
        kept = min(self.count, len(values))
        krylov_errors, _ = errors_of(values, residuals, unseen, kept)
        errors, beyond = errors_of(values, residuals, unseen, kept, noise)
        # What cannot be told from zero is not held.
        held = int((values[:kept] > errors).sum()) if kept else 0
        if held < kept:
            errors, beyond = errors_of(values, residuals, unseen, held, noise)
        tolerance = self.tolerance * float(values[0]) if len(values) else 0.0
        return Leading(
            eigenvalues=torch.from_numpy(values[:held].copy()),
            eigenvectors=self.krylov.basis[:held].T.clone(),
            residuals=torch.from_numpy(residuals[:held].copy()),
            errors=torch.from_numpy(errors[:held].copy()),
            converged=torch.from_numpy(krylov_errors[:held] <= tolerance),
            beyond=beyond,
            noise=noise,
            chance=self.chance,
            tolerance=self.tolerance,
            products=self.krylov.products,
            reasons=self._reasons(held, noise, len(values)),
        )

    def _noise(self, values: Vector) -> float:
        """What products are off by, from one with a random combination of the vectors found."""
        if not len(values) or not values[0] > 0.0:
            return 0.0
        assert self.krylov.aside is not None
        few = min(self.count, len(values))
        signs = torch.where(self._normal(1)[0, :few] > 0, 1.0, -1.0).double()
        signs /= math.sqrt(few)
        X = self.krylov.basis[:few]
        product = self.krylov.apply((signs.to(X) @ X)[None])[0]
        expected = (signs * torch.from_numpy(values[:few].copy())).to(X) @ X
        rows, coupled = self.krylov.aside
        if len(rows):
            expected += (coupled[:, :few] @ signs).to(X) @ rows
        off = float((product - expected).norm())
        units = UNITS * max(self.precision, EPS) * float(values[0])
        return max(units, PROBED * math.sqrt(few) * off, self.krylov.skew)

    def _reasons(self, held: int, noise: float, kept: int) -> tuple[str, ...]:
        found = [f"{self.krylov.products} products in blocks of {self.block}"]
        if self.restarts:
            found.append(f"{self.restarts} restarts of a basis of {self.span}")
        found.append(
            f"{self.checks} searches for what was missed, the last beside {kept} vectors: "
            f"probability {self.chance:.0e} at most"
        )
        if held < self.count:
            found.append(f"no more than {held} are told from zero")
        if noise > self.tolerance * self.largest:
            found.append(f"products themselves are known to {noise:.1g} only")
        return tuple(found)
