"""The answer of `lightlike.explain`: which null directions have a name, and how many have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.sparse import csc_array

from lightlike.geometry.symmetry.origin import Origin
from lightlike.geometry.tables import render
from lightlike.results import Result


@dataclass(frozen=True)
class Source(Result):
    """Null directions of one kind in one place.

    Kinds, by what the directions do:

    - "rescaling": a unit's incoming weights × c, its outgoing ones × 1/c, around a rectifier;
      "normalised scale": the same ahead of a normalisation; "length of a normalised weight": of v
      in w = g v / ‖v‖;
    - "bias before normalisation", "bias before bias", "bias beside bias": a constant that one bias
      gains and others lose;
    - "linear factorisation": W_2 W_1 with nothing nonlinear between; so also the gain of a
      normalisation ahead of a linear layer, and units that are linear on all of the data;
    - "queries and keys", "values and output": invertible maps inside the heads of attention;
    - "rotation of a normalised stream", "gain of a normalisation", "mean behind normalisation",
      "offset of a normalisation": what LayerNorm and RMSNorm let through, and its readers undo;
    - "shift of a tied table": one vector added to all rows of a table that makes the logits too;
    - "softmax shift", "shift before normalisation": one number added to all outputs alike;
    - "duplicated unit", "saturated unit", "constant unit": activations that are multiples of one
      another, or of the bias, or at an end of tanh, sigmoid and the like; "dead unit": never
      active; "zero outgoing weights": never read; "rarely active unit": active on too few inputs to
      tell its weights;
    - "dependent inputs", "dependent outputs": a layer whose inputs, or back-propagated rows, span
      less than their width;
    - "zero input", "unseen embedding row", "inert parameter": single parameters whose gradient is 0
      on all of the data;
    - "unused parameter", "disconnected", "detached parameter": outside the differentiable graph.
      The model never reads the first; nothing leads from the second to the output; the output does
      depend on the third, but no gradient does, as behind `detach()`. Its directions are null for
      all that derivatives tell, and prove nothing about the predictions themselves;
    - "too few observations": all rows of A are independent, and there are fewer of them than D.

    Attributes:
        kind: A short fixed phrase: "rescaling", "dead unit", "softmax shift", …
        where: Names of the layers, "" for the whole model.
        dimension: How many independent dimensions it adds to the sources before it.
        claimed: Directions that the reason proposes.
        verified: Those with A v = 0.
    """

    kind: str
    where: str
    dimension: int
    claimed: int
    verified: int


@dataclass(frozen=True, eq=False)
class Explanation(Result):
    """The radical ker Î(θ) by its sources (Sun & Nielsen, arXiv 1905.11027).

    `explained + unexplained` is the dimension D − d̂ of the radical. What is explained is a certain
    lower bound of it: each direction was held against A, and dependent ones count once. A direction
    that is independent of the others by less than 1e-5 of its length does not count.

    Attributes:
        sources: In a fixed order; each dimension belongs to the first that has it.
        explained: Σ of their dimensions.
        unexplained: What is left of the radical.
        certain: Independent verified directions; the rest of `explained` is due to too few
            observations, known from the rank alone.
        directions: The verified directions, (D, k), as columns; they may be dependent.
        shape: (K, D), the shape of A.
        frozen: Parameters that are left out of D.
        tolerance: Relative to the largest singular value of A.
        graph: Whether the model's calls could be followed; if not, only what data tell is there.
        origin: What tells the point, data and likelihood from others.
        hidden: Calls of which only the results were seen, as those of a `torch.autograd.Function`
            or of a compiled module; no symmetry was sought through them.
    """

    sources: list[Source]
    explained: int
    unexplained: int
    certain: int
    directions: csc_array
    shape: tuple[int, int]
    frozen: tuple[str, ...]
    tolerance: float
    graph: bool
    origin: Origin
    hidden: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """D."""
        return self.shape[1]

    @property
    def radical(self) -> int:
        """D − d̂."""
        return self.explained + self.unexplained

    def summary(self) -> ExplanationSummary:
        """The same without directions: plain numbers, as a measurement keeps them."""
        return ExplanationSummary(
            sources=tuple(self.sources),
            explained=self.explained,
            unexplained=self.unexplained,
            certain=self.certain,
            shape=self.shape,
            frozen=self.frozen,
            tolerance=self.tolerance,
            graph=self.graph,
            hidden=self.hidden,
        )

    def to_dict(self) -> dict[str, Any]:
        """Sources and sums, without the directions themselves, in plain Python types."""
        return self.summary().to_dict()

    def _records(self) -> Sequence[Mapping[str, Any]]:
        return self.summary()._records()

    def __str__(self) -> str:
        return str(self.summary())


@dataclass(frozen=True)
class ExplanationSummary(Result):
    """An `Explanation` without its directions, so that it can be kept, compared and saved.

    Attributes:
        sources: In a fixed order; each dimension belongs to the first that has it.
        explained: Σ of their dimensions.
        unexplained: What is left of the radical.
        certain: Independent verified directions.
        shape: (K, D), the shape of A.
        frozen: Parameters that are left out of D.
        tolerance: Relative to the largest singular value of A.
        graph: Whether the model's calls could be followed.
        hidden: Calls of which only the results were seen.
    """

    sources: tuple[Source, ...]
    explained: int
    unexplained: int
    certain: int
    shape: tuple[int, int]
    frozen: tuple[str, ...]
    tolerance: float
    graph: bool
    hidden: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """D."""
        return self.shape[1]

    @property
    def radical(self) -> int:
        """D − d̂."""
        return self.explained + self.unexplained

    @property
    def listed(self) -> list[Source]:
        """Sources but for those that verified and yet add nothing: counted under another name."""
        return [s for s in self.sources if s.dimension or not s.verified]

    @property
    def notes(self) -> list[str]:
        """What it leaves out, in sentences."""
        found = []
        if self.frozen:
            found.append(f"Not counted: {', '.join(self.frozen)} (frozen or not selected).")
        if not self.graph:
            found.append("The model's calls could not be followed: symmetries were not sought.")
        if self.hidden:
            found.append(
                f"Not looked into: {', '.join(self.hidden)}; no symmetry was sought through it."
            )
        return found

    @staticmethod
    def from_dict(given: dict[str, Any]) -> ExplanationSummary:
        """The summary that `to_dict` took apart."""
        rows, columns = given["shape"]
        return ExplanationSummary(
            **{
                **given,
                "sources": tuple(Source(**source) for source in given["sources"]),
                "shape": (rows, columns),
                "frozen": tuple(given["frozen"]),
                "hidden": tuple(given.get("hidden", ())),
            }
        )

    def _records(self) -> Sequence[Mapping[str, Any]]:
        rest = Source("unexplained", "", self.unexplained, 0, 0)
        return [source.to_dict() for source in (*self.sources, rest)]

    def __str__(self) -> str:
        rows = [
            (s.kind, s.where, f"{s.dimension:,}", f"{s.verified:,}", f"{s.claimed:,}")
            for s in self.listed
        ]
        rows.append(("explained", "", f"{self.explained:,}", "", ""))
        rows.append(("unexplained", "", f"{self.unexplained:,}", "", ""))
        return render(
            f"{self.radical:,} null directions of D = {self.parameters:,}",
            ("source", "where", "dimension", "verified", "claimed"),
            rows,
            self.notes,
            texts=2,
            breaks={len(rows) - 2},
        )
