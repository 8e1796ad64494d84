"""The Fisher matrix from row sketches of its root: unbiased estimates, and bounds on the rest.

For outputs too wide to take whole, each observation's rows L_iᵀ J_i are replaced by r random
combinations of them: S = N^{-1/2} [Ξ_iᵀ L_iᵀ J_i] with E[Ξ_i Ξ_iᵀ] = I has N r rows and
E[SᵀS] = AᵀA = Î (Sun, arXiv 2505.13614). For one sketch,

- tr SᵀS, its diagonal and SᵀS v are unbiased;
- ‖Î‖²_F is a sum over pairs of rows; leaving out each row's pair with itself makes it unbiased;
- f(SᵀS) for concave f, such as log det(I + c ·), is at most f(Î) in expectation, by Jensen's
  inequality; so is every Schur-concave sum of the averaged spectrum, since the expected spectrum of
  SᵀS majorises that of Î (Fan 1949, doi:10.1073/pnas.35.11.652);
- rank S ≤ rank A always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from typing import TypeVar

import torch
from torch import Tensor

from lightlike.errors import ChoiceError
from lightlike.metric.drawing import fit_draws, sketch_route, sketched
from lightlike.metric.root import Root
from lightlike.problem.draws import Draws
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.eigenvalues import Eigenvalues
from lightlike.spectrum.estimate import Estimate
from lightlike.spectrum.memory import resolve_memory
from lightlike.spectrum.rounding import Rounding
from lightlike.spectrum.routes import Route
from lightlike.spectrum.sketch import Sketch
from lightlike.spectrum.spectrum import Spectrum

T = TypeVar("T")


class SketchedFisher:
    """Î(θ) from independent sketches S_1, …, S_R of its root; each is made when it is needed.

    Args:
        root: A.
        sketch: Draws an observation, repetitions and distribution.
        seed: Of all draws.
        memory: What may be used.

    Attributes:
        sketch: The same, with the number of draws that was decided on.
        route: How each sketch is decomposed.

    Raises:
        ChoiceError: if the sketch would be no smaller than A.
        CapacityError: if it does not fit in memory.
    """

    def __init__(
        self, root: Root, sketch: Sketch, seed: int = 0, memory: int | float | str | None = None
    ) -> None:
        self.root, self.seed = root, seed
        self.budget = resolve_memory(memory)
        draws, self.route = fit_draws(root, sketch, self.budget)
        self.sketch = replace(sketch, draws=draws)
        self.draws = draws
        self._spectra: list[Spectrum] = []
        self._norms: list[float] = []

    @property
    def cost(self) -> Route:
        """What everything costs, in words too."""
        return sketch_route(self.root, self.sketch, self.budget)

    @property
    def shape(self) -> tuple[int, int]:
        """(D, D)."""
        return self.root.shape[1], self.root.shape[1]

    def roots(self) -> Iterator[Root]:
        """The sketches S of A, (N r, D) each, one for each repetition."""
        for repetition in range(self.sketch.repetitions):
            draws = Draws(self.draws, self.seed, repetition, self.sketch.distribution)
            yield sketched(self.root, draws)

    def halved(self) -> SketchedFisher | None:
        """The sketches made of the first half of the same draws; None if there is one draw."""
        if self.sketch.half is None:
            return None
        half = replace(self.sketch, draws=self.sketch.half)
        return SketchedFisher(self.root, half, self.seed, self.budget)

    def visit(self, function: Callable[[Decomposition], T]) -> list[T]:
        """A function of the exact decomposition of each sketch; one is held at a time."""
        results: list[T] = []
        spectra: list[Spectrum] = []
        norms: list[float] = []
        for root in self.roots():
            decomposition = Decomposition(root, self.route, self.budget)
            spectra.append(decomposition.spectrum.settled())
            results.append(function(decomposition))
            if self.draws > 1 and not self._norms:
                norms.append(squared_norm(decomposition, self.draws))
        self._spectra = spectra
        self._norms = self._norms or norms
        return results

    @property
    def spectra(self) -> list[Spectrum]:
        """The exact spectrum of each SᵀS."""
        if not self._spectra:
            self.visit(lambda _: None)
        return self._spectra

    @property
    def spectrum(self) -> Spectrum:
        """The averaged spectrum, as an estimate of Î's that majorises it in expectation.

        Its trace is unbiased. Its rank bounds are certain: no sketch has a larger rank than A, and
        that is at most min(K, D).
        """
        return averaged(self.spectra, self.root.shape, self.cost.reason)

    def estimate(self, function: Callable[[Spectrum], float], bias: str = "unknown") -> Estimate:
        """The mean of a function of the sketches' spectra.

        Args:
            function: Of a `Spectrum`.
            bias: Say "below" where it is a concave function of the matrix, "none" where linear.
        """
        return Estimate.of([function(s) for s in self.spectra], bias)

    def trace(self) -> Estimate:
        """The trace tr Î, unbiased."""
        return self.estimate(lambda s: s.trace, "none")

    def logdet(self, scale: float) -> Estimate:
        """Log det(I + scale · Î), below it in expectation."""
        return self.estimate(lambda s: s.logdet(scale), "below")

    def effective_dimension(self, tau: float) -> Estimate:
        """MacKay's γ(τ) = tr Î(Î + τI)⁻¹, below it in expectation."""
        return self.estimate(lambda s: s.effective_dimension(tau), "below")

    @property
    def squared_norms(self) -> list[float]:
        """An unbiased estimate of ‖Î‖²_F from each sketch.

        Raises:
            ChoiceError: with one draw an observation, which makes no independent pair.
        """
        if self.draws < 2:
            raise ChoiceError(
                "One draw an observation gives no two independent rows of one observation.",
                "The estimate of ‖Î‖²_F would count the noise of each row's own square.",
                "Use Sketch(draws=2) or more.",
            )
        if not self._norms:
            self.visit(lambda _: None)
        return self._norms

    def squared_norm(self) -> Estimate:
        """‖Î‖²_F, unbiased, from `squared_norms`; skewed where observations are few."""
        return Estimate.of(self.squared_norms)

    def product(self, v: Tensor) -> Estimate:
        """Î v for one vector (D,) or a block (D, c), unbiased entry by entry."""
        return Estimate.of([root.rmv(root.mv(v)) for root in self.roots()])

    def __matmul__(self, v: Tensor) -> Tensor:
        """Î v without its standard errors."""
        return torch.as_tensor(self.product(v).value)

    def diagonal(self) -> Estimate:
        """The diagonal of Î, (D,), unbiased entry by entry."""
        return Estimate.of(
            [sum(slab.square().sum(0) for slab in root.slabs("Diagonal")) for root in self.roots()]
        )


