"""What the razor under every isotropic prior needs beside the eigenvalues: two numbers a direction.

Along an eigenvector v_k of Î with eigenvalue λ_k let q_k = v_kᵀδ and p_k = v_kᵀ∇NLL_total, with
δ = θ̂ − μ. Under N(μ, σ² I) and h_k = N λ_k the two middle terms of the razor are

    ½ Σ_k (h_k q_k² − 2 p_k q_k − σ² p_k²) / (1 + σ² h_k),

the sum over an eigenbasis of the whole space. Scores lie in the row space of A, so that p is 0 in
the radical, and parts of δ there cost nothing: the d directions of positive λ are all of it. What
rounding leaves of ∇NLL elsewhere is kept as three sums, and taken as of λ = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.length.eigenbasis import eigenbasis
from lightlike.length.evidence import curve_of
from lightlike.length.gaussian import Expansion
from lightlike.length.prior import ResolvedPrior
from lightlike.metric.root import Root
from lightlike.problem.problem import Problem
from lightlike.spectrum.decomposition import Decomposition
from lightlike.spectrum.rounding import EPS

# Nats, and share of the term, that may be open before it is refused.
OPEN = 1e-6


@dataclass(frozen=True)
class Projections:
    """δ = θ̂ − μ and ∇NLL_total in the eigenbasis of Î.

    Attributes:
        values: λ_k, (d,).
        displacement: q_k = v_kᵀδ, (d,).
        gradient: p_k = v_kᵀ∇NLL_total, (d,); the sign of v_k is arbitrary, but that of q_k too.
        observations: N.
        displacement_open: |δ|² − Σ q².
        gradient_open: |∇NLL|² − Σ p².
        cross_open: ∇NLLᵀδ − Σ p q.
        sizes: |δ| and |∇NLL|.
        floor: No eigenvalue that is not among the d is larger.
    """

    values: Tensor
    displacement: Tensor
    gradient: Tensor
    observations: int
    displacement_open: float
    gradient_open: float
    cross_open: float
    sizes: tuple[float, float]
    floor: float

    def term(self, variance: float, observations: float | None = None) -> float:
        """The displacement term of the razor under N(μ, σ² I), in nats.

        Args:
            variance: σ².
            observations: N′ in place of N: as if every observation counted N′/N times.

        Raises:
            EstimateError: if what rounding hides may be more than 1e-6 of it.
        """
        share = 1.0 if observations is None else observations / self.observations
        h = share * self.observations * self.values
        p, q = share * self.gradient, self.displacement
        seen = (h * q.square() - 2 * p * q - variance * p.square()) / (1 + variance * h)
        hidden = -2 * share * self.cross_open - variance * share**2 * self.gradient_open
        found = 0.5 * (float(seen.sum()) + hidden)
        size, slope = self.sizes[0], share * self.sizes[1]
        error = 0.5 * share * self.observations * self.floor * self.displacement_open
        error += 8 * EPS * (variance * slope**2 + slope * size)
        if error > OPEN * max(1.0, abs(found)):
            raise EstimateError(
                f"Rounding leaves the displacement open by {error:.2g} nats at a prior variance "
                f"of {variance:.3g}.",
                "The length would be made of rounding.",
                "Measure with this prior, or give a smaller variance.",
            )
        return found

    def curve(self, observations: float | None = None) -> Callable[[float], float]:
        """The razor as a function of log σ², up to a constant."""
        share = 1.0 if observations is None else observations / self.observations
        h = share * self.observations * self.values
        return curve_of(h, share * self.gradient, self.displacement)

    def facts(self) -> dict[str, Any]:
        """What is no tensor, in types that JSON has."""
        return {
            "observations": self.observations,
            "displacement_open": self.displacement_open,
            "gradient_open": self.gradient_open,
            "cross_open": self.cross_open,
            "sizes": list(self.sizes),
            "floor": self.floor,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, by the names that files have them under."""
        return {
            "projections.values": self.values,
            "projections.displacement": self.displacement,
            "projections.gradient": self.gradient,
        }

    @staticmethod
    def of(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Projections:
        """What `tensors` and `facts` took apart."""
        values, displacement, gradient = (
            tensors[f"projections.{name}"] for name in ("values", "displacement", "gradient")
        )
        given = {**facts, "sizes": tuple(facts["sizes"])}
        return Projections(values, displacement, gradient, **given)


def project(
    problem: Problem, prior: ResolvedPrior, decomposition: Decomposition, expansion: Expansion
) -> Projections | None:
    """The projections at θ̂ for the prior's mean; None without labels.

    Takes eigenvectors of the decomposed matrix, and one product with A.
    """
    g = expansion.gradient
    if g is None:
        return None
    root = decomposition.factor
    assert isinstance(root, Root)
    delta = problem.theta - prior.mean
    basis = eigenbasis(decomposition, root)
    p, q = basis.parts(torch.stack([g, delta], 1)).T
    spectrum = decomposition.spectrum
    hidden = decomposition.first.floor
    if spectrum.resolved and len(spectrum) == len(basis.values):
        hidden = 0.0 if len(spectrum) == min(spectrum.shape) else spectrum.residue
    return Projections(
        values=basis.values.contiguous(),
        displacement=q.contiguous(),
        gradient=p.contiguous(),
        observations=problem.survey.observations,
        displacement_open=max(0.0, float(delta @ delta - q @ q)),
        gradient_open=max(0.0, float(g @ g - p @ p)),
        cross_open=float(g @ delta - p @ q),
        sizes=(float(delta.norm()), float(g.norm())),
        floor=hidden,
    )
