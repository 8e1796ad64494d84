"""The ways to J v, what they are called, and which kernels they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightlike.errors import ModelError
from lightlike.metric.products.recording import UnrecordableError

ROWS = "rows of A"


class RefusedError(RuntimeError):
    """A model does not take a way of differentiation; the text says why."""


@dataclass(frozen=True)
class Way:
    """A way of differentiating.

    Attributes:
        once: What it is called for a product of which nothing is kept.
        kept: What it is called where what depends on no vector is kept.
        forward: Whether it is forward mode; otherwise the gradient is differentiated again.
        portable: Whether it does without the libraries of some devices (cuDNN, oneDNN), some of
            whose kernels can be differentiated once only.
    """

    once: str
    kept: str
    forward: bool
    portable: bool

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Have PyTorch take kernels that can be differentiated so."""
        with ExitStack() as stack:
            # The fused kernels of attention have neither forward mode nor a second derivative.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self.portable:
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
                stack.enter_context(_without_onednn())
            yield


@contextmanager
def _without_onednn() -> Iterator[None]:
    # `torch.backends.mkldnn.flags` sets everything else too, and warns of what is not there.
    onednn: Any = torch.backends.mkldnn
    before = onednn.enabled
    try:
        onednn.enabled = False
        yield
    finally:
        onednn.enabled = before


_FORWARD = "jvp + vjp", "linearised + kept backward graph"
_DOUBLE = "double backward", "kept double backward graph"
# In the order in which they are tried; after them, the rows of A.
WAYS = tuple(
    Way(*names, forward, portable)
    for names, forward in ((_FORWARD, True), (_DOUBLE, False))
    for portable in (False, True)
)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn what PyTorch says of an operation without some derivative into a RefusedError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UnrecordableError as error:
        raise RefusedError(f"its {what} cannot be recorded: {error}") from error
    except (ModelError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, ModelError) else error
        if isinstance(cause, torch.OutOfMemoryError):
            raise
        said = str(cause or error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        raise RefusedError(f"{what} is refused: {said}") from error
