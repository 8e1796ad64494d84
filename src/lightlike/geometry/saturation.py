"""How the dimension grows with the number of observations, and where it stops growing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightlike.errors import ChoiceError
from lightlike.geometry.checks import check_fisher
from lightlike.geometry.counting import ascending, demand_float64
from lightlike.geometry.dimension import Dimension
from lightlike.geometry.prefixes import Keep, Prefixes
from lightlike.geometry.tables import cells, dimension_cells, render
from lightlike.metric.fisher import Fisher
from lightlike.numbers import check_seed, is_whole
from lightlike.results import Result


@dataclass(frozen=True)
class Saturation(Result):
    """The dimension d̂ on n = sizes[0] < sizes[1] < … observations, each a part of the next.

    Attributes:
        sizes: Numbers of observations n.
        rows: K = n · rank Λ of each, the most that d̂ can be.
        dimensions: d̂ of each: singular values of A's rows above one bound, that of all
            observations, so that d̂ never falls.
        rank: rank Λ, rows of A for each observation.
        parameters: D.
        observations: N, of which the subsets are taken.
        dimension: d̂ on all N; the dimension at which it saturates on these data, if `point` is
            not None.
        point: (a, b): the dimension on a observations is less than on all, on b it is the same,
            and where every rank is exact b = a + 1: b observations suffice in this order. None if
            the last observation still adds to the dimension, unless that is D, and if the
            dimension is 0: more observations could then raise it.
        seed: Of the order in which observations were added.
    """

    sizes: tuple[int, ...]
    rows: tuple[int, ...]
    dimensions: tuple[Dimension, ...]
    rank: int
    parameters: int
    observations: int
    dimension: Dimension
    point: tuple[int, int] | None
    seed: int

    @property
    def verdict(self) -> str:
        """Where it saturates, in a sentence."""
        if not self.dimension.value:
            return "No direction changes the predictions."
        if self.point is None:
            if any(d.kind != "exact" for d in self.dimensions):
                return "Where it saturates, if it does, is hidden by rounding."
            return "Not saturated: the last observations still add dimensions."
        a, b = self.point
        where = f"at {b:,} observations" if b == a + 1 else f"between {a:,} and {b:,} observations"
        return f"Saturates at dimension {self.dimension.value:,} {where} of {self.observations:,}."

    @staticmethod
    def from_dict(given: dict[str, Any]) -> Saturation:
        """The answer that `to_dict` took apart."""
        point = given["point"]
        return Saturation(
            **{
                **given,
                "sizes": tuple(given["sizes"]),
                "rows": tuple(given["rows"]),
                "dimensions": tuple(Dimension.from_dict(d) for d in given["dimensions"]),
                "dimension": Dimension.from_dict(given["dimension"]),
                "point": None if point is None else (point[0], point[1]),
            }
        )

    def _records(self) -> list[dict[str, Any]]:
        listed = zip(self.sizes, self.rows, self.dimensions, strict=True)
        return [{"observations": n, "rows": k, **dimension_cells(d)} for n, k, d in listed]

    def __str__(self) -> str:
        listed = zip(self.sizes, self.rows, self.dimensions, strict=True)
        rows = [(f"{n:,}", f"{k:,}", *cells(d)) for n, k, d in listed]
        return render(
            f"Dimension of D = {self.parameters:,} parameters against observations "
            f"(seed {self.seed})",
            ("observations", f"rows K ({self.rank} each)", "dimension", "kind"),
            rows,
            [self.verdict],
        )


def saturation(
    F: Fisher,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    memory: int | float | str | None = None,
) -> Saturation:
    """The dimension against the number of observations, on nested subsets in random order.

    d̂(n) = rank of the rows of A that the first n observations give, at most min(D, n · rank Λ), and
    never falling. All subsets come from one Gram matrix, of which theirs are principal
    submatrices, or from one orthogonal factorisation of A; a rank that eigenvalues cannot decide is
    taken to the latter.

    Args:
        F: From `lightlike.fisher`.
        sizes: Numbers of observations; from 1 to N in steps of a factor √2 unless given, and the
            two about the point of saturation.
        seed: Of the order of the observations.
        memory: What may be used, in bytes or as "8 GB".

    Raises:
        ChoiceError: if a size is no whole number from 1 to N, or the model is evaluated in float32.
        CapacityError: if neither the Gram matrix nor A fits in memory.

    Source: arXiv 1905.11027, for the bound.
    """
    return saturate(F, sizes, seed, memory=memory)


def saturate(
    F: Fisher,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    *,
    memory: int | float | str | None = None,
    known: Mapping[int, Dimension] | None = None,
    keep: Keep | None = None,
) -> Saturation:
    """`saturation`, going on from the dimensions of subsets that were found before.

    Args:
        F: See `saturation`.
        sizes: See `saturation`.
        seed: See `saturation`.
        memory: See `saturation`.
        known: By numbers of observations, of the same F, seed and memory.
        keep: Called with all that are known when one was found.
    """
    check_fisher(F)
    check_seed(seed)
    demand_float64(F, "The saturation")
    total = F.problem.survey.observations
    chosen = _sizes(sizes, total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    prefixes = Prefixes(F, order, memory, known, keep)
    for size in reversed(chosen):  # the largest first: their bounds spare others a refinement
        prefixes.dimension(size)
    point = _point(prefixes, chosen)
    if sizes is None and point is not None:
        chosen = sorted({*chosen, *point} - {0})
    return Saturation(
        sizes=tuple(chosen),
        rows=tuple(n * prefixes.rank for n in chosen),
        dimensions=ascending([prefixes.dimension(n) for n in chosen]),
        rank=prefixes.rank,
        parameters=F.shape[0],
        observations=total,
        dimension=prefixes.whole,
        point=point,
        seed=seed,
    )


def steps(total: int) -> list[int]:
    """Numbers of observations from 1 to all in steps of a factor √2."""
    found = {total}
    size = float(total)
    while size > 1.0:
        size /= 2.0**0.5
        found.add(max(1, round(size)))
    return sorted(found)


def _sizes(sizes: Sequence[int] | None, total: int) -> list[int]:
    if sizes is None:
        return steps(total)
    given = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else []
    if not given or not all(is_whole(size) and 1 <= size <= total for size in given):
        raise ChoiceError(
            f"sizes={sizes!r} are not numbers of observations.",
            f"Subsets are taken of the {total:,} that there are.",
            f"Give one or more whole numbers from 1 to {total:,}.",
        )
    return sorted({int(size) for size in given})


def _point(prefixes: Prefixes, sizes: Sequence[int]) -> tuple[int, int] | None:
    """Where the dimension of all observations is reached, by bisection."""
    whole = prefixes.whole
    if not whole.value:
        return None
    low, high = 0, prefixes.observations
    for size in sizes:
        if prefixes.dimension(size).upper < whole.lower:
            low = max(low, size)
        if prefixes.dimension(size).lower >= whole.upper:
            high = min(high, size)
    while high - low > 1:
        middle = (low + high) // 2
        found = prefixes.dimension(middle)
        if found.upper < whole.lower:
            low = middle
        elif found.lower >= whole.upper:
            high = middle
        else:
            break
    full = whole.value == prefixes.root.shape[1]
    return (low, high) if high < prefixes.observations or full else None
