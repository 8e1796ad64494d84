"""Layer kinds whose rows of A have a form cheaper than the numbers; one file a kind.

Correctness never depends on this list: what is not in it takes the generic path, and whatever a
contraction says is held against plain differentiation of the untouched model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightlike.metric.contractions.call import Call
from lightlike.metric.contractions.convolution import ConvolutionCall, TransposedConvolutionCall
from lightlike.metric.contractions.elementwise import PRODUCTS, SUMS, ElementwiseCall
from lightlike.metric.contractions.embedding import EmbeddingCall
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.grouped import Grouped
from lightlike.metric.contractions.layout import Layout
from lightlike.metric.contractions.linear import LinearCall, ProductCall
from lightlike.metric.contractions.lookup import Lookup
from lightlike.metric.contractions.normalisation import NormalisationCall
from lightlike.metric.contractions.outer import Outer, combine
from lightlike.metric.contractions.split import Split
from lightlike.metric.contractions.total import Total, add_up

CONTRACTIONS: dict[Callable[..., Any], type[Call]] = {
    functional.linear: LinearCall,
    torch.addmm: ProductCall,
    Tensor.addmm: ProductCall,
    torch.matmul: ProductCall,
    Tensor.matmul: ProductCall,
    Tensor.__matmul__: ProductCall,
    torch.mm: ProductCall,
    Tensor.mm: ProductCall,
    functional.conv1d: ConvolutionCall,
    functional.conv2d: ConvolutionCall,
    functional.conv3d: ConvolutionCall,
    functional.conv_transpose1d: TransposedConvolutionCall,
    functional.conv_transpose2d: TransposedConvolutionCall,
    functional.conv_transpose3d: TransposedConvolutionCall,
    functional.embedding: EmbeddingCall,
    functional.layer_norm: NormalisationCall,
    functional.rms_norm: NormalisationCall,
    functional.group_norm: NormalisationCall,
    functional.batch_norm: NormalisationCall,
    **dict.fromkeys((*SUMS, *PRODUCTS, Tensor.expand), ElementwiseCall),
}


def register(function: Callable[..., Any], kind: type[Call]) -> None:
    """Contract calls of a PyTorch function, for this process, with a `Call` of your own.

    Nothing has to be trusted: each batch's rows are checked against plain differentiation of the
    untouched model, and a ConsistencyError is raised where they disagree.

    Args:
        function: As a model calls it, such as `torch.nn.functional.linear` or `Tensor.__matmul__`;
            it must let `torch.overrides.TorchFunctionMode` see it.
        kind: How its rows are factored.
    """
    CONTRACTIONS[function] = kind


__all__ = [
    "CONTRACTIONS",
    "Call",
    "Dense",
    "Factor",
    "Grouped",
    "Layout",
    "LinearCall",
    "Lookup",
    "Outer",
    "Split",
    "Total",
    "add_up",
    "combine",
    "register",
]
