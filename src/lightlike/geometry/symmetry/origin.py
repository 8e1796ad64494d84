"""What tells the point, data and law that an explanation is of from others."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from lightlike.problem.problem import Problem

# Outputs that differ by no more than this share are those of one model on one machine or another.
SAME = 1e-6


@dataclass(frozen=True)
class Origin:
    """Where directions are null: the same shape of A at another θ says nothing of this one.

    Attributes:
        digest: SHA-256 of all parameters and buffers, of the data, of the likelihood and of the
            names of the measured parameters.
        outputs: Checksums of the model's outputs by batch, as a network with the same weights may
            have other activations.
    """

    digest: str
    outputs: tuple[float, ...]

    def fits(self, other: Origin) -> bool:
        """Whether both are of one model at one point, on the same data."""
        return (
            self.digest == other.digest
            and len(self.outputs) == len(other.outputs)
            and all(
                math.isclose(a, b, rel_tol=SAME, abs_tol=SAME)
                for a, b in zip(self.outputs, other.outputs, strict=True)
            )
        )


def origin_of(problem: Problem) -> Origin:
    """The origin of a problem, as it is in float64."""
    exact = problem.reference
    total = hashlib.sha256()
    law = type(exact.likelihood).__qualname__, exact.likelihood.describe()
    parts = (exact.fingerprint, law, [entry.name for entry in exact.selection.entries])
    total.update(repr(parts).encode())
    return Origin(total.hexdigest(), tuple(exact.survey.checksums))
