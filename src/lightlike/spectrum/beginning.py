"""What a quadrature begins with: vectors that are taken out, or a search for eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightlike.spectrum.probes import Operator, sphere
from lightlike.spectrum.recurrence import Recurrence, leading
from lightlike.spectrum.seeking import search
from lightlike.spectrum.threeterm import ThreeTerm
from lightlike.spectrum.tridiagonal import Measure

State = dict[str, Tensor]
Steps = Recurrence | ThreeTerm
# Steps until what is open is small beside chance, for vectors that stand for so many dimensions.
Taking = Callable[[Steps, float], None]

# Stream of the vector that leading eigenvectors, or others beside them, are sought from.
START = 2**40


def taken_out(
    operator: Operator, count: int, seed: int, vectors: Tensor | None, take: Taking
) -> State:
    """Vectors that are taken out, and what is known of their measures."""
    n = operator.size
    positive, measures = 0, []
    Q = torch.zeros(n, 0, dtype=torch.float64)
    if vectors is not None and vectors.shape[1]:
        Q = torch.linalg.qr(vectors.to(operator.device, torch.float64))[0]
        run = Recurrence(operator, Q)
        take(run, 1.0)
        measures = run.measures()
    elif count and n:
        count = min(count, n)
        found = leading(operator, _start(operator, seed, START), count, min(n, 4 * count + 20))
        Q, positive = found.vectors, found.positive
        values, residuals = found.values.cpu(), found.residuals.cpu()
        measures = [Measure(values[j : j + 1], residuals[j : j + 1]) for j in range(len(values))]
    state = {"vectors": Q.cpu(), "positive": torch.tensor(positive)}
    for j, measure in enumerate(measures):
        state[f"leading.{j}.alphas"] = measure.alphas.clone()
        state[f"leading.{j}.betas"] = measure.betas.clone()
    return state


def sought(
    operator: Operator,
    count: int,
    taken: int,
    tolerance: float,
    most: int,
    seed: int,
    take: Taking,
) -> State:
    """Distinct eigenvalues, and the first probe, whose steps have found some of them."""
    n = operator.size
    taken = min(taken, count, n - 1)
    first = _start(operator, seed, 0)
    second = _start(operator, seed, START) if taken else first
    found = search(operator, (first, second), min(count, n), taken, tolerance, most)
    take(found.run, float(n))
    probe = found.run.measures()[0]
    return {
        "vectors": torch.zeros(n, 0, dtype=torch.float64),
        "positive": torch.tensor(0),
        "search.alphas": found.measure.alphas,
        "search.betas": found.measure.betas,
        "locked": found.locked,
        "coupling": torch.tensor(found.coupling, dtype=torch.float64),
        "probe.0.alphas": probe.alphas,
        "probe.0.betas": probe.betas,
    }


def _start(operator: Operator, seed: int, stream: int) -> Tensor:
    return sphere(operator.size, seed, range(stream, stream + 1), operator.device)[:, 0]
