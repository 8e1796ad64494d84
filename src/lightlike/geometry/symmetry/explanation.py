"""The answer of `lightlike.explain`: which null directions have a name, and how many have none."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.sparse import csc_array

from lightlike.geometry.symmetry.origin import Origin


@dataclass(frozen=True)
class Source:
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
class Explanation:
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

    @property
    def parameters(self) -> int:
        """D."""
        return self.shape[1]

    @property
    def radical(self) -> int:
        """D − d̂."""
        return self.explained + self.unexplained

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=120, color_system=None, force_terminal=False)
        table = Table(
            box=SIMPLE_HEAD,
            title=f"{self.radical:,} null directions of D = {self.parameters:,}",
            title_justify="left",
        )
        for name in ("source", "where"):
            table.add_column(name)
        for name in ("dimension", "verified", "claimed"):
            table.add_column(name, justify="right")
        # What verified but added nothing has been counted under another name.
        for s in [s for s in self.sources if s.dimension or not s.verified]:
            numbers = (f"{n:,}" for n in (s.dimension, s.verified, s.claimed))
            table.add_row(s.kind, s.where, *numbers)
        table.add_section()
        table.add_row("explained", "", f"{self.explained:,}")
        table.add_row("unexplained", "", f"{self.unexplained:,}")
        console.print(table)
        if self.frozen:
            console.print(f"Not counted: {', '.join(self.frozen)} (frozen or not selected).")
        if not self.graph:
            console.print("The model's calls could not be followed: symmetries were not sought.")
        file = console.file
        assert isinstance(file, io.StringIO)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")
