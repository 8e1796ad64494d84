"""Stochastic Lanczos quadrature: sums over the eigenvalues of a matrix, from products with it.

Random probes z see E[zᵀ f(F) z] = tr f(F), and a few Lanczos steps from each give f(F) to them
(Ubaru, Chen & Saad 2017, doi:10.1137/16M1104974). The leading eigenvectors, which would make up
most of the variance, are taken out first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import ChoiceError, choice_error
from lightlike.numbers import (
    check_callable,
    check_not_negative,
    check_seed,
    check_whole,
    is_finite,
)
from lightlike.spectrum.beginning import State, Steps, sought, taken_out
from lightlike.spectrum.control import WORTH, Approximation, Control
from lightlike.spectrum.density import Density
from lightlike.spectrum.distinct import Distinct, distinct
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.probes import Operator, orthogonal, sphere
from lightlike.spectrum.recurrence import Recurrence
from lightlike.spectrum.sufficing import take_steps
from lightlike.spectrum.threeterm import ThreeTerm
from lightlike.spectrum.tridiagonal import Measure

# Leading eigenvectors that are taken out, and probes whose steps are taken side by side, if memory
# allows.
DEFLATE, BLOCK = 10, 8
# Steps that distinct eigenvalues are sought by at most, and for each of them.
SEEK, SEEK_EACH = 200, 40
# Approximations of a Fisher matrix that take noise off sums over its eigenvalues.
CONTROLS = ("ekfac", "kfac", "blocks")


@dataclass(frozen=True)
class Quadrature:
    """How a spectrum is estimated by stochastic Lanczos quadrature.

    Given as `method`, or "slq" for the defaults.

    Args:
        probes: Random vectors, two or more: the standard error falls as one over their root.
        steps: Lanczos steps from each at most; they end when what quadrature leaves open is below a
            share of the standard error.
        deflate: Leading eigenvectors that are taken out first, as many as converge in four times as
            many steps and 20; 10 unless given, or none with `distinct`.
        share: That share.
        block: Probes side by side; up to 8 unless given, as memory allows.
        control: "ekfac", "kfac" or "blocks": an approximation of a Fisher matrix whose own forms of
            the probes take part of the noise off, without bias. It takes a pass or two over all
            rows, which is little where an observation has few; of small networks it saved a fifth
            to half of the variance. The slope is fitted, from eight probes or more, and the error
            is then known from them alone: intervals are Student's. None: the probes alone.
        distinct: How many of the largest distinct eigenvalues to find. If it is not 0, steps keep
            three vectors and no basis, of one probe at a time: what a basis would be too large for.
            A repeated eigenvalue is then seen once. With `deflate`, so many vectors are kept beside
            them, by steps that are taken twice: it mostly halves the steps that follow.
        tolerance: Of those, relative to λ_1: they are known to that at least.
        maximum: Steps of their search at most; 200 + 40 · distinct unless given.

    Raises:
        ChoiceError: if a number is out of range, or the control unknown.
    """

    probes: int = 16
    steps: int = 200
    deflate: int | None = None
    share: float = 0.05
    block: int | None = None
    control: str | None = None
    distinct: int = 0
    tolerance: float = 1e-4
    maximum: int | None = None

    def __post_init__(self) -> None:
        needed = ("probes", 2), ("steps", 2), ("distinct", 0)
        for name, least in (*needed, ("deflate", 0), ("block", 1), ("maximum", 2)):
            value = getattr(self, name)
            if value is None and (name, least) not in needed:
                continue
            check_whole(name, value, least)
        if not is_finite(self.share) or not 0.0 < self.share <= 1.0:
            raise choice_error("share", self.share, ["a number above 0, 1 at most"])
        if self.control is not None and self.control not in CONTROLS:
            raise choice_error("control", self.control, ["None", *map(repr, CONTROLS)])
        if self.control is not None and self.probes < WORTH:
            raise ChoiceError(
                f"control={self.control!r} is given with {self.probes} probes.",
                "The slope between controls and values is fitted to them, and its noise added.",
                f"Take {WORTH} or more, or no control.",
            )
        if not is_finite(self.tolerance) or not 1e-13 <= self.tolerance < 1.0:
            raise choice_error("tolerance", self.tolerance, ["a number from 1e-13 to below 1"])
        if self.distinct and (self.block or 1) > 1:
            raise ChoiceError(
                f"distinct={self.distinct} goes with one vector at a time, not block={self.block}.",
                "It is for vectors of which memory holds a few.",
                "Leave block out; or leave distinct out, where a basis fits in memory.",
            )

    @property
    def deflated(self) -> int:
        """Leading eigenvectors to take out."""
        if self.deflate is None:
            return 0 if self.distinct else DEFLATE
        return self.deflate

    @property
    def longest(self) -> int:
        """Steps of a search for distinct eigenvalues at most, or of a probe."""
        if not self.distinct:
            return self.steps
        return SEEK + SEEK_EACH * self.distinct if self.maximum is None else self.maximum

    @property
    def most(self) -> int:
        """Products of all probes together at most, but for what is taken out."""
        return self.probes * self.steps + (2 * self.longest if self.distinct else 0)


def check_targets(options: object, scale: object, above: object) -> None:
    """Raise a ChoiceError unless they are a quadrature and what it is to suffice for."""
    if options is not None and not isinstance(options, Quadrature):
        raise choice_error("options", options, ["None", "a lightlike.Quadrature"])
    for name, value in (("scale", scale), ("above", above)):
        if value is not None:
            check_not_negative(name, value)


def as_quadrature(method: Any) -> Quadrature | None:
    """The quadrature that a `method` means, if it means one."""
    if isinstance(method, Quadrature):
        return method
    return Quadrature() if method == "slq" else None


def quadrature(
    F: Any,
    options: Quadrature | None = None,
    *,
    scale: float | None = None,
    above: float | None = None,
    seed: int = 0,
    vectors: Tensor | None = None,
    memory: int | float | str | None = None,
    state: Mapping[str, Tensor] | None = None,
    keep: Callable[[State], None] | None = None,
    approximation: Approximation | None = None,
) -> Density:
    """The density of eigenvalues of a symmetric positive semi-definite matrix or operator.

    Any sum over eigenvalues can be had of it afterwards; steps are taken until what quadrature
    leaves open of those asked for here is small beside the standard error. If neither `scale` nor
    `above` is given, all steps are taken.

    Args:
        F: Anything with `shape` and `@`, (n, n).
        options: Probes, steps and so on.
        scale: c of a log det(I + c F) that steps suffice for.
        above: ε of a count of eigenvalues beyond it that steps suffice for; mostly far more.
        seed: Of all random vectors.
        vectors: (n, k), linearly independent: what is taken out in place of leading eigenvectors.
        memory: For the vectors of the probes side by side.
        state: What `keep` was last given by an interrupted call with the same arguments, to go on
            from there: the result is the same to the bit.
        keep: Called with all that is known so far, as tensors by name, after every block of probes.
        approximation: What the control is made of, if the options ask for one.

    Raises:
        DataError: if F is not square and real.
        EstimateError: if F is not symmetric or positive semi-definite, or a product not finite.
        ChoiceError: if the state is of another call, or an option out of range.
    """
    check_targets(options, scale, above)
    check_seed(seed)
    check_callable("keep", keep)
    if state is not None and not isinstance(state, Mapping):
        raise choice_error("state", state, ["None", "what keep was given"])
    options = options or Quadrature()
    if options.control is not None and approximation is None:
        raise choice_error("control", options.control, ["None for anything but a Fisher matrix"])
    operator = Operator(F)
    n = operator.size
    block = options.block or _block(n, options, memory)
    if vectors is not None and options.distinct:
        raise choice_error("vectors", "a tensor", ["None with Quadrature(distinct=...)"])
    whole = n, options.probes, options.steps, options.deflated, options.distinct, options.longest
    settings = torch.tensor([*whole, seed, vectors is not None], dtype=torch.int64)
    given = options.share, scale, above, options.tolerance
    targets = torch.tensor([math.nan if t is None else t for t in given], dtype=torch.float64)
    if state is None:

        def take(run: Steps, mass: float) -> None:
            take_steps(run, options, mass, scale, above)

        if options.distinct and n:
            sizes = options.distinct, options.deflated, options.tolerance, options.longest
            found = sought(operator, *sizes, seed, take)
        else:
            found = taken_out(operator, options.deflated, seed, vectors, take)
        found |= {
            "settings": settings,
            "targets": targets,
            "block": torch.tensor(block),
            "products": torch.tensor(operator.products),
        }
        if keep is not None:
            keep(dict(found))
    else:
        _check_state(state, settings, targets)
        found = dict(state)
        block = int(found["block"])
    Q = found["vectors"].to(operator.device)
    mass = n - Q.shape[1]
    done = sum(name.endswith(".alphas") and name.startswith("probe") for name in found)
    while done < options.probes and mass:
        indices = range(done, min(done + block, options.probes))
        starts = orthogonal(sphere(n, seed, indices, operator.device), Q)
        before = operator.products
        run: Steps
        if options.distinct:
            run = ThreeTerm(operator, starts[:, 0])
        else:
            run = Recurrence(operator, starts)
        take_steps(run, options, mass, scale, above)
        for index, measure in zip(indices, run.measures(), strict=True):
            found[f"probe.{index}.alphas"] = measure.alphas
            found[f"probe.{index}.betas"] = measure.betas
        found["products"] = found["products"] + (operator.products - before)
        done = indices.stop
        if keep is not None:
            keep(dict(found))
    control = None
    if options.control is not None and approximation is not None and done:
        control = Control.of(approximation, found["vectors"], seed, done)
    return _density(found, n, done, operator.precision, seed, options, control)


def _density(
    found: State,
    n: int,
    done: int,
    precision: float,
    seed: int,
    options: Quadrature,
    control: Control | None,
) -> Density:
    whole = not options.distinct
    largest: Distinct | None = None

    def measures(kind: str, count: int | None) -> list[Measure]:
        names = [kind] if count is None else [f"{kind}.{i}" for i in range(count)]
        return [Measure(found[f"{m}.alphas"], found[f"{m}.betas"], precision, whole) for m in names]

    taken, seen = measures("leading", found["vectors"].shape[1]), measures("probe", done)
    for measure in (*taken, *seen):
        _ = measure.gauss  # refuses what is not positive semi-definite, and is kept for the sums
    if not whole:
        searched = measures("search", None) if "search.alphas" in found else []
        locked, coupling = found.get("locked"), float(found.get("coupling", 0.0))
        largest = distinct(
            [*searched, *seen], options.distinct, options.tolerance, locked, coupling
        )
    return Density(
        distinct=largest,
        size=n,
        leading=taken,
        probes=seen,
        vectors=found["vectors"],
        positive=int(found["positive"]),
        products=int(found["products"]),
        seed=seed,
        control=control,
    )


def _block(n: int, options: Quadrature, memory: int | float | str | None) -> int:
    """Probes side by side: their Krylov vectors are to fit in half the memory."""
    if options.distinct:
        return 1
    each = 8.0 * max(n, 1) * (min(options.steps, n) + 4)
    return max(1, min(BLOCK, options.probes, int(0.5 * resolve_memory(memory) / each)))


def _check_state(state: Mapping[str, Tensor], settings: Tensor, targets: Tensor) -> None:
    names = {"settings", "targets", "block", "products", "vectors", "positive"}
    same = names <= set(state) and torch.equal(state["settings"], settings)
    if same and torch.equal(state["targets"].nan_to_num(-1.0), targets.nan_to_num(-1.0)):
        return
    raise ChoiceError(
        "The state is not of a quadrature with these arguments.",
        "Probes of two matrices or of two seeds would be mixed.",
        "Give the arguments of the call that was interrupted, or begin anew without a state.",
    )
