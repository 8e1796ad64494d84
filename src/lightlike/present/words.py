"""Verdicts and glossary: the numbers of a report in sentences."""

from __future__ import annotations

from lightlike.assess.comparison import Comparison
from lightlike.assess.history import History
from lightlike.assess.measurement import Measurement

GLOSSARY = {
    "Dimension": "The rank of the Fisher information matrix on these data: the number of "
    "independent directions in parameter space along which some prediction changes. Exact when "
    "bounds from below and above meet; certified when they do not.",
    "Null direction": "A direction in parameter space along which no prediction changes, to first "
    "order. Together they are the radical; the rest is the screen.",
    "Fisher information matrix": "How much predictions change per step in parameter space: the "
    "mean over observations of Jᵀ Λ J, with J the derivatives of the network's outputs and Λ the "
    "covariance of its labels' sufficient statistics.",
    "Description length": "How long a code the labels need when sender and receiver have the "
    "inputs, the network's architecture and the prior: fit, displacement and complexity together.",
    "Fit": "What the labels cost once the network is known: its negative log-likelihood.",
    "Displacement": "What it costs that the weights are not at the prior's mean. Weights in null "
    "directions cost nothing.",
    "Complexity": "What it costs to single out this network: half the logarithm of how many "
    "networks under the prior the data can tell apart. Its first part grows with the dimension, "
    "its second is negative where eigenvalues are small.",
    "Tolerance": "Singular values below this share of the largest count as zero.",
    "Gap": "Orders of magnitude between the smallest singular value counted and the largest not "
    "counted. A wide gap makes the dimension no matter of choice.",
    "Nat, bit": "Units of code length; 1 nat is 1.4427 bits.",
    "Rows": "One for each observation and independent output: K. No more than K directions can "
    "matter on K rows.",
}


def measurement_verdict(m: Measurement) -> str:
    """Two sentences: how many directions matter, and what the labels cost."""
    d = m.dimension
    counted = f"{d.value:,}" if d.lower == d.upper else f"{d.lower:,} to {d.upper:,}"
    first = (
        f"Of {m.parameters:,} parameters, the data pin down {counted} "
        f"direction{'' if d.upper == 1 else 's'}; along the others no prediction changes."
    )
    if d.data_limited:
        first = (
            f"The data pin down {counted} of {m.parameters:,} directions, as many as they can: "
            "more observations would pin down more."
        )
    failed = [check.name for check in m.checks if check.status == "failed"]
    warned = f"Failed checks: {', '.join(failed)}. " if failed else ""
    return f"{warned}{first} {_cost(m)}"


def _cost(m: Measurement) -> str:
    total = m.length.to("nats").total
    if total is None:
        return "Without labels there is no fit, and so no description length."
    uniform = m.criteria.get("uniform")
    n = m.observations
    if uniform is None or uniform <= 0:
        return f"Its labels take {total:,.1f} nats to describe, {total / n:.3g} each."
    if total >= uniform:
        return (
            f"Its labels take {total:,.0f} nats to describe, more than the {uniform:,.0f} of a "
            "code that knows nothing: by this measure it has learnt nothing."
        )
    return (
        f"Its labels take {total:,.0f} nats to describe, {1 - total / uniform:.0%} less than the "
        f"{uniform:,.0f} of a code that knows nothing."
    )


def history_verdict(history: History) -> str:
    """Two sentences: what became of the dimension, and of the length."""
    if not len(history):
        return "Nothing was measured."
    first, last = history.snapshots[0], history.snapshots[-1]
    if len(history) == 1:
        return f"At step {first.step:,} the dimension is {first.dimension:,}."
    course = (
        f"stayed at {last.dimension:,}"
        if first.dimension == last.dimension
        else f"went from {first.dimension:,} to {last.dimension:,}"
    )
    sentence = (
        f"From step {first.step:,} to step {last.step:,} the dimension {course} of "
        f"{last.parameters:,}."
    )
    lengths = [(s.length, s.step) for s in history.snapshots if s.length is not None]
    if not lengths:
        return f"{sentence} Without labels there is no description length."
    least, step = min(lengths)
    end = "at the end" if step == last.step else f"at step {step:,}"
    return (
        f"{sentence} The labels' description went from {lengths[0][0]:,.1f} to "
        f"{lengths[-1][0]:,.1f} nats, and was shortest {end}, {least:,.1f}."
    )


def comparison_verdict(c: Comparison) -> str:
    """Two sentences: which is the shortest, and how sure that is."""
    best, others = c.best, c.entries[1:]
    if not others:
        return (
            f"“{best.name}” takes {best.total:,.1f} {c.units}. There is nothing to compare it to."
        )
    second = others[0]
    first = (
        f"“{best.name}” gives the labels the shortest description, {best.total:,.1f} {c.units}, "
        f"{second.difference:,.1f} less than “{second.name}”."
    )
    if not second.stderr:
        return f"{first} The two fit every label alike."
    errors = second.difference / second.stderr
    sure = "which settles it" if errors > 2 else "too few to settle it"
    return f"{first} That is {errors:.1f} standard errors, {sure} on these data."
