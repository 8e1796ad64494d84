"""Name the null directions of the Fisher matrix: claim, verify, count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from numbers import Real

import numpy as np
import torch
from scipy.sparse import csc_array, hstack

from lightlike.errors import ChoiceError, choice_error
from lightlike.geometry.dimension import Dimension, certify, dimension_of
from lightlike.geometry.symmetry.claims import Claim
from lightlike.geometry.symmetry.columns import read_columns
from lightlike.geometry.symmetry.counting import count_new
from lightlike.geometry.symmetry.dependence import claim_dependences
from lightlike.geometry.symmetry.explanation import Explanation, Source
from lightlike.geometry.symmetry.inert import DETACHED, claim_inert
from lightlike.geometry.symmetry.mixing import claim_mixtures
from lightlike.geometry.symmetry.origin import origin_of
from lightlike.geometry.symmetry.radial import claim_radial
from lightlike.geometry.symmetry.scaling import claim_scales
from lightlike.geometry.symmetry.scene import Scene, trace_model
from lightlike.geometry.symmetry.transformers import claim_transformers
from lightlike.geometry.symmetry.verification import verify
from lightlike.metric.fisher import Fisher
from lightlike.metric.jacobian import HONEST
from lightlike.metric.root import Root
from lightlike.spectrum.rounding import EPS, rank_tolerance
from lightlike.spectrum.spectrum import Spectrum

Reason = Callable[[Scene], Iterator[Claim]]

# In the order in which their dimensions are counted.
REASONS: list[Reason] = [
    claim_inert,
    claim_transformers,
    claim_scales,
    claim_mixtures,
    claim_radial,
    claim_dependences,
]


def explain(
    F: Fisher, *, tolerance: float | None = None, spectrum: Spectrum | None = None
) -> Explanation:
    """The null directions of Î(θ), v with A v = 0, by their causes.

    Each cause that the model's calls or the data show proposes directions; each of them is held
    against A, ‖A v‖ ≤ tolerance · s_1 · ‖v‖, and those that pass are counted, dependent ones once:
    positive rescalings, shifts of logits, scales and biases ahead of a normalisation, linear
    factorisations, dead, saturated and duplicated units, parameters that nothing uses, and rows of
    a table that no token names (Sun & Nielsen, arXiv 1905.11027; Grigsby et al., arXiv 2209.04036).

    Args:
        F: From `lightlike.fisher`.
        tolerance: Relative to the largest singular value s_1 of A; max(K, D) · 2.2e-16 unless
            given, as the rank has it. A wider one also takes the rank at that tolerance.
        spectrum: Of F, if there is one already; an exact one.

    Returns:
        The sources, whose dimensions and what is left unexplained add up to D − d̂. Of directions
        that hang together in one set of parameters the first 6,000 are counted; the first 2,500
        where all rows of A are independent, so that too few observations explain the others.

    Raises:
        ChoiceError: if F is not the Fisher matrix of a whole model, or the tolerance no share.
        CapacityError: if the rank d̂ cannot be computed in memory.
        ConsistencyError: if more independent null directions are found than the rank allows.
    """
    whole = isinstance(F, Fisher) and F.root.weights is None and F.root.layer is None
    if not whole or F.problem.draws is not None:
        raise choice_error("F", type(F).__name__, ["a matrix that lightlike.fisher made"])
    share = isinstance(tolerance, Real) and 0.0 <= tolerance < 1.0
    if tolerance is not None and not share:
        raise choice_error("tolerance", tolerance, ["None", "a number from 0 to below 1"])
    if spectrum is not None and not isinstance(spectrum, Spectrum):
        raise choice_error("spectrum", spectrum, ["None", "what lightlike.spectrum(F) returns"])
    spectrum = F.decomposition().spectrum if spectrum is None else spectrum
    if spectrum.kind == "estimated":
        raise choice_error("spectrum", spectrum, ["None", "one that is not of a sketch"])
    found = dimension_of(spectrum)
    largest = spectrum.largest**0.5
    # What is null is decided in float64, also where eigenvalues are asked for in float32.
    root = F.root if F.problem.dtype == torch.float64 else Root(F.problem.reference)
    allowed = rank_tolerance(root.shape) if tolerance is None else tolerance
    trace = trace_model(root.problem)
    scene = Scene(root, read_columns(root), trace, found.value, largest, allowed)
    claims = [claim for reason in REASONS for claim in reason(scene)]
    units = [_coordinates(claim.directions) for claim in claims]
    others = [i for i, unit in enumerate(units) if unit is None]
    checked = verify(root, [claims[i].directions for i in others], largest, allowed)
    kept = [claims[i].directions[:, v.passed] for i, v in zip(others, checked, strict=True)]
    added = dict(
        zip(
            others,
            count_new(scene.inert, kept, checked, allowed, limited=scene.data_limited),
            strict=True,
        )
    )
    sources, directions = [], []
    seen = np.zeros(root.shape[1], dtype=bool)
    for i, (claim, unit) in enumerate(zip(claims, units, strict=True)):
        claimed = claim.directions.shape[1]
        if unit is None:
            passed = kept[others.index(i)]
            sources.append(Source(claim.kind, claim.where, added[i], claimed, passed.shape[1]))
        else:
            # Their columns were looked at already.
            null = np.isin(unit, scene.inert)
            new = np.unique(unit[null & ~seen[unit]])
            seen[new] = True
            passed = csc_array(claim.directions[:, null])
            sources.append(Source(claim.kind, claim.where, len(new), claimed, int(null.sum())))
        directions.append(passed)
    certain = sum(s.dimension for s in sources)
    if tolerance is None or tolerance <= rank_tolerance(root.shape):
        rank = certify(found, root.shape, certain).value
    else:
        rank = spectrum.rank(tolerance)
    radical = root.shape[1] - rank
    left = radical - certain
    if left and rank == root.shape[0]:
        sources.append(Source("too few observations", "", left, left, left))
        left = 0
    return Explanation(
        sources=sources,
        explained=radical - left,
        unexplained=left,
        certain=certain,
        directions=csc_array(
            hstack(directions, format="csc") if directions else (root.shape[1], 0)
        ),
        shape=root.shape,
        frozen=root.problem.selection.excluded,
        tolerance=allowed,
        graph=trace is not None,
        origin=origin_of(root.problem),
        hidden=() if trace is None else tuple(dict.fromkeys(trace.graph.hidden)),
    )


def certified(dimension: Dimension, explanation: Explanation, root: Root) -> Dimension:
    """A rank of A bounded from above by D less the independent null directions of an explanation.

    Raises:
        ChoiceError: if the explanation is of another A, be it of the same shape at another point,
            or of a wider tolerance than a rank has.
        ConsistencyError: if the bounds contradict each other.
    """
    widest = rank_tolerance(root.shape)
    if not isinstance(explanation, Explanation):
        raise choice_error("explanation", explanation, ["None", "what lightlike.explain(F) gave"])
    if explanation.shape != root.shape or explanation.tolerance > widest:
        raise choice_error(
            "explanation",
            f"one of shape {explanation.shape} at {explanation.tolerance:.1e}",
            [f"lightlike.explain(F) of the same F: shape {root.shape} at {widest:.1e}"],
        )
    apart = root.weights is not None or root.layer is not None
    if apart or not explanation.origin.fits(origin_of(root.problem)):
        raise ChoiceError(
            "The explanation is of another Fisher matrix, of other parameters, data or likelihood.",
            "Directions that are null there say nothing about the rank here.",
            "Give lightlike.explain(F) of this F, or certify=True.",
        )
    # A detached parameter has no gradient, and the predictions may change with it all the same.
    silent = sum(s.dimension for s in explanation.sources if s.kind == DETACHED)
    found = certify(dimension, root.shape, explanation.certain - silent)
    if silent or root.sweep.gradient_error > HONEST:
        found = replace(found, proven_twice=False)
    if root.precision > EPS:
        # The lower bound rests on what rounding was found to be.
        found = replace(found, kind="certified", proven_twice=False)
    return found


def _coordinates(directions: csc_array) -> np.ndarray | None:
    """The coordinates of directions that are single parameters, None if some are not."""
    if directions.nnz == directions.shape[1] and bool((np.diff(directions.indptr) == 1).all()):
        return np.asarray(directions.indices)
    return None
