"""The numbers of a measurement from leading eigenvalues and the diagonal: certain bounds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lightlike.assess.layers import layers_of
from lightlike.assess.setting import Parts, Setting
from lightlike.geometry.dimension import dimension_of
from lightlike.length.conjugate import TOLERANCE
from lightlike.length.gaussian import expand
from lightlike.length.leading import LeadingRazor, leading_razor
from lightlike.metric.alternatives import leading_route
from lightlike.metric.operator import FisherOperator
from lightlike.spectrum.lanczos import lanczos
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.partial import Lanczos, eigenvalues_of
from lightlike.spectrum.spectrum import Spectrum

# Share of the complexity that may be open without advice.
WIDE = 0.1


def measure_leading(options: Lanczos, setting: Setting) -> Parts:
    """The diagonal, the razor, then the spectrum of Î itself where the prior's is another one.

    Raises:
        ChoiceError: if the dtype is not float64.
        PriorError: if the prior is to be fitted.
        CapacityError, EstimateError: if the eigenvalues do not fit in memory or do not settle.
    """
    setting.check_float64("lanczos")
    F, seed = setting.F, setting.seed
    iterations = setting.iterations(leading_route(F.root, options))
    memory = iterations.budget
    approximation = F.diagonal()
    diagonal = approximation.diagonal()
    # Products to come are never known, only that they are many.
    operator = FisherOperator(F, 100 * options.count + 1000, memory // 2)
    most = min(F.root.shape)
    isotropic = setting.resolved.isotropic
    run = iterations.run("lanczos" if isotropic else "lanczos-scaled", prior=not isotropic)
    razor = leading_razor(
        operator, setting.prior, expand(F.problem), diagonal, options,
        most=most, seed=seed, memory=memory, state=run.state, keep=run.offer,
    )  # fmt: skip
    found = razor.enclosing.leading
    if not isotropic:
        run = iterations.run("lanczos")
        found = lanczos(
            operator, **asdict(options),
            seed=seed, memory=memory, state=run.state, keep=run.offer,
        )  # fmt: skip
    operator.close()
    spectrum = Spectrum(
        eigenvalues_of(found, F.root.shape, operator.precision, float(diagonal.sum()))
    )
    split = F.problem.selection.split(diagonal)
    traces = {
        name: sum(float(split[entry.name].sum()) for entry in entries)
        for name, entries in F.problem.selection.layers().items()
    }
    dimension, record = dimension_of(spectrum), _record(options, operator, razor, found)
    return Parts(
        spectrum=spectrum,
        dimension=dimension,
        length=razor.length,
        layers=layers_of(F.root, traces, ranks=setting.layers, memory=memory),
        ways=approximation.ways,
        record={"lanczos": record},
        notes=_notes(record),
        ranked=dimension.lower == dimension.upper,
    )


def _notes(record: dict[str, Any]) -> list[str]:
    """What to keep in mind when reading bounds from leading eigenvalues."""
    complexity = record["bounds"]["complexity"]
    low, high = complexity["lower"], complexity["upper"]
    found = [
        f"Complexity is certain between {low:.6g} and {high:.6g} nats: the {record['leading']:,} "
        f"largest eigenvalues make up {record['leading_share']:.0%} of the trace. That one was "
        f"missed has a probability of {record['chance']:.0e} at most.",
        "Of the rank there are only bounds; of the eigenvalues only the leading ones.",
    ]
    if high - low > WIDE * max(low, 1.0):
        found.append(
            "More of them, Lanczos(count=...), narrow the bounds; method='slq' estimates what lies "
            "between them, with a standard error."
        )
    left = record["displacement_error"]
    if left is not None and left > TOLERANCE:
        found.append(f"The displacement may be up to {left:.2g} nats more: see its products.")
    return found


def _record(
    options: Lanczos, operator: FisherOperator, razor: LeadingRazor, found: Leading
) -> dict[str, Any]:
    exact, mine = razor.displacement, razor.enclosing.leading
    return {
        **asdict(options),
        "leading": len(mine),
        "leading_share": razor.leading_share,
        "products": mine.products
        + len(mine)
        + (0 if found is mine else found.products)
        + (0 if exact is None else exact.products),
        "way": operator.way,
        "displacement_error": None if exact is None else exact.error,
        "bounds": {
            "complexity": razor.complexity.to_dict(),
            "effective_dimension": razor.effective_dimension.to_dict(),
        },
    }
