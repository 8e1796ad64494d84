"""Operations that no layer-wise method in reverse mode can do without, and the machine's rate.

Two rows of A are multiplied layer by layer. A layer y_p = W x_p with positions p = 1..P, i inputs
(a bias counts as one more) and o outputs has the row Σ_p g_p x_pᵀ, and for K = N r rows, r of each
of N samples, there are three orders. Each is counted for the lower half of the symmetric result:

1. write out the rows and multiply them: 2 K P i o + K² i o;
2. products of all pairs of positions: N² P² i for x_p·x'_q, K² P² o for g_p·g'_q;
3. activations first: N² P² i, then N K P² o to mix g with x_p·x'_q, then K² P o.

With P = 1 order 2 is (x·x')(g·g'), the least of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

SIDE = 2_000  # of the square matrices whose product gives the rate
GEMM_OPERATIONS = 2.0 * SIDE**3


@dataclass(frozen=True)
class Layer:
    """A layer with parameters, for counting.

    Attributes:
        kind: "linear" (a convolution is linear in its patches), "table" (a row a position) or
            "vector" (a scale and a shift, as a layer normalisation has).
        ins: Inputs of one position, a bias included; rows of a table; parameters of a vector unit.
        outs: Outputs of one position.
        positions: P, how often the weights are used for one sample.
        local: Whether nothing after it mixes positions, so that a row's gradient is zero in all
            positions but the row's own.
        first: Whether its input is the data, to which nothing is back-propagated.
    """

    kind: str
    ins: int
    outs: int
    positions: int = 1
    local: bool = False
    first: bool = False

    def contraction(self, samples: int, rows: int) -> float:
        """Operations of the cheapest order."""
        n, k, p, i, o = samples, rows, self.positions, self.ins, self.outs
        if self.kind == "vector":
            return float(k * k * i * o)
        # A table's rows are sums of gradients: they cost no multiplication.
        written = 0.0 if self.kind == "table" else 2.0 * k * p * i * o
        # Products of one-hot vectors are comparisons.
        activations = 0.0 if self.kind == "table" else float(n * n * p * p * i)
        return min(
            written + float(k * k * i * o),
            activations + float(k * k * p * p * o),
            activations + float(n * k * p * p * o + k * k * p * o),
        )

    def causal(self, samples: int, rows: int) -> float:
        """The same when a row's gradient is zero in all positions after its own.

        Half of the mixing and of the last product of order 3 remain. A local layer's row has one
        position, so that order 2 applies to samples that are single positions.
        """
        if self.kind == "vector":
            return self.contraction(samples, rows)
        if self.local:
            one = replace(self, positions=1)
            return one.contraction(samples * self.positions, rows)
        n, k, p, o = samples, rows, self.positions, self.outs
        activations = 0.0 if self.kind == "table" else float(n * n * p * p * self.ins)
        half = (p + 1) / (2 * p)
        third = activations + half * (n * k * p * p * o + k * k * p * o)
        return min(self.contraction(samples, rows), third)

    def forward(self) -> float:
        """Operations for one sample."""
        return 2.0 * self.positions * self.ins * self.outs if self.kind == "linear" else 0.0

    def backward(self, *, causal: bool) -> float:
        """Operations that take one row from the layer's output to its input."""
        if self.first:
            return 0.0
        if not causal:
            return self.forward()
        return self.forward() * (1 if self.local else (self.positions + 1) / 2) / self.positions


@dataclass(frozen=True)
class Attention:
    """Scaled dot-product attention over P positions of d features: no parameters, but work."""

    positions: int
    features: int
    last: bool = False

    def forward(self) -> float:
        """Scores, and the mixing of values."""
        return 4.0 * self.positions**2 * self.features

    def backward(self, *, causal: bool) -> float:
        """Four products of the forward pass's sizes for one row; those of one query in the last."""
        if not causal:
            return 2.0 * self.forward()
        p = self.positions
        pairs = (p + 1) / 2 if self.last else (p + 1) * (p + 2) / 6
        return 8.0 * pairs * self.features


def operations(
    layers: Sequence[Layer],
    attentions: Sequence[Attention],
    samples: int,
    rows: int,
    *,
    causal: bool = False,
) -> dict[str, float]:
    """Floating-point operations by part; `causal` leaves out what is known to be zero."""
    parts = [*layers, *attentions]
    count = Layer.causal if causal else Layer.contraction
    return {
        "forward pass": samples * sum(part.forward() for part in parts),
        "backward passes": rows * sum(part.backward(causal=causal) for part in parts),
        "contractions": sum(count(layer, samples, rows) for layer in layers),
    }
