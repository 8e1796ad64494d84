"""Layer kinds whose rows of A have a form cheaper than the numbers; one file a kind.

Correctness never depends on this list: what is not in it takes the generic path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import functional

from lightlike.metric.contractions.call import Call
from lightlike.metric.contractions.convolution import ConvolutionCall
from lightlike.metric.contractions.embedding import EmbeddingCall, Lookup
from lightlike.metric.contractions.factor import Dense, Factor
from lightlike.metric.contractions.grouped import Grouped
from lightlike.metric.contractions.linear import LinearCall, Outer, combine
from lightlike.metric.contractions.normalisation import NormalisationCall

CONTRACTIONS: dict[Callable[..., Any], type[Call]] = {
    functional.linear: LinearCall,
    functional.conv1d: ConvolutionCall,
    functional.conv2d: ConvolutionCall,
    functional.conv3d: ConvolutionCall,
    functional.embedding: EmbeddingCall,
    functional.layer_norm: NormalisationCall,
    functional.rms_norm: NormalisationCall,
    functional.group_norm: NormalisationCall,
    functional.batch_norm: NormalisationCall,
}

__all__ = [
    "CONTRACTIONS",
    "Call",
    "Dense",
    "Factor",
    "Grouped",
    "LinearCall",
    "Lookup",
    "Outer",
    "combine",
]
