"""The numbers of a measurement from a sample of the columns of A."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lightlike.assess.layers import layers_of
from lightlike.assess.setting import Parts, Setting
from lightlike.assess.sketching import bounded
from lightlike.geometry.dimension import Dimension, dimension_of
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.gaussian import expand
from lightlike.length.thinned import ThinnedRazor, thinned_razor
from lightlike.metric.thinned import ThinnedFisher
from lightlike.spectrum.columns import Columns
from lightlike.spectrum.estimate import Estimate

# Share of the complexity that its bias or standard error may be without advice.
WIDE = 0.05


def measure_columns(options: Columns, setting: Setting) -> Parts:
    """The razor, then the spectrum of Î itself where the prior's is another one.

    Raises:
        ChoiceError: if the dtype is not float64.
        PriorError: if the prior is to be fitted.
        CapacityError, EstimateError: if it does not fit in memory, or in float64.
    """
    F, memory, seed = setting.F, setting.budget, setting.seed
    razor = thinned_razor(F, setting.prior, expand(F.problem), options, seed=seed, memory=memory)
    length, thinned = razor.length.settled(), razor.thinned
    ways = thinned.root.sweep.ways
    if thinned.root is not F.root:
        thinned = ThinnedFisher(F.root, options, seed, memory)
    spectrum = thinned.spectrum
    dimension = dimension_of(spectrum)
    if not thinned.exact:
        dimension = bounded(dimension, *F.root.shape)
    record, traces = _record(razor, thinned), thinned.layer_traces()
    return Parts(
        spectrum=spectrum,
        dimension=dimension,
        length=length,
        layers=layers_of(
            F.root,
            {name: float(each) for name, each in traces.items()},
            ranks=setting.layers,
            memory=memory,
        ),
        ways=ways,
        record={"columns": record},
        notes=_notes(record, dimension),
        ranked=dimension.lower == dimension.upper,
    )


def _notes(record: dict[str, Any], dimension: Dimension) -> list[str]:
    """What to keep in mind when reading numbers from a sample of columns."""
    complexity, plain = record["estimates"]["complexity"], record["complexity_plain"]
    value, error = complexity["value"], complexity["stderr"]
    found = [
        f"Complexity from {record['kept']:,} of {record['columns']:,} columns of A, in whole "
        f"output units, {record['replicates']} replicates: ± {error:.3g} nats.",
    ]
    if max(error, abs(value - plain)) > WIDE * abs(value):
        found.append(
            f"The sample itself has {plain:.4g} nats, which is too little on average; the rest is "
            "a correction to second order. Raise Columns(share=...)."
        )
    left = record["displacement_error"]
    if left is not None and left > TOLERANCE:
        found.append(f"The displacement may be up to {left:.2g} nats more: see its products.")
    if dimension.lower < dimension.upper:
        found.append(
            f"The dimension is certain from below only: more columns may find more than "
            f"{dimension.lower:,}."
        )
    return found


def _record(razor: ThinnedRazor, thinned: ThinnedFisher) -> dict[str, Any]:
    exact = razor.displacement
    estimates: dict[str, Estimate] = {"complexity": razor.complexity, "trace": thinned.trace()}
    return {
        **asdict(thinned.options),
        "kept": thinned.thinning.kept,
        "columns": thinned.shape[0],
        "passes": len(thinned.passes),
        "complexity_plain": razor.plain,
        "displacement_error": None if exact is None else exact.error,
        "products": 0 if exact is None else exact.products,
        "estimates": {name: each.to_dict() for name, each in estimates.items()},
        "layer_traces": {name: e.to_dict() for name, e in thinned.layer_traces().items()},
    }
