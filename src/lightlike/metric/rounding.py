"""How far a root in float32 is from the root in float64: found out, not assumed.

No formula knows how much a network amplifies rounding (inputs far from zero ahead of a
normalisation lose thousands of units). So a few combinations of A's rows are taken in float64 too.
For a matrix X of errors and random signs U = (u_1, …, u_P),

- E |X u_i|² = ‖X‖²_F (Hutchinson 1990, doi:10.1080/03610919008812866);
- E (u_iᵀ XᵀX u_j)² = ‖XᵀX‖²_F for i ≠ j, the sum of the fourth powers of X's singular values, at
  least that of the largest.

X is (Ã − A)ᵀ, and M̃ − ÃÃᵀ for a Gram matrix M̃ whose products were rounded. The error of one row
alone is found whatever the signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightlike.metric.blocks import Block
from lightlike.metric.jacobian import Backward, whitened_cotangents
from lightlike.metric.units import Unit
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.rounding import Rounding

# Columns of U, and what norms found are multiplied by. Many independent errors, as rounding makes,
# need no such factor; all error in one direction, spread evenly over many rows, exceeds the bound
# on the Frobenius norm in one case of 900.
PROBES = 8
SAFETY = 3.0
# Rows whose factors are held in float64 at a time.
TILE_ROWS = 512


def signs(size: int, device: torch.device) -> Tensor:
    """U, (size, P): independent random signs, the same ones every time."""
    generator = torch.Generator().manual_seed(size)
    drawn = torch.randint(0, 2, (size, PROBES), generator=generator)
    return (2.0 * drawn.double() - 1.0).to(device)


def norm_bounds(errors: Tensor, rank: int) -> tuple[float, float]:
    """Bounds on the largest singular value of X and on ‖X‖_F from X U, (n, P), and X's rank.

    Among r equal singular values the pairs may cancel, but none is below ‖X‖_F / √r.
    """
    unit = float(errors.abs().max()) if errors.numel() else 0.0
    if not unit:
        return 0.0, 0.0
    # Fourth powers of what saturated outputs leave would vanish.
    errors = errors / unit
    products = errors.T @ errors
    total = math.sqrt(float(products.diagonal().mean()))
    pairs = products - torch.diag(products.diagonal())
    largest = (float(pairs.square().sum()) / (PROBES * (PROBES - 1))) ** 0.25
    largest = max(largest, total / math.sqrt(rank))
    return SAFETY * unit * min(largest, total), SAFETY * unit * total


def exact_image(problem: Problem) -> Tensor:
    """AᵀU in float64, (D, P), by plain differentiation of the untouched model."""
    reference = problem.reference
    u = signs(problem.survey.rows, problem.evaluator.device)
    total = torch.zeros(problem.parameters, PROBES, dtype=torch.float64, device=u.device)
    backward, start = Backward(), 0
    with isolated():
        for _, outputs in reference.sweep("Float64 for comparison"):
            stop = start + outputs.count * reference.survey.rank
            cotangents = whitened_cotangents(reference, outputs, u[start:stop])
            leaves = reference.evaluator.leaves
            found = backward(outputs.h, list(leaves.values()), cotangents)
            for entry, gradient in zip(reference.selection.entries, found, strict=True):
                if gradient is not None:
                    total[entry.start : entry.stop] += gradient.reshape(PROBES, -1).T
            start = stop
    return total


def bounds(root: Tensor, product: Tensor | None, rank: int, reference: float) -> Rounding:
    """The bounds from (Ã − A)ᵀU, (M̃ − ÃÃᵀ)U, min(K, D) and the rounding unit of A itself."""
    largest, total = norm_bounds(root, rank)
    rounded = (0.0, 0.0) if product is None else norm_bounds(product, len(product))
    return Rounding(largest, rounded[0], total, rounded[1], reference=reference)


class Probe:
    """ÃᵀU and ÃÃᵀU of factored rows, in float64 sums of what the factors hold.

    Args:
        rows: K.
        size: D.
        device: Where the factors are.

    Attributes:
        image: ÃᵀU of the units seen so far, (D, P).
        product: ÃÃᵀU, the sum over the units seen so far, (K, P).
    """

    def __init__(self, rows: int, size: int, device: torch.device) -> None:
        self.u = signs(rows, device)
        self._image = torch.zeros(PROBES, size, dtype=torch.float64, device=device)
        self.product = torch.zeros_like(self.u)

    @property
    def image(self) -> Tensor:
        """ÃᵀU, (D, P)."""
        return self._image.T

    def restore(self, image: Tensor, product: Tensor) -> None:
        """Go on from what one has seen: (ÃᵀU)ᵀ (P, D) and ÃÃᵀU (K, P)."""
        self._image.copy_(image)
        self.product.copy_(product)

    def add(self, blocks: Sequence[Block], units: Sequence[Unit]) -> None:
        """Add some units, of which the blocks hold all rows."""
        tiles: list[tuple[slice, Block]] = []
        start = 0
        for block in blocks:
            for tile in block.tiles(TILE_ROWS):
                tiles.append((slice(start, start + tile.rows), tile))
                start += tile.rows
        for unit in units:
            mine = [(rows, tile) for rows, tile in tiles if unit in tile.factors]
            pulled = self._image.new_zeros(unit.width, PROBES)
            for rows, tile in mine:
                pulled += tile.factors[unit].to(torch.float64).pull(tile.inward(self.u[rows]))
            for rows, tile in mine:
                inner = tile.factors[unit].to(torch.float64).apply(pulled)
                self.product[rows] += tile.outward(inner)
            unit.scatter(pulled.T, self._image)
