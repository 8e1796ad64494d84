"""How far an approximation is from the exact Fisher matrix, measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightlike.spectrum.decomposition import Decomposition

if TYPE_CHECKING:
    from lightlike.metric.kronecker.approximation import ApproximateFisher


@dataclass(frozen=True)
class ApproximationError:
    """Differences between an approximation M and Î.

    Attributes:
        frobenius: ‖M − Î‖_F / ‖Î‖_F, from ‖M‖² − 2⟨M, Î⟩ + ‖Î‖²: where that loses all digits to
            cancellation, below about 1e-8, it is 0.
        trace: (tr M − tr Î) / tr Î.
        logdet: log det(I + c M) − log det(I + c Î), in nats; half of it is the error of the
            complexity at N σ² = c.
        exact: log det(I + c Î).
        scale: c.
    """

    frobenius: float
    trace: float
    logdet: float
    exact: float
    scale: float

    def __str__(self) -> str:
        return (
            f"‖M − Î‖ is {self.frobenius:.2g} of ‖Î‖, tr M {self.trace:+.2g} of tr Î off, "
            f"log det(I + {self.scale:.3g} ·) {self.logdet:+.3g} nats off {self.exact:.4g}"
        )


def measure_error(
    approximation: ApproximateFisher, exact: Decomposition, scale: float
) -> ApproximationError:
    """Hold an approximation against an exact decomposition of the same root.

    ⟨M, Î⟩ = Σ_k a_kᵀ M a_k over the rows a_k of A.
    """
    spectrum = exact.spectrum
    logdet, trace = spectrum.logdet(scale), spectrum.trace
    norm = float(torch.linalg.vector_norm(exact.matrix)) ** 2
    inner = sum(
        float(((approximation @ slab.T) * slab.T).sum())
        for slab in approximation.root.slabs("Approximation error")
    )
    square = approximation.squared_norm() - 2 * inner + norm
    # What rounding alone makes of it is no difference.
    difference = math.sqrt(square) if square > 1e-14 * norm else 0.0
    return ApproximationError(
        frobenius=difference / math.sqrt(norm) if norm else 0.0,
        trace=(approximation.trace() - trace) / trace if trace else 0.0,
        logdet=approximation.logdet(scale) - logdet,
        exact=logdet,
        scale=scale,
    )
