"""An independent witness: Aᵀ u for one random u, by plain differentiation of the untouched model.

Every product that the factored rows give is held against it. A wrong contraction, a layer seen in
the wrong order or a batch whose items touch one another passes with probability zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightlike.errors import ConsistencyError
from lightlike.metric.blocks import Block
from lightlike.metric.jacobian import check_derivatives, whitened_vjp
from lightlike.metric.units import Unit
from lightlike.problem.evaluation import Outputs
from lightlike.problem.problem import Problem


class Witness:
    """u (K,) and Aᵀ u (D,) of one pass over the data, gathered batch by batch."""

    def __init__(self, problem: Problem, precision: float) -> None:
        self.problem, self.precision = problem, precision
        self._drawn: list[Tensor] = []
        self._image = torch.zeros_like(problem.theta)

    def draw(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The next batch's u, standard normal and the same in every pass, and its Aᵀ u.

        Raises:
            ModelError: if a derivative is not finite.
        """
        generator = torch.Generator().manual_seed(len(self._drawn))
        rows = outputs.count * self.problem.survey.rank
        u = torch.randn(rows, generator=generator, dtype=torch.float64).to(outputs.h.device)
        image = whitened_vjp(self.problem, outputs, u)
        check_derivatives(self.problem, image)
        self._drawn.append(u)
        self._image += image
        return u, image

    @property
    def u(self) -> Tensor:
        """U over all batches, (K,)."""
        return torch.cat(self._drawn)

    @property
    def image(self) -> Tensor:
        """Aᵀ u over all batches, (D,)."""
        return self._image

    def confirms_rows(
        self, blocks: Sequence[Block], u: Tensor, image: Tensor, units: Sequence[Unit]
    ) -> bool:
        """Whether the rows of one batch give its Aᵀ u, unit by unit."""
        expected = self.problem.selection.split(image)
        found = {unit: image.new_zeros(unit.width, 1) for unit in units}
        start = 0
        for block in blocks:
            inner = block.inward(u[start : start + block.rows, None])
            start += block.rows
            for unit, factor in block.factors.items():
                if factor.width != unit.width:
                    return False
                found[unit] += factor.pull(inner.to(self.problem.dtype))
        largest = max(float(part.norm()) for part in expected.values())
        return all(
            self._agree(
                found[unit][:, 0],
                torch.cat([expected[name].reshape(-1) for name in unit.names]),
                largest,
            )
            for unit in units
        )

    def confirm(self, what: str, found: Tensor, expected: Tensor, scale: float) -> None:
        """Raise a ConsistencyError unless two agree; scale is the size of the terms in them."""
        if not self._agree(found, expected, scale):
            raise ConsistencyError(
                f"{what} disagrees with plain differentiation of the model.",
                "A contraction or a batched backward pass gave wrong numbers.",
                "Report the model's layers as a fault of lightlike; custom contractions and "
                "autograd functions are the first to suspect.",
            )

    def _agree(self, found: Tensor, expected: Tensor, scale: float) -> bool:
        # Rounding is relative to the largest terms that met in the sums, hence the second part.
        allowed = math.sqrt(self.precision) * float(expected.norm())
        allowed += 1e4 * self.precision * scale
        # Saturated outputs leave numbers that float32 cannot hold.
        least = torch.finfo(self.problem.dtype).tiny
        allowed += self.problem.survey.rows**2 * self.problem.parameters * least
        return float((found - expected).norm()) <= allowed
