"""Null directions of transformers: heads of attention, and streams ahead of normalisations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lightlike.geometry.symmetry.attention import claim_heads
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.means import claim_means
from lightlike.geometry.symmetry.missing import claim_missing
from lightlike.geometry.symmetry.rotations import claim_gains, claim_rotations, claim_scales
from lightlike.geometry.symmetry.scene import Scene
from lightlike.geometry.symmetry.shifts import claim_shifts
from lightlike.geometry.symmetry.tied import claim_tied
from lightlike.geometry.symmetry.unseen import claim_unseen
from lightlike.geometry.symmetry.wires import wire
from lightlike.problem.likelihoods import Categorical


def claim_transformers(scene: Scene) -> Iterator[Claim]:
    """What attention and normalised streams leave free, and biases that pass through attention."""
    if scene.trace is None:
        return
    wiring = wire(scene.trace)
    classes = wiring.linear_classes()
    logits = isinstance(scene.problem.likelihood, Categorical)
    yield from claim_heads(wiring, classes)
    yield from claim_rotations(wiring, classes)
    yield from claim_scales(wiring, classes)
    yield from claim_gains(wiring, classes)
    yield from claim_means(wiring, classes, logits=logits)
    yield from claim_unseen(wiring, classes, logits=logits)
    yield from claim_missing(wiring)
    yield from claim_tied(wiring, classes, logits=logits)
    yield from claim_shifts(replace(scene, trace=wiring))
