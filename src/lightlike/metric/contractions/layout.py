"""Where the samples of a batch lie in the tensors of a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """The dimension of a tensor along which samples lie.

    Attributes:
        axis: The dimension.
        fastest: Whether the next entry is of the next sample, as where positions come first;
            otherwise the entries of each sample follow one another.
    """

    axis: int
    fastest: bool = False


@dataclass(frozen=True)
class Layout:
    """Where each sample's entries of a call's output are.

    Attributes:
        samples: s, number of samples.
        place: The dimension; None if the whole tensor belongs to one sample.
    """

    samples: int
    place: Place | None

    @property
    def axis(self) -> int | None:
        """The dimension along which samples lie."""
        return None if self.place is None else self.place.axis

    def spread(self, t: Tensor, leading: int = 0) -> Tensor:
        """(…, *shape) as (…, s, entries of a sample along the axis, *the other dimensions)."""
        if self.place is None:
            return t[(slice(None),) * leading + (None, None)]
        moved = t.movedim(leading + self.place.axis, leading)
        if self.place.fastest:
            return torch.unflatten(moved, leading, (-1, self.samples)).transpose(
                leading, leading + 1
            )
        return torch.unflatten(moved, leading, (self.samples, -1))

    def positions(self, t: Tensor, channel: int = -1) -> Tensor:
        """Entries *shape as (s, positions, channels); `channel` counts from the end."""
        return self.spread(t).movedim(channel, -1).flatten(1, -2)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be laid out so."""
        if self.place is None:
            return self.samples == 1
        return self.place.axis < len(shape) and shape[self.place.axis] % self.samples == 0


def positions_of(g: Tensor, channel: int = -1) -> Tensor:
    """Gradients (k, s, entries along the axis, *others) as (k, s, positions, channels).

    They stay laid out sample by sample in memory, as `Gathered` has put them.
    """
    return g.transpose(0, 1).movedim(channel, -1).flatten(2, -2).transpose(0, 1)


def possible_places(shape: Sequence[int], allowed: Sequence[int], samples: int) -> list[Place]:
    """Where samples can lie in a call's output, from its shape alone.

    Args:
        shape: Of the output.
        allowed: Dimensions that can hold samples.
        samples: s.
    """
    found = []
    for axis in allowed:
        entries, remainder = divmod(shape[axis], samples)
        if not remainder and entries:
            found += [Place(axis, fastest) for fastest in (False, True)[: min(entries, 2)]]
    return found


def find_place(
    places: Sequence[Place], samples: int, probes: Sequence[tuple[int, Tensor]]
) -> Place | None:
    """The place of the samples, from where gradients of single ones vanish; None if none fits.

    Args:
        places: Those to choose from.
        samples: s.
        probes: Pairs of a sample's index and the gradient at the output of some function of that
            sample's outputs alone: zero at all other samples, if these do not touch one another.
    """
    for place in places:
        if all(_inside(g, Layout(samples, place), index) for index, g in probes):
            return place
    return None


def _inside(g: Tensor, layout: Layout, sample: int) -> bool:
    """Whether everything that is not zero belongs to one sample."""
    return bool(torch.count_nonzero(layout.spread(g)[sample]) == torch.count_nonzero(g))
