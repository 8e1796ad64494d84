"""How long rows take to be back-propagated, from one backward pass that is timed."""

from __future__ import annotations

import time

import torch

from lightlike.metric.root import Root
from lightlike.problem.isolation import isolated


def pass_seconds(root: Root) -> float:
    """Seconds of back-propagating all rows of A once, estimated.

    One backward pass of the first batch carries a row of each of its samples; there are K rows for
    Σ samples in all, and batches take time as their samples.
    """
    problem = root.problem
    samples, evaluator = problem.survey.samples, problem.evaluator
    with isolated(problem.dtype):
        outputs = evaluator.outputs(next(problem.batches()))
        leaves = list(evaluator.leaves.values())
        start = time.perf_counter()
        found = torch.autograd.grad(outputs.h.sum(), leaves, allow_unused=True)
        # Reading a number waits for a device that works on its own.
        float(sum(g.flatten()[0] for g in found if g is not None))
        seconds = time.perf_counter() - start
    return seconds * (sum(samples) / samples[0]) * (root.shape[0] / sum(samples))
