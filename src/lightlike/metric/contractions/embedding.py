"""Embeddings: a linear layer on one-hot inputs, of which only the indices are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from lightlike.metric.contractions.call import Call, Names, fixed
from lightlike.metric.contractions.factor import Factor
from lightlike.metric.contractions.layout import Layout, positions_of
from lightlike.metric.contractions.lookup import Lookup


class EmbeddingCall(Call):
    """`torch.nn.functional.embedding`, unless its gradient is not the derivative of its output."""

    lane_axis = 1

    def __init__(self, tokens: Tensor, weight: str | None, size: int, padding: int | None) -> None:
        self.x, self.weight, self.bias = tokens, weight, None
        self.size, self.padding = size, padding

    @classmethod
    def run(
        cls, func: Callable[..., Any], names: Names, args: Any, kwargs: Any
    ) -> tuple[Tensor, Self] | None:
        """Make the call if its table is measured, and neither renormalised nor scaled."""
        tokens, table, padding, max_norm, by_frequency = _arguments(*args, **kwargs)
        name = names(table)
        if name is None or max_norm is not None or by_frequency:
            return None
        skipped = None if padding is None else padding % len(table)
        output = func(tokens, fixed(table, name), padding)
        return output, cls(tokens, name, len(table), skipped)

    def pair_operations(self, shape: torch.Size, samples: int) -> float:
        """Multiplications for the inner product of two rows, if they share all tokens."""
        return shape.numel() / samples

    def order(self, shape: torch.Size, samples: int) -> str:
        """Token by token."""
        return "shared tokens"

    def weight_factor(self, g: Tensor, layout: Layout) -> Factor:
        """Σ_p e_{t_p} g_pᵀ, nothing at the padding index."""
        rows = positions_of(g)
        tokens = layout.spread(self.x).flatten(1)
        if self.padding is not None:
            rows = rows * (tokens != self.padding)[None, :, :, None]
        return Lookup(tokens, rows, self.size)

    def bias_rows(self, g: Tensor, layout: Layout) -> Tensor:
        """None: an embedding has no bias."""
        return g.new_zeros(len(g), layout.samples, 0)


def _arguments(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> tuple[Tensor, Tensor, int | None, float | None, bool]:
    return input, weight, padding_idx, max_norm, scale_grad_by_freq
