"""An orthonormal basis that grows by products with a symmetric operator, and its projection.

Rows of V (m, D) are orthonormal, rows of the pending block W (b, D) too and orthogonal to them, and

    A Vᵀ = Vᵀ T + Wᵀ C,      T = V A Vᵀ (m, m) symmetric,      C = W A Vᵀ (b, m),

which is what makes residuals of eigenpairs of T known without a product: for T s = θ s the vector
x = Vᵀ s has A x − θ x = Wᵀ C s (Lanczos 1950, doi:10.6028/jres.045.026; in blocks Golub & Underwood
1977). V is orthogonalised twice against all its rows in float64: in float32 the norms alone are off
by 6e-6, and without full orthogonalisation eigenvalues come twice. Restarting keeps eigenvectors of
T and the pending block (Wu & Simon 2000, doi:10.1137/S0895479898334605); the relation stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightlike.errors import EstimateError
from lightlike.spectrum.rounding import EPS

# A direction that is shorter than this many rounding units of the matrix after orthogonalisation
# is nothing but rounding.
NOTHING = 100.0
# Share of a row that has to be left by the second orthogonalisation to make a third superfluous.
SMALL_REST = 0.1
# Relative asymmetry, and relative size of negative eigenvalues, that pass for rounding.
ASYMMETRY = 1e-5
NEGATIVE = 1e-6
# Columns that a change of basis takes at once.
SLAB = 1 << 16


class Krylov:
    """The basis V, the projection T and the pending block W with its coupling C.

    Args:
        operator: A, with `shape` (D, D) and `@` on (D,) or (D, c).
        capacity: Rows of V there is room for.
        device: Where products are taken and vectors are kept.
    """

    def __init__(self, operator: Any, capacity: int, device: torch.device | None = None) -> None:
        self.operator, self.device = operator, device or torch.device("cpu")
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.device}
        self._rows = torch.empty(capacity, operator.shape[0], **options)
        self._projected = torch.zeros(capacity, capacity, dtype=torch.float64)
        self.size = 0
        self.pending = torch.empty(0, operator.shape[0], **options)
        self.coupling = torch.zeros(0, 0, dtype=torch.float64)
        self.aside: tuple[Tensor, Tensor] | None = None
        self.products = 0
        self.skew = 0.0

    @property
    def basis(self) -> Tensor:
        """V, (m, D)."""
        return self._rows[: self.size]

    @property
    def projected(self) -> Tensor:
        """T, (m, m)."""
        return self._projected[: self.size, : self.size]

    @property
    def capacity(self) -> int:
        """Rows of V there is room for."""
        return len(self._rows)

    @property
    def scale(self) -> float:
        """A lower bound of ‖A‖: the largest entry of T and C."""
        parts = [p.abs().max() for p in (self.projected, self.coupling) if p.numel()]
        return float(max(parts)) if parts else 0.0

    def largest(self) -> float:
        """The largest eigenvalue of T; 0 without one."""
        return float(torch.linalg.eigvalsh(self.projected)[-1]) if self.size else 0.0

    def confirm(self, precision: float) -> None:
        """Raise a ValueError if the operator is visibly no positive semi-definite matrix."""
        scale = self.scale
        if self.skew > max(ASYMMETRY, 1e3 * precision) * scale:
            raise ValueError(
                f"the operator is not symmetric, or changes from product to product: xᵀA y and "
                f"yᵀA x differ by {self.skew:.2g} where the largest entry is {scale:.2g}"
            )
        least = float(torch.linalg.eigvalsh(self.projected)[0])
        if least < -max(NEGATIVE, 1e2 * precision) * scale:
            raise ValueError(
                f"the operator is not positive semi-definite: xᵀA x = {least:.3g} for a unit "
                f"vector, where the largest entry is {scale:.3g}"
            )

    def apply(self, rows: Tensor) -> Tensor:
        """A on each row of a block (b, D), in float64.

        Raises:
            EstimateError: if a product is not finite.
        """
        if len(rows) == 1:
            found = torch.as_tensor(self.operator @ rows[0]).reshape(1, -1)
        else:
            found = torch.as_tensor(self.operator @ rows.T.contiguous()).T
        self.products += len(rows)
        found = found.to(self.device, torch.float64)
        if not bool(found.isfinite().all()):
            raise EstimateError(
                f"Product {self.products} of the operator has entries that are not finite.",
                "Nothing that follows from it would be a number.",
                "Look at the parameters and data for infinite or undefined values.",
            )
        return found.contiguous()

    def step(self) -> None:
        """Multiply the pending block, take it into V and make the next one."""
        m, width = self.size, len(self.pending)
        product = self.apply(self.pending)
        old = product @ self.basis.T
        # By symmetry both are W A Vᵀ.
        known = self.coupling
        if self.aside is not None:
            rows, coupled = self.aside
            known = known.clone()
            known[:, : coupled.shape[1]] += (self.pending @ rows.T).cpu() @ coupled
        if old.numel():
            self.skew = max(self.skew, float((old.cpu() - known).abs().max()))
        across = (old.cpu() + known) / 2
        own = (product @ self.pending.T).cpu()
        if width > 1:
            self.skew = max(self.skew, float((own - own.T).abs().max()))
        self._projected[m : m + width, :m] = across
        self._projected[:m, m : m + width] = across.T
        self._projected[m : m + width, m : m + width] = (own + own.T) / 2
        self._rows[m : m + width] = self.pending
        self.size += width
        largest = float(product.norm(dim=1).max())
        # These coefficients are what the first of two orthogonalisations would find.
        product -= old @ self._rows[:m]
        product -= own.to(product) @ self.pending
        before = product.norm(dim=1)
        self._orthogonalise(product)
        found, lengths = orthonormal(product, NOTHING * EPS * max(self.scale, largest))
        # Twice is enough, unless little was left after the first time or beside other rows.
        if len(found) < width or bool((lengths.diagonal() < SMALL_REST * before.cpu()).any()):
            found, turned = self._again(found)
            lengths = lengths @ turned
        self.pending = found
        self.coupling = torch.zeros(len(found), self.size, dtype=torch.float64)
        self.coupling[:, m:] = lengths.T

    def add(self, rows: Tensor) -> float:
        """Take new directions (b, D) into the pending block; gives the first one's length.

        Only their parts orthogonal to V and W count, and only where something is left of them.
        """
        rows = rows.to(self.device, torch.float64).clone()
        before = rows.norm(dim=1).max()
        self._orthogonalise(rows)
        self._orthogonalise(rows)
        length = float(rows[0].norm())
        joined, lengths = orthonormal(
            torch.cat([self.pending, rows]), NOTHING * EPS * float(before), len(self.pending)
        )
        old = len(self.pending)
        coupling = torch.zeros(len(joined), self.size, dtype=torch.float64)
        coupling[:old] = self.coupling
        self.pending, self.coupling = self._again(joined, old)[0], coupling
        return length if lengths.numel() and len(joined) > old else 0.0

    def set_aside(self) -> None:
        """Take the pending block and its coupling away; V counts as invariant until `rejoin`."""
        self.aside = self.pending, self.coupling
        self.pending = self.pending[:0]
        self.coupling = torch.zeros(0, self.size, dtype=torch.float64)

    def rejoin(self) -> None:
        """Take back what was set aside, beside what is pending now."""
        assert self.aside is not None
        rows, coupled = self.aside
        wide = torch.zeros(len(rows), self.size, dtype=torch.float64)
        wide[:, : coupled.shape[1]] = coupled
        rest = rows.clone()
        self._orthogonalise(rest)
        self._orthogonalise(rest)
        # The part within V is in T already, by products with what was added since.
        onto = rest @ self.pending.T
        rest -= onto @ self.pending
        found, lengths = orthonormal(rest, NOTHING * EPS)
        first = len(self.pending)
        self.pending, turned = self._again(torch.cat([self.pending, found]), first)
        lengths = lengths @ turned[first:, first:]
        self.coupling = torch.cat([self.coupling + onto.T.cpu() @ wide, lengths.T @ wide])
        self.aside = None

    def drop(self, kept: int) -> None:
        """Forget all but the first rows of V, and the pending block."""
        self.size, self.pending = kept, self.pending[:0]
        self._projected[kept:] = 0.0
        self._projected[:, kept:] = 0.0
        self.coupling = torch.zeros(0, kept, dtype=torch.float64)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues θ of T, descending, its eigenvectors S in columns, and C S (b, m)."""
        values, vectors = torch.linalg.eigh(self.projected)
        values, vectors = values.flip(0), vectors.flip(1).contiguous()
        return values, vectors, self.coupling @ vectors

    def turn(self, values: Tensor, vectors: Tensor) -> None:
        """Replace V by eigenvectors of T: those whose coordinates are the columns (m, p)."""
        kept = vectors.shape[1]
        turned = vectors.T.to(self.device).contiguous()
        basis = self.basis
        for start in range(0, basis.shape[1], SLAB):
            part = basis[:, start : start + SLAB]
            self._rows[:kept, start : start + SLAB] = turned @ part
        self.coupling = self.coupling @ vectors
        self.size = kept
        self._projected.zero_()
        self._projected[:kept, :kept] = torch.diag(values)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on; views, to be saved before it."""
        counters = torch.tensor([float(self.products), self.skew], dtype=torch.float64)
        found = {
            "basis": self.basis,
            "projected": self.projected,
            "pending": self.pending,
            "coupling": self.coupling,
            "counters": counters,
        }
        if self.aside is not None:
            found["aside"], found["aside_coupling"] = self.aside
        return found

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.size = len(state["basis"])
        self._rows[: self.size] = state["basis"]
        self._projected[: self.size, : self.size] = state["projected"]
        self.pending = state["pending"].to(self.device, copy=True)
        self.coupling = state["coupling"].clone()
        if "aside" in state:
            aside = state["aside"].to(self.device, copy=True)
            self.aside = aside, state["aside_coupling"].clone()
        products, self.skew = state["counters"].tolist()
        self.products = int(products)

    def _orthogonalise(self, rows: Tensor) -> None:
        """Remove what lies in V from rows, in place."""
        if self.size:
            rows -= (rows @ self.basis.T) @ self.basis

    def _again(self, rows: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Rows that were scaled up from small remainders, orthonormal to rounding again.

        The first ones are left as they are. Gives the old ones in terms of the new, too.
        """
        new = rows[first:].clone()
        self._orthogonalise(new)
        return orthonormal(torch.cat([rows[:first], new]), 0.5, first)


def orthonormal(rows: Tensor, least: float, given: int = 0) -> tuple[Tensor, Tensor]:
    """An orthonormal basis Q (c, D) of rows Z (b, D), and L (b, c) with Z = L Q.

    What is left of a row beside the ones before it counts as nothing if it is not longer than
    `least`. The first `given` rows are orthonormal already.
    """
    found = list(rows[:given])
    lengths = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    lengths[:given, :given] = torch.eye(given, dtype=torch.float64)
    for i in range(given, len(rows)):
        row = rows[i].clone()
        if found:
            before = torch.stack(found)
            for _ in range(2):
                along = before @ row
                row -= along @ before
                lengths[i, : len(found)] += along.cpu()
        norm = float(row.norm())
        if norm > least:
            lengths[i, len(found)] = norm
            found.append(row / norm)
    basis = torch.stack(found) if found else rows[:0]
    return basis, lengths[:, : len(found)].contiguous()
