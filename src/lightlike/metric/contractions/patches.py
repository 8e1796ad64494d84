"""Where the patches of a convolution lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Geometry:
    """Kernel, stride, padding, dilation and groups, one number a dimension."""

    def __init__(
        self,
        kernel: Sequence[int],
        stride: int | Sequence[int],
        padding: int | str | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
    ) -> None:
        dims = len(kernel)
        self.kernel, self.groups = tuple(kernel), groups
        self.stride, self.dilation = _each(stride, dims), _each(dilation, dims)
        if padding == "same":
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
            self.padding = [(span // 2, span - span // 2) for span in spans]
        else:
            sides = (0,) * dims if padding == "valid" else _each(padding, dims)  # type: ignore[arg-type]
            self.padding = [(p, p) for p in sides]

    def patches(self, x: Tensor, pixels: Sequence[int] | None = None) -> Tensor:
        """The patches of x (B, C, *pixels): (B, positions, C, kernel entries).

        Only the first `pixels` positions along each dimension, if given.
        """
        sides = [side for pair in reversed(self.padding) for side in pair]
        x = torch.nn.functional.pad(x, sides)
        for dim, (size, step, gap) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True)
        ):
            x = x.unfold(2 + dim, gap * (size - 1) + 1, step)[..., ::gap]
            if pixels is not None:
                x = x.narrow(2 + dim, 0, pixels[dim])
        dims = len(self.kernel)
        last = x.movedim(1, -1)  # (B, *positions, *kernel, C)
        return last.flatten(1, dims).movedim(-1, 2).flatten(3)


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * dims if len(value) == 1 else tuple(value)