def averaged(spectra: list[Spectrum], shape: tuple[int, int], reason: str) -> Spectrum:
    """The mean of the k-th eigenvalues of several sketches of one A, for each k."""
    longest = max(map(len, spectra))
    columns = [torch.nn.functional.pad(s.eigenvalues, (0, longest - len(s))) for s in spectra]
    values = Eigenvalues(
        eigenvalues=torch.stack(columns).mean(0),
        trace=sum(s.trace for s in spectra) / len(spectra),
        shape=shape,
        kind="estimated",
        method="sketch",
        floor=max(s.floor for s in spectra),
        residue=max(s.residue for s in spectra),
        rank_bounds=(max(s.rank_bounds[0] for s in spectra), min(shape)),
        reason=reason,
        precision=spectra[0].precision,
        rounding=worst([s.rounding for s in spectra if s.rounding is not None]),
    )
    return Spectrum(values)


def worst(found: list[Rounding]) -> Rounding | None:
    """The largest of each bound; None if there are none."""
    if not found:
        return None
    return Rounding(*(max(column) for column in zip(*map(astuple, found), strict=True)))


def squared_norm(decomposition: Decomposition, draws: int) -> float:
    """An unbiased estimate of ‖Î‖²_F from one sketch S with r ≥ 2 draws an observation.

    With a_ij the j-th row of observation i, ‖SᵀS‖²_F = Σ (a_ijᵀ a_kl)² over all pairs of rows. A
    pair of two observations, or of two draws of one, is of independent rows; a row with itself is
    not, so within an observation the r(r − 1) pairs of two draws stand for all r².
    """
    total = float(decomposition.spectrum.eigenvalues.square().sum())
    root = decomposition.factor
    assert isinstance(root, Root)
    blocks: list[Tensor] = []
    if decomposition.route.method == "gram":
        n = root.problem.survey.observations
        G = decomposition.matrix.view(n, draws, n, draws)
        blocks.append(G.diagonal(dim1=0, dim2=2).permute(2, 0, 1))
    else:
        for slab in root.slabs("Squared norm"):
            rows = slab.view(-1, draws, slab.shape[1])
            blocks.append(rows @ rows.mT)
    within = sum(float(block.square().sum()) for block in blocks)
    own = sum(float(block.diagonal(dim1=1, dim2=2).square().sum()) for block in blocks)
    return total - within + draws / (draws - 1) * (within - own)
